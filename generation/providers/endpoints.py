"""Which endpoint takes the next call: the healthy one with the fewest calls in flight for its weight.

Each endpoint has a circuit, shared by all workers through the cache. When half of the calls of a window fail it opens,
and the endpoint is skipped; when its time is up exactly one call probes it, and two good probes close it.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import structlog
from django.conf import settings
from django.core.cache import cache
from django.utils.functional import cached_property

from generation.exceptions import CircuitsOpen

log = structlog.get_logger("generation")

MAX_OPEN_SECONDS = 300
PROBES_TO_CLOSE = 2
BUCKETS = 6
# How long a state outlives its last change; long enough for the longest opening.
KEPT_SECONDS = 3600


class Outcome(Enum):
    """What a call said about its endpoint."""

    GOOD = "good"
    FAILED = "failed"  # it timed out, could not be reached, broke down or talked nonsense
    NEUTRAL = "neutral"  # too many requests: it works, and there is too much work
    REFUSED = "refused"  # the key is wrong or out of credits: nobody but the owner can help


@dataclass(frozen=True)
class Endpoint:
    base: str
    key: str
    weight: float = 1.0

    @cached_property
    def name(self) -> str:
        """A name for rows and logs that tells two keys of one host apart and gives neither away."""
        host = self.base.split("://")[-1].strip("/")
        return f"{host}#{hashlib.sha256(self.key.encode()).hexdigest()[:6]}"


def configured() -> list[Endpoint]:
    """The endpoints that the owner set; none without a key."""
    if settings.AIML_ENDPOINTS:
        return [Endpoint(base.rstrip("/"), key, weight) for base, key, weight in settings.AIML_ENDPOINTS]
    if settings.AIML_API_KEY:
        return [Endpoint(settings.AIML_API_BASE.rstrip("/"), settings.AIML_API_KEY)]
    return []


@dataclass(frozen=True)
class Circuit:
    state: str  # closed, open or half_open
    seconds: float = 0.0  # until it is half open
    since: float | None = None  # when it opened for the first time since it was closed, in seconds of the epoch


@dataclass
class Call:
    """One call on an endpoint; whoever makes it says how it went."""

    endpoint: Endpoint
    is_probe: bool = False
    outcome: Outcome = Outcome.NEUTRAL

    @property
    def is_given_up(self) -> bool:
        """Whether the run goes on without this endpoint: its key was refused, or it is no better than before."""
        return self.outcome is Outcome.REFUSED or (self.is_probe and self.outcome is Outcome.FAILED)


_in_flight: Counter[str] = Counter()
_lock = threading.Lock()


@contextmanager
def call(endpoints: list[Endpoint], *, avoid: Endpoint | None = None) -> Iterator[Call]:
    """Choose an endpoint, count the call as in flight, and hear how it went. Raises CircuitsOpen.

    `avoid` is taken only when there is no other: it has just failed.
    """
    endpoint, probing = _choose(endpoints, avoid)
    made = Call(endpoint, probing)
    try:
        yield made
    finally:
        with _lock:
            _in_flight[endpoint.name] -= 1
        _probed(endpoint, made.outcome) if probing else _counted(endpoint, made.outcome)


def circuit(endpoint: Endpoint) -> Circuit:
    keys = [_key(endpoint, part) for part in ("level", "until", "since")]
    found = cache.get_many(keys)
    level, until, since = (found.get(key) for key in keys)
    if level is None:
        return Circuit("closed")
    if until is None:
        return Circuit("half_open", since=since)
    return Circuit("open", max(1.0, until - time.time()), since)


def recent_calls(endpoint: Endpoint) -> tuple[int, int]:
    """Count the calls of the window that say something about an endpoint, and those of them that failed."""
    found = cache.get_many([_key(endpoint, part) for part in _bucket_parts()])
    calls, failed = (sum(n for key, n in found.items() if f":{kind}:" in key) for kind in ("calls", "failed"))
    return calls, failed


def close(endpoint: Endpoint) -> None:
    """Forget everything that was held against an endpoint."""
    parts = ("level", "until", "since", "probe", "good_probes", *_bucket_parts())
    cache.delete_many([_key(endpoint, part) for part in parts])


def _choose(endpoints: list[Endpoint], avoid: Endpoint | None) -> tuple[Endpoint, bool]:
    circuits = [(endpoint, circuit(endpoint)) for endpoint in endpoints]
    for endpoint, state in circuits:
        # Only the cache can say "one of all workers"; a probe whose worker dies is forgotten after a call's time.
        if state.state == "half_open" and cache.add(_key(endpoint, "probe"), 1, settings.AIML_CALL_SECONDS + 5):
            log.info("circuit_half_open", endpoint=endpoint.name)
            with _lock:
                _in_flight[endpoint.name] += 1
            return endpoint, True
    closed = [endpoint for endpoint, state in circuits if state.state == "closed"]
    if not closed:
        raise CircuitsOpen(retry_after=min(state.seconds or 2.0 for _, state in circuits))
    with _lock:
        best = min(closed, key=lambda one: (one == avoid, (_in_flight[one.name] + 1) / one.weight))
        _in_flight[best.name] += 1
    return best, False


def _counted(endpoint: Endpoint, outcome: Outcome) -> None:
    if outcome is Outcome.REFUSED:
        return _open(endpoint)
    if outcome is Outcome.NEUTRAL:
        return None
    _increase(endpoint, f"calls:{_bucket()}")
    if outcome is not Outcome.FAILED:
        return None
    _increase(endpoint, f"failed:{_bucket()}")
    calls, failed = recent_calls(endpoint)
    if calls >= settings.CIRCUIT_MIN_CALLS and failed * 2 >= calls and circuit(endpoint).state == "closed":
        _open(endpoint)
    return None


def _probed(endpoint: Endpoint, outcome: Outcome) -> None:
    if outcome in (Outcome.FAILED, Outcome.REFUSED):
        cache.delete(_key(endpoint, "good_probes"))
        _open(endpoint)
    elif outcome is Outcome.GOOD and _increase(endpoint, "good_probes") >= PROBES_TO_CLOSE:
        close(endpoint)
        log.info("circuit_closed", endpoint=endpoint.name)
    cache.delete(_key(endpoint, "probe"))


def _open(endpoint: Endpoint) -> None:
    level = _increase(endpoint, "level")
    seconds = min(MAX_OPEN_SECONDS, settings.CIRCUIT_OPEN_SECONDS * 2 ** (level - 1))
    cache.set(_key(endpoint, "until"), time.time() + seconds, seconds)
    cache.add(_key(endpoint, "since"), time.time(), KEPT_SECONDS)
    log.error("circuit_opened", endpoint=endpoint.name, seconds=seconds)


def _increase(endpoint: Endpoint, part: str) -> int:
    key = _key(endpoint, part)
    try:
        return cache.incr(key)
    except ValueError:  # the first of its time, or the second of two at once
        return 1 if cache.add(key, 1, KEPT_SECONDS) else cache.incr(key)


def _key(endpoint: Endpoint, part: str) -> str:
    return f"circuit:{endpoint.name}:{part}"


def _bucket(ago: int = 0) -> int:
    return int(time.time() // (settings.CIRCUIT_WINDOW_SECONDS / BUCKETS)) - ago


def _bucket_parts() -> list[str]:
    return [f"{kind}:{_bucket(ago)}" for kind in ("calls", "failed") for ago in range(BUCKETS)]
