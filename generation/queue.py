"""Waking whoever works on runs. What there is to do is in the rows; this only says that one has been written."""

import threading
import uuid
from collections.abc import Iterable
from datetime import timedelta

import structlog
from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

log = structlog.get_logger("generation")

PROCESS = "generation.process"
CLEAN_UP = "generation.clean_up"


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
