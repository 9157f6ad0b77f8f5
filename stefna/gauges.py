"""What stands at the moment of a scrape: from the rows, which are true whichever host has done the work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from generation import queue, sweep, waiting
from generation.metrics import CANCELLED, CLASSES, REUSED, SUCCEEDED
from generation.providers import endpoints
from stefna.readiness import Check, folders, readiness, within_limit

RECENTLY = timedelta(minutes=15)
OUTCOMES = (SUCCEEDED, REUSED, CANCELLED, *CLASSES)


class Gauges(Collector):
    def collect(self) -> Iterator[Metric]:
        checks = readiness()
        yield from _checks(checks)
        yield from _disks()
        yield from _circuits()
        # Workers on other hosts are known through a cache that is shared and there, or not at all.
        if checks["cache"].ok and (settings.REDIS_URL or not settings.CELERY_BROKER_URL):
            yield _gauge("worker_seen_timestamp_seconds", "When a worker last looked for work.", queue.worker_seen())
            yield _labelled(
                "orphans_held_back",
                "Stored pictures without a row that the clean-up deletes only when the owner says so.",
                "folder",
                dict(sweep.orphans_held_back()),
            )
        if not checks["database"].ok:
            return
        try:
            yield from within_limit("rows", _rows)
        except Exception:  # noqa: BLE001  (it went away since; the rest is to be seen)
            return

    def describe(self) -> list[Metric]:
        return []  # registering it asks nothing


def now() -> bytes:
    """Return what stands at this moment, in Prometheus' words."""
    registry = CollectorRegistry()
    registry.register(Gauges())
    return generate_latest(registry)


def _gauge(name: str, sentence: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stefna_{name}", sentence, value=value)


def _labelled(name: str, sentence: str, label: str, numbers: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(f"stefna_{name}", sentence, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family


def _checks(found: dict[str, Check]) -> Iterator[Metric]:
    yield _gauge("ready", "Whether this host can do its work: 1 or 0.", all(check.ok for check in found.values()))
    yield _labelled("check", "Each part of it.", "check", {name: check.ok for name, check in found.items()})


def _disks() -> Iterator[Metric]:
    free = {name: shutil.disk_usage(folder) for name, folder in folders().items() if folder.exists()}
    ratios = {name: one.free / one.total for name, one in free.items()}
    yield _labelled("disk_free_ratio", "Free space of the disk.", "folder", ratios)


def _circuits() -> Iterator[Metric]:
    states = {one.name: endpoints.circuit(one).state != "closed" for one in endpoints.configured()}
    yield _labelled("circuit_open", "1 while an endpoint is skipped or probed.", "endpoint", dict(states))


def _rows() -> list[Metric]:
    now = waiting.waiting()
    ended = waiting.just_ended(RECENTLY)
    return [
        _gauge("runs_queued", f"Runs that wait, up to {waiting.MOST}.", now.queued),
        _gauge("runs_running", f"Runs that are being made, up to {waiting.MOST}.", now.running),
        _gauge("oldest_waiting_seconds", "How long the oldest due run waits.", now.oldest_seconds),
        _labelled(
            "runs_ended_recently",
            "The newest runs of the last 15 minutes, by what became of them.",
            "outcome",
            {outcome: ended.get(outcome, 0) for outcome in OUTCOMES},
        ),
    ]
