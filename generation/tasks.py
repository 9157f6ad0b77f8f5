"""Who works on runs, and when: a few threads in the process that serves pages.

The rows are the queue. A thread takes the oldest due run; when there is none it sleeps until the bell rings or it is
time to look again, because another process may have written one.
"""

import atexit
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from django.conf import settings
from django.db import DatabaseError, connections

from generation import queue, services, sweep
from generation.models import Run

log = structlog.get_logger("generation")

LOOK_AGAIN_SECONDS = 5
CLEAN_UP_SECONDS = 3600
STOP_SECONDS = 25


def process(run_id: uuid.UUID) -> bool:
    """Claim one run and make an attempt at it, keeping its lease alive; False if somebody else has it."""
    run = Run.objects.claim(run_id, sweep.WORKER_NAME)
    if run is None:
        return False
    with _lease_renewed(run):
        services.process_run(run)
    return True


@contextmanager
def _lease_renewed(run: Run) -> Iterator[None]:
    """Renew the run's lease from beside, because nothing in the middle of making a picture can."""
    done = threading.Event()

    def renew() -> None:
        try:
            while not done.wait(settings.RUN_HEARTBEAT_SECONDS):
                try:
                    run.renew_lease()
                except DatabaseError:
                    log.warning("lease_not_renewed", run_id=str(run.pk), exc_info=True)
        finally:
            connections.close_all()

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Worker:
    """The threads that work on runs, and one that looks after runs whose worker died."""

    def __init__(self, threads: int) -> None:
        self._stopping = threading.Event()
        self._busy_with: set[uuid.UUID] = set()
        self._last_clean_up = time.monotonic()
        self._threads = [
            threading.Thread(target=self._repeat, args=(task,), name=f"worker-{number}", daemon=True)
            for number, task in enumerate([self._tend, *[self._work] * threads])
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take nothing new, let what is running finish, and hand back what takes too long."""
        self._stopping.set()
        queue.wake()
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))
        for run in Run.objects.filter(pk__in=list(self._busy_with)):
            if run.requeue(code="worker_stopped"):
                log.warning("run_requeued", run_id=str(run.pk), code="worker_stopped")

    def _repeat(self, task: Callable[[], None]) -> None:
        """Do a task again and again until the worker stops; a database that is away for a while ends no thread."""
        while not self._stopping.is_set():
            try:
                task()
            except DatabaseError:
                log.exception("worker_waits_for_database")
                self._stopping.wait(LOOK_AGAIN_SECONDS)
            finally:
                connections.close_all()

    def _work(self) -> None:
        """Make an attempt at the oldest due run, or sleep until there may be one."""
        heard = queue.bell.rings
        # As many candidates as there are threads: each other thread may be faster with one of them.
        for run_id in Run.objects.due().values_list("pk", flat=True)[: len(self._threads)]:
            self._busy_with.add(run_id)
            try:
                if process(run_id):
                    return
            finally:
                self._busy_with.discard(run_id)
        connections.close_all()
        queue.bell.wait(heard, LOOK_AGAIN_SECONDS)

    def _tend(self) -> None:
        sweep.take_over_lost_runs()
        if time.monotonic() - self._last_clean_up > CLEAN_UP_SECONDS:
            self._last_clean_up = time.monotonic()
            sweep.clean_up()
        connections.close_all()
        self._stopping.wait(settings.RUN_HEARTBEAT_SECONDS)


def start_worker() -> Worker:
    """Start working on runs in this process, until it ends."""
    worker = Worker(settings.RUN_WORKER_THREADS)
    worker.start()
    # Threads that would keep the process alive could not be stopped by its end; these are, and hand back their runs.
    atexit.register(worker.stop)
    return worker
