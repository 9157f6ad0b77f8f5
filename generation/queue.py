"""Waking whoever works on runs. What there is to do is in the rows; this only says that one has been written."""

import threading
import time
import uuid
from collections.abc import Iterable
from datetime import timedelta

import structlog
from celery import current_app
from django.conf import settings
from django.core.cache import cache
from kombu.exceptions import OperationalError

log = structlog.get_logger("generation")

PROCESS = "generation.process"
CLEAN_UP = "generation.clean_up"
SEEN_SECONDS = 24 * 3600


class Bell:
    """A bell that no ring of is lost: a sleeper says which ring it heard last."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.rings = 0

    def ring(self) -> None:
        with self._condition:
            self.rings += 1
            self._condition.notify_all()

    def wait(self, heard: int, seconds: float) -> None:
        """Return at the first ring after number `heard`, or when the time is up."""
        with self._condition:
            self._condition.wait_for(lambda: self.rings != heard, seconds)


bell = Bell()


def say_worker_is_there() -> None:
    """Remember that a worker looks for work, where whoever keeps watch can see it."""
    cache.set("worker_seen", time.time(), SEEN_SECONDS)


def worker_seen() -> float:
    """Return when any worker last looked for work, in seconds of the epoch; 0 when none did for a day."""
    return float(cache.get("worker_seen") or 0)


def wake(run_ids: Iterable[uuid.UUID] = (), *, after: timedelta = timedelta()) -> None:
    """Tell a worker that these runs are due, now or after a while.

    With a queue engine a message goes out for each; without one, the threads of this process look for themselves. A
    message that is lost, or cannot be sent, costs time only: whoever tends sends it again.
    """
    if not settings.CELERY_BROKER_URL:
        bell.ring()
        return
    for run_id in run_ids:
        try:
            current_app.send_task(PROCESS, [str(run_id)], countdown=after.total_seconds() or None, retry=False)
        except (OperationalError, OSError):
            log.warning("queue_unreachable", run_id=str(run_id), exc_info=True)
            return
