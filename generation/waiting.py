"""What is waiting and what is being made at this moment. Every number is bounded, so that asking never takes long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count

from generation.metrics import CANCELLED, REUSED, SUCCEEDED, class_of
from generation.models import Run, database_now

# More than this is "as many and more": nobody acts differently, and counting stays quick.
MOST = 10_000


@dataclass(frozen=True)
class Waiting:
    queued: int
    running: int
    # How long the oldest run has been due without anybody taking it; 0 when none is.
    oldest_seconds: float


def waiting() -> Waiting:
    queued = Run.objects.filter(status=Run.Status.QUEUED).order_by()[:MOST].count()
    running = Run.objects.filter(status=Run.Status.RUNNING).order_by()[:MOST].count()
    oldest = Run.objects.due().values_list("created_at", "run_after").first()
    since = max(filter(None, oldest)) if oldest else None
    return Waiting(queued, running, max(0.0, (database_now() - since).total_seconds()) if since else 0.0)


def just_ended(within: timedelta) -> dict[str, int]:
    """Count the newest runs by what became of them: succeeded, reused, cancelled, or the class of the failure."""
    newest = Run.objects.filter(finished_at__gte=database_now() - within).order_by("-finished_at")[:MOST]
    found: dict[str, int] = {}
    asked = Run.objects.filter(pk__in=newest.values("pk")).order_by()
    for status, cached, code, number in asked.values_list("status", "cached", "error_code").annotate(Count("pk")):
        outcome = REUSED if cached else status if status in (SUCCEEDED, CANCELLED) else class_of(code)
        found[outcome] = found.get(outcome, 0) + number
    return found
