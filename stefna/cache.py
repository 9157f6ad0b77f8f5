"""Caches that may fail: without Redis each process has its own memory, without a disk previews are made again."""

import pickle
import time
import zlib
from typing import Any

import structlog
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

log = structlog.get_logger("stefna")

# While it is away it is asked again only this often, so that a page waits once for a slow one and not at every step.
ASK_AGAIN_SECONDS = 5
LOG_AGAIN_SECONDS = 60
# Counters of sign-ins and requests in the memory of one process, some 500 bytes each. A full cache drops a third.
MAX_COUNTERS = 100_000


class _Absence:
    """Shared by the threads of a process."""

    until = 0.0
    logged_at = float("-inf")


_clients: dict[str, Any] = {}


class SteadyRedisCache(RedisCache):
    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        # Django makes a cache for each thread. Their connections are shared, or 500 threads would open 500 of them.
        self.__dict__["_cache"] = _clients.setdefault(server, super()._cache)
        self._own = LocMemCache("redis-is-away", {"OPTIONS": {"MAX_ENTRIES": MAX_COUNTERS}})

    def ping(self) -> None:
        """Ask Redis itself. Raises RedisError or OSError while it is away."""
        self._cache.get_client(None, write=True).ping()

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        now = time.monotonic()
        if now >= _Absence.until:
            try:
                return getattr(super(), name)(*arguments, **options)
            except (RedisError, OSError) as error:
                _Absence.until = now + ASK_AGAIN_SECONDS
                if now - _Absence.logged_at > LOG_AGAIN_SECONDS:
                    _Absence.logged_at = now
                    log.warning("cache_away", code=type(error).__name__)
        return getattr(self._own, name)(*arguments, **options)


def _steady(name: str) -> Any:
    def method(self: SteadyRedisCache, *arguments: Any, **options: Any) -> Any:
        return self._call(name, *arguments, **options)

    method.__doc__ = getattr(BaseCache, name).__doc__
    return method


STEADY = "add get set touch delete get_many set_many delete_many has_key incr clear"
for _name in STEADY.split():
    setattr(SteadyRedisCache, _name, _steady(_name))


class PreviewCache(FileBasedCache):
    """Files of previews. A disk that fails, and a file that is damaged, are as no entry."""

    _logged_at = float("-inf")

    def __init__(self, folder: str, params: dict[str, Any]) -> None:
        try:
            super().__init__(folder, params)
        except OSError as error:
            # The folder could not be made; each write tries again.
            self._log(error)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except (OSError, EOFError, ValueError, TypeError, zlib.error, pickle.UnpicklingError) as error:
            self._log(error)
            return default

    def set(self, key: str, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        try:
            super().set(key, value, timeout, version)
        except OSError as error:
            self._log(error)

    @classmethod
    def _log(cls, error: Exception) -> None:
        now = time.monotonic()
        if now - cls._logged_at > LOG_AGAIN_SECONDS:
            cls._logged_at = now
            log.warning("preview_cache_failed", code=type(error).__name__)
