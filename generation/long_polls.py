"""Places for requests that wait for a run: they leave most threads of the server to requests that do not wait."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

MAX_WAITING = 18
"""A quarter of the threads in gunicorn.conf.py; a test holds the two together."""
MAX_WAITING_PER_USER = 6


class Places:
    """A bounded number of requests of this process that may wait at the same time, and of those of one user."""

    def __init__(self, total: int = MAX_WAITING, per_user: int = MAX_WAITING_PER_USER) -> None:
        self._total = total
        self._per_user = per_user
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def place(self, user_id: int) -> Iterator[bool]:
        """Hold a place until the end of the block. False, without waiting, when none is free."""
        is_held = self._take(user_id)
        try:
            yield is_held
        finally:
            if is_held:
                self._release(user_id)

    def _take(self, user_id: int) -> bool:
        with self._lock:
            if self._taken.total() >= self._total or self._taken[user_id] >= self._per_user:
                return False
            self._taken[user_id] += 1
            return True

    def _release(self, user_id: int) -> None:
        with self._lock:
            self._taken[user_id] -= 1
            # Users without a request that waits are not kept.
            self._taken += Counter()


places = Places()
