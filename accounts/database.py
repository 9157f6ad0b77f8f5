"""How long a statement may take or wait on PostgreSQL: pages give up soon, workers later, commands never.

Without limits one locked table holds every connection of a process, and then nobody is served.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

PARAMETERS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
Limits = Mapping[str, float]
UNLIMITED: Limits = dict.fromkeys(PARAMETERS, 0)


class _Thread(threading.local):
    """The limits of this thread, where they are others than those of its process."""

    limits: Limits | None = None


_thread = _Thread()


def for_pages() -> Limits:
    seconds = (settings.PAGE_STATEMENT_SECONDS, settings.PAGE_LOCK_SECONDS, settings.IDLE_TRANSACTION_SECONDS)
    return dict(zip(PARAMETERS, seconds, strict=True))


def for_workers() -> Limits:
    seconds = (settings.WORKER_STATEMENT_SECONDS, settings.WORKER_LOCK_SECONDS, settings.IDLE_TRANSACTION_SECONDS)
    return dict(zip(PARAMETERS, seconds, strict=True))


def limit_process(limits: Limits) -> None:
    """Let every connection that this process opens from now on begin with these limits."""
    for used in connections.all():
        if used.vendor != "postgresql":
            continue
        words = " ".join(f"-c {name}={round(1000 * seconds)}" for name, seconds in limits.items())
        options = used.settings_dict["OPTIONS"]
        options["options"] = f"{options.get('options', '')} {words}".strip()
        # What `runserver` has asked before it served had no limits, and its pool would go on without.
        used.close()
        used.close_pool()  # type: ignore[attr-defined]


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Give this thread limits of its own for a while."""
    before = _thread.limits
    _change(limits)
    try:
        yield
    finally:
        _change(before)


def _change(limits: Limits | None) -> None:
    _thread.limits = limits
    for used in connections.all(initialized_only=True):
        if used.vendor == "postgresql" and not used.in_atomic_block:
            used.close()


@receiver(connection_created)
def set_limits(connection: Any, **signal: Any) -> None:
    """Set this thread's limits on a connection from the pool, or take away what another thread has set there."""
    if connection.vendor != "postgresql":
        return
    pooled = connection.connection
    if _thread.limits is not None:
        _set(pooled, _thread.limits)
    elif getattr(pooled, "has_limits_of_a_thread", False):
        for name in PARAMETERS:
            pooled.execute(f"RESET {name}")
    pooled.has_limits_of_a_thread = _thread.limits is not None


def _set(connection: Any, limits: Limits) -> None:
    words = [f"set_config('{name}', '{round(1000 * seconds)}', false)" for name, seconds in limits.items()]
    connection.execute(f"SELECT {', '.join(words)}")
