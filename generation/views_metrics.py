"""The metrics page: how well pictures are made, for members of staff who may see runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from generation import charts, figures, histogram, metrics
from generation.charts import Chart
from generation.metrics import Numbers, Span
from generation.models import CountedRuns
from generation.providers import endpoints
from generation.waiting import waiting


@dataclass(frozen=True)
class Choice:
    """A span that can be chosen: so many hours or days up to now."""

    title: str
    number: int
    step: CountedRuns.Step


SPANS = {
    "24h": Choice("24 hours", 24, CountedRuns.Step.HOUR),
    "7d": Choice("7 days", 7, CountedRuns.Step.DAY),
    "30d": Choice("30 days", 30, CountedRuns.Step.DAY),
}
DEFAULT = "24h"
# Of a table that may be long; all of it is in the CSV file.
ROWS_SHOWN = 12


def may_see(request: HttpRequest) -> bool:
    return request.user.has_perm("generation.view_run")


@require_safe
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    chosen = _chosen(request)
    choice = SPANS[chosen]
    span = metrics.last(choice.number, choice.step)
    tables = figures.tables(span, choice.step, ROWS_SHOWN)
    numbers = span.all
    context = admin.site.each_context(request) | {
        "title": "Metrics",
        "spans": [(name, one.title, name == chosen) for name, one in SPANS.items()],
        "chosen": chosen,
        "choice": choice,
        "numbers": numbers,
        "tiles": _tiles(numbers),
        "waiting": waiting(),
        "charts": _charts(span, tables, choice.step),
        "tables": [(tables[key], tables[key].said(ROWS_SHOWN)) for key in ("presets", "users", "codes")],
        "rows_shown": ROWS_SHOWN,
        "circuits": [
            (one.name, endpoints.circuit(one), *endpoints.recent_calls(one)) for one in endpoints.configured()
        ],
        "is_shared": bool(settings.REDIS_URL),
        "max_error": f"{math.ceil(100 * histogram.MAX_ERROR)} %",
    }
    return TemplateResponse(request, "admin/metrics.html", context)


@require_safe
@never_cache
def download(request: HttpRequest, table: str) -> HttpResponse:
    """Give a table as a CSV file, with all of its rows."""
    chosen = _chosen(request)
    span = metrics.last(SPANS[chosen].number, SPANS[chosen].step)
    found = figures.tables(span, SPANS[chosen].step).get(table)
    if found is None:
        raise Http404
    name = f"stefna-{table}-{chosen}-{timezone.now():%Y-%m-%d}.csv"
    response = HttpResponse(
        content_type="text/csv; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )
    found.write_csv(response)
    return response


def _chosen(request: HttpRequest) -> str:
    if not may_see(request):
        raise PermissionDenied
    chosen = request.GET.get("span", DEFAULT)
    if chosen not in SPANS:
        raise Http404
    return chosen


def _tiles(numbers: Numbers) -> list[tuple[str, str, str]]:
    """Return the figures on top: what they are called, what they say, and what is to be known about them."""

    def said(value: float | None, say: charts.Format) -> str:
        return "–" if value is None else say(value)

    worked_on = numbers.outcomes[metrics.SUCCEEDED] + numbers.failed
    median, slow = (numbers.percentile("total", figures.SHARES[name]) for name in ("p50", "p95"))
    return [
        ("Success rate", said(numbers.success_rate, figures.share), f"{numbers.failed:,} of {worked_on:,} failed"),
        ("Runs ended", f"{numbers.ended:,}", f"{numbers.outcomes[metrics.REUSED]:,} of them reused a result"),
        ("Typical time", said(median, figures.milliseconds), "half of the pictures took at most this (p50)"),
        ("Slow time", said(slow, figures.milliseconds), "95 of 100 took at most this (p95)"),
    ]


def _charts(span: Span, tables: Mapping[str, figures.Table], step: CountedRuns.Step) -> list[tuple[Chart, Any, Any]]:
    """Return each chart with the table behind it, and that table's cells."""
    starts = [figures.said_start(start, step) for start in span.steps]
    numbers = list(span.steps.values())
    outcomes = {
        "succeeded": [one.outcomes[metrics.SUCCEEDED] for one in numbers],
        "reused": [one.outcomes[metrics.REUSED] for one in numbers],
        "cancelled": [one.outcomes[metrics.CANCELLED] for one in numbers],
        "failed": [one.failed for one in numbers],
    }
    failures = {name: [one.classes[name] for one in numbers] for name in metrics.CLASSES}
    drawn = [
        (charts.bars("Runs", starts, outcomes), "runs"),
        (charts.lines("Success rate", starts, {"rate": [one.success_rate for one in numbers]}, _percent, 1), "runs"),
        (charts.bars("Failures by class", starts, failures), "failures"),
    ]
    for phase in reversed(metrics.PHASES):
        times = {name: [one.percentile(phase, share) for one in numbers] for name, share in figures.SHARES.items()}
        title = f"{figures.PHASE_NAMES[phase]} time"
        drawn.append((charts.lines(title, starts, times, figures.milliseconds), "times"))
    return [(chart, tables[key], tables[key].said()) for chart, key in drawn]


def _percent(value: float) -> str:
    return f"{value * 100:.0f} %" if value in (0, 0.5, 1) else figures.share(value)
