"""What is counted for Prometheus: every event of the log, calls to services, requests. All processes of a host add up.

Each process counts in files of its own in STATE_DIR, which whoever answers /metrics reads together; none has to be
alive for that. What dead ones counted is moved into one file, so a counter never goes back and files do not pile up.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

KINDS = ("counter", "histogram")
# Room for some 4,000 numbers. It is taken at once: into a file that only seems to have it, writing on a full disk would
# end the process.
ROOM = 1 << 20
TRY_AGAIN_SECONDS = 60
# Of another host that shares the folder nobody here can say whether a process of it is alive.
GONE_SECONDS = 7 * 24 * 3600
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HOST = re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname())


def _who() -> str:
    # Containers that share the folder may all have the same process number.
    return f"{_HOST}-{os.getpid()}"


# Chosen here and not by the library, which would have to be imported after the settings.
values.ValueClass = values.MultiProcessValue(process_identifier=_who)
_LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90)
_SHORT = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
EVENTS = Counter("stefna_events", "Events of the log.", ["event", "level", "code"], registry=None)
TIMES = Histogram("stefna_event_seconds", "What events say they took.", ["event"], buckets=_LONG, registry=None)
CALLS = Histogram(
    "stefna_upstream_call_seconds", "Calls to services.", ["endpoint", "status"], buckets=_LONG, registry=None
)
REQUESTS = Counter("stefna_http_requests", "Answered requests.", ["method", "route", "status"], registry=None)
ANSWERS = Histogram("stefna_http_request_seconds", "Until the answer.", ["method"], buckets=_SHORT, registry=None)
ROUTES = Histogram(
    "stefna_http_route_seconds", "Until the answer.", ["route"], buckets=(0.05, 0.25, 1, 5), registry=None
)


def folder() -> Path:
    return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])


# -- Counting --------------------------------------------------------------------------------------------------


def count_event(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Count a line of the log, as a step of structlog's."""
    if _has_room():
        # Names are ours and few; whatever else somebody logs is one name.
        name = _word(event.get("event"), "other")
        EVENTS.labels(name, event.get("level", method), _word(event.get("code"), "")).inc()
        milliseconds = event.get("duration_ms")
        if isinstance(milliseconds, int | float):
            if name == "upstream_call":
                CALLS.labels(event.get("endpoint", ""), event.get("http_status", "none")).observe(milliseconds / 1000)
            else:
                TIMES.labels(name).observe(milliseconds / 1000)
    return event


def count_request(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Count an answered request by where it was sent to, not by its address: those are many, and somebody's."""
    if not _has_room():
        return
    method = request.method if request.method in METHODS else "other"
    # Static files, and what was refused before anybody looked where it leads, have no route.
    route = (request.resolver_match.route or "/") if request.resolver_match else "none"
    REQUESTS.labels(method, route, response.status_code).inc()
    ANSWERS.labels(method).observe(seconds)
    ROUTES.labels(route).observe(seconds)


def _word(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"\w{1,60}", value, re.ASCII) else otherwise


class _Room:
    """Which process has taken the room for its files, and when to try again after there was none."""

    of = ""
    again = 0.0


def _has_room() -> bool:
    who = _who()
    if _Room.of == who:
        return True
    if time.monotonic() < _Room.again:
        return False
    try:
        for kind in KINDS:
            _take_room(folder() / f"{kind}_{who}.db")
    except OSError:
        # A full disk, or a folder that is not ours: pages and runs go on, uncounted.
        _Room.again = time.monotonic() + TRY_AGAIN_SECONDS
        return False
    _Room.of = who
    return True


def _take_room(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(max(0, ROOM - file.tell())))


# -- Reading ---------------------------------------------------------------------------------------------------


def scrape() -> bytes:
    """Return everything that was counted on this host, in Prometheus' words."""
    registry = CollectorRegistry()
    with _alone():
        _fold_the_dead()
        MultiProcessCollector(registry, path=str(folder()))
        return generate_latest(registry)


def fold() -> None:
    """Put what dead processes counted into one file, at the start of a process: perhaps nobody asks for /metrics."""
    with suppress(OSError), _alone():
        _fold_the_dead()


@contextmanager
def _alone() -> Iterator[None]:
    """Keep others from reading or folding meanwhile: they would see some counts twice, or not at all."""
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fold_the_dead() -> None:
    for kind in KINDS:
        dead = [path for path in folder().glob(f"{kind}_*.db") if _is_dead(path)]
        if not dead:
            continue
        before = folder() / f"{kind}_all-before.db"
        _take_room(before)
        kept = MmapedDict(str(before))
        for path in dead:
            for key, value in _counted(path):
                kept.write_value(key, kept.read_value(key)[0] + value, 0.0)
            path.unlink(missing_ok=True)
        kept.close()


def _counted(path: Path) -> list[tuple[str, float]]:
    try:
        return [(key, value) for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path))]
    except (RuntimeError, ValueError, struct.error):  # it was never written to, or only in part
        return []


def _is_dead(path: Path) -> bool:
    host, _, number = path.stem.partition("_")[2].rpartition("-")
    if not number.isdigit():
        return False
    if host != _HOST:
        return time.time() - path.stat().st_mtime > GONE_SECONDS
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
