"""Whether this process can do its work now: what it needs is asked, at once and for two seconds at most."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any, TypeVar

from celery import current_app
from django.conf import settings
from django.core.cache import caches
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor

from stefna.cache import SteadyRedisCache

T = TypeVar("T")

LIMIT_SECONDS = 2.0
# Less is as good as full: the largest upload, and what the database and the log need meanwhile.
LEAST_FREE_BYTES = 100_000_000

_asked: dict[str, Future[Any]] = {}
_lock = Lock()


@dataclass(frozen=True)
class Check:
    ok: bool
    milliseconds: int
    # The kind of trouble, and nothing that came with it: messages of drivers name hosts and accounts.
    trouble: str = ""


class NotReady(Exception):
    """Something answers, and is not as it has to be."""


def readiness() -> dict[str, Check]:
    """Ask for everything at once."""
    started = time.monotonic()
    asked = {name: _ask(name, partial(_timed, ask)) for name, ask in CHECKS.items()}
    return {name: _answer(future, started) for name, future in asked.items()}


def within_limit(name: str, ask: Callable[[], T]) -> T:
    """Ask for something else, such as numbers. Raises TimeoutError."""
    return _ask(name, ask).result(LIMIT_SECONDS)


def _ask(name: str, ask: Callable[[], T]) -> Future[T]:
    """Ask in a thread. While it has not answered, whoever else asks waits for the same answer.

    So however often it is asked, one thread at most hangs in a driver that waits longer than we do.
    """
    with _lock:
        asked = _asked.get(name)
        if asked is None or asked.done():
            asked = _asked[name] = Future()
            Thread(target=_run, args=(asked, ask), name=f"ready-{name}", daemon=True).start()
        return asked


def _run(future: Future[T], ask: Callable[[], T]) -> None:
    try:
        future.set_result(ask())
    except Exception as error:  # noqa: BLE001  (it is for whoever asked)
        future.set_exception(error)
    finally:
        connections.close_all()


def _answer(future: Future[Check], started: float) -> Check:
    try:
        return future.result(max(0.0, started + LIMIT_SECONDS - time.monotonic()))
    except TimeoutError:
        return Check(False, _since(started), "TimeoutError")


def _timed(ask: Callable[[], Any]) -> Check:
    started = time.monotonic()
    try:
        ask()
    except NotReady as error:
        return Check(False, _since(started), str(error))
    except Exception as error:  # noqa: BLE001  (whatever it is, the answer is no)
        return Check(False, _since(started), type(error).__name__)
    return Check(True, _since(started))


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


# -- What is asked -------------------------------------------------------------------------------------------------


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


class _Migrated:
    """Once all are applied, they stay so as long as this code runs."""

    all = False


def _migrations() -> None:
    if _Migrated.all:
        return
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        raise NotReady(f"{len(waiting)} migrations are not applied")
    _Migrated.all = True


def _cache() -> None:
    # The cache itself would answer from its own memory while Redis is away.
    if isinstance(cache := caches["default"], SteadyRedisCache):
        cache.ping()


def _queue() -> None:
    if settings.CELERY_BROKER_URL:
        with current_app.connection_for_write(connect_timeout=1) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=LIMIT_SECONDS)
            broker.channel().close()


def folders() -> dict[str, Path]:
    """The folders that have to take files: uploads in progress, and pictures where there is no other storage."""
    found = {"uploads": Path(settings.FILE_UPLOAD_TEMP_DIR)}
    return found if settings.CLOUDINARY_URL else found | {"pictures": Path(settings.MEDIA_ROOT)}


def _storage() -> None:
    for folder in folders().values():
        path = folder / f".ready-{os.getpid()}-{time.monotonic_ns()}"
        try:
            path.write_bytes(bytes(4096))
        finally:
            path.unlink(missing_ok=True)
        if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            raise NotReady("the disk is almost full")


CHECKS: dict[str, Callable[[], None]] = {
    "database": _database,
    "migrations": _migrations,
    "cache": _cache,
    "queue": _queue,
    "storage": _storage,
}
