"""Who works on runs, and when: the workers of a queue engine, or a few threads in the process that serves pages.

The rows are the queue. A message of the engine, or a ring of the bell, only saves a worker from looking too often.
"""

import atexit
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import shared_task
from celery.signals import worker_ready, worker_shutting_down
from django.conf import settings
from django.db import DatabaseError, connections

from accounts import database
from generation import attempts, exports, queue, sweep
from generation.models import Run, release_connections

log = structlog.get_logger("generation")

LOOK_AGAIN_SECONDS = 5
STOP_SECONDS = 25
# How long a suspect waits for the runs of its worker to end, and others for the suspect: longer than an attempt takes.
ALONE_SECONDS = 180


class Holder:
    """The runs that this process holds. One thread renews all their leases, however many there are.

    A suspect, a run that two workers died over, is held alone: if it kills this process too, no other run dies with it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._runs: set[uuid.UUID] = set()
        self._suspects = 0
        self._heart: threading.Thread | None = None
        self.is_stopping = False

    def stop(self) -> None:
        """Claim nothing more."""
        with self._changed:
            self.is_stopping = True
            self._changed.notify_all()

    @contextmanager
    def claimed(self, run_id: uuid.UUID) -> Iterator[Run | None]:
        """Claim a run and hold it until the end of the block. None: another worker has it, or this one is stopping."""
        with self._held(run_id, lambda: not self._suspects) as is_held:
            if is_held and (run := Run.objects.claim(run_id, sweep.WORKER_NAME)):
                yield run
                return
        if not Run.objects.due().suspects().filter(pk=run_id).exists():
            yield None
            return
        with self._keeping_others_out(), self._held(run_id, lambda: not self._runs) as is_held:
            yield Run.objects.claim(run_id, sweep.WORKER_NAME, alone=True) if is_held else None

    @contextmanager
    def _held(self, run_id: uuid.UUID, may_hold: Callable[[], bool]) -> Iterator[bool]:
        """Hold a run as soon as that is allowed; False when it does not come to that."""
        with self._changed:
            if not may_hold():
                release_connections()
            allowed = self._changed.wait_for(lambda: self.is_stopping or may_hold(), ALONE_SECONDS)
            if is_held := allowed and not self.is_stopping:
                self._runs.add(run_id)
                self._start_heart()
        try:
            yield is_held
        finally:
            if is_held:
                with self._changed:
                    self._runs.discard(run_id)
                    self._changed.notify_all()

    @contextmanager
    def _keeping_others_out(self) -> Iterator[None]:
        """Let no other run begin, so that a suspect's turn comes, and until it has ended."""
        with self._changed:
            self._suspects += 1
        try:
            yield
        finally:
            with self._changed:
                self._suspects -= 1
                self._changed.notify_all()

    def _start_heart(self) -> None:
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="heart", daemon=True)
            self._heart.start()

    def wait_until_idle(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self._runs and time.monotonic() < until:
            time.sleep(0.05)
        return not self._runs

    def hand_back(self) -> None:
        """Give every run that is still held to whoever comes next."""
        for run in Run.objects.filter(pk__in=list(self._runs)):
            if run.requeue(code="worker_stopped"):
                log.warning("run_requeued", run_id=str(run.pk), code="worker_stopped")
                queue.wake([run.pk])

    def _beat(self) -> None:
        while True:
            time.sleep(settings.RUN_HEARTBEAT_SECONDS)
            with self._changed:
                if not self._runs:
                    self._heart = None
                    return
                held_now = list(self._runs)
            try:
                Run.objects.renew_leases(sweep.WORKER_NAME, held_now)
            except DatabaseError:
                log.warning("leases_not_renewed", exc_info=True)
            finally:
                connections.close_all()


held = Holder()


def process(run_id: uuid.UUID) -> bool:
    """Claim one run and make an attempt at it, keeping its lease alive; False if somebody else has it."""
    with held.claimed(run_id) as run:
        if run is None:
            return False
        attempts.process_run(run)
        return True


# -- With a queue engine ---------------------------------------------------------------------------------------


@shared_task(name=queue.PROCESS)
def process_message(run_id: str) -> None:
    if held.is_stopping:
        return  # the row waits, and the maintenance thread of another worker wakes it
    try:
        process(uuid.UUID(run_id))
    finally:
        connections.close_all()


@shared_task(name=queue.CLEAN_UP)
def clean_up() -> None:
    try:
        sweep.clean_up()
    finally:
        connections.close_all()


@worker_ready.connect
def start_tending(**signal: Any) -> None:
    """Look after runs beside the queue, in every worker: behind a long one a message would come too late."""
    Worker(threads=0).start()


@worker_shutting_down.connect
def stop_engine_worker(**signal: Any) -> None:
    """Claim nothing new; finish what is running or hand it back, and end before a supervisor loses its patience."""
    held.stop()

    def finish() -> None:
        if held.wait_until_idle(STOP_SECONDS):
            return  # the engine ends by itself
        held.hand_back()
        # Its threads wait for somebody else's server and cannot be stopped.
        os._exit(0)

    threading.Thread(target=finish, name="stop", daemon=True).start()


# -- In this process -----------------------------------------------------------------------------------------------


class Worker:
    """The threads of this process that work on runs, one that makes exports, and one that looks after dead workers."""

    def __init__(self, threads: int) -> None:
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(task,), name=f"worker-{number}", daemon=True)
            for number, task in enumerate([self._tend, self._export, *[self._work] * threads])
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take nothing new, let what is running finish, and hand back what takes too long."""
        self._stopping.set()
        held.stop()
        queue.bell.ring()
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))
        held.hand_back()

    def _repeat(self, task: Callable[[], None]) -> None:
        """Do a task again and again until the worker stops; a database that is away for a while ends no thread."""
        while not self._stopping.is_set():
            try:
                # Where pages are served as well, a worker waits longer than they do: it has more to lose.
                with database.limited(database.for_workers()):
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
        if any(process(run_id) for run_id in Run.objects.due().values_list("pk", flat=True)[: len(self._threads)]):
            return
        connections.close_all()
        queue.bell.wait(heard, LOOK_AGAIN_SECONDS)

    def _export(self) -> None:
        """Make the oldest due export, or sleep until there may be one. It may take minutes: runs do not wait for it."""
        heard = queue.bell.rings
        if exports.make_next(lambda: held.is_stopping):
            return
        connections.close_all()
        queue.bell.wait(heard, LOOK_AGAIN_SECONDS)

    def _tend(self) -> None:
        """Take over what died, and tell workers again of what waits; without beat, clean up from time to time."""
        queue.say_worker_is_there()
        sweep.take_over_lost_runs()
        sweep.wake_waiting_runs()
        if not settings.CELERY_BROKER_URL and sweep.is_clean_up_due():
            sweep.clean_up()
        connections.close_all()
        self._stopping.wait(settings.RUN_HEARTBEAT_SECONDS)


def start_worker() -> Worker:
    """Start working on runs in this process, until it ends."""
    worker = Worker(settings.RUN_WORKER_THREADS)
    worker.start()
    # Threads that would keep the process alive could not be stopped by its end; these are, and hand back their runs.
    atexit.register(worker.stop)
    _stop_with_the_server(worker)
    return worker


def _stop_with_the_server(worker: Worker) -> None:
    """Begin to stop when the server is told to, and not only when it has answered everybody: it may be killed then."""
    if threading.current_thread() is not threading.main_thread():
        return
    servers_own = signal.getsignal(signal.SIGTERM)
    if not callable(servers_own):
        return

    def stop(number: int, frame: Any) -> None:
        threading.Thread(target=worker.stop, name="stop", daemon=True).start()
        servers_own(number, frame)

    signal.signal(signal.SIGTERM, stop)
