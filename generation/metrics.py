"""Numbers of runs: what became of them and how long they took; by preset, by user, by hour and by day (UTC).

A run counts in the hour in which it ended: it ends once, so a finished hour does not change. Finished hours and days
are kept as counts, made from the rows and from nothing else; what is not kept yet is counted while somebody waits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, Min, QuerySet
from django.db.models.functions import TruncHour
from django.utils import timezone

from generation.histogram import Histogram, bucket_of, percentile
from generation.models import CountedRuns, Run, database_now

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STEPS = {CountedRuns.Step.HOUR: HOUR, CountedRuns.Step.DAY: DAY}
PHASES = ("queue", "upload", "model", "store", "total")
# The clock of a worker, which says when a run ended, may be an hour slow: only then is an hour surely over.
SETTLED = timedelta(hours=3)
# The longest span that is asked for, and a day more.
KEPT = timedelta(days=31)

SUCCEEDED, CANCELLED, REUSED = "succeeded", "cancelled", "reused"
CLASSES = {
    "auth": ("upstream_auth", "upstream_credits"),
    "rate_limit": ("upstream_rate_limited",),
    "server": (
        "upstream_unavailable",
        "upstream_malformed",
        "upstream_empty",
        "result_unavailable",
        "result_invalid",
        "storage_unavailable",
    ),
    "timeout": ("upstream_timeout", "deadline_exceeded"),
    "content": ("content_filtered", "upstream_rejected"),
    "other": ("engine_failed", "internal_error", "worker_crashed"),
}
_CLASS_OF = {code: name for name, codes in CLASSES.items() for code in codes}
# By error code, which an owner may look up; classes are made of them when somebody looks.
Outcomes = Counter[str]


def class_of(code: str) -> str:
    """Say what sort of failure an error code is."""
    return _CLASS_OF.get(code, "other")


@dataclass
class Numbers:
    """What became of some runs, by outcome (of failures the error code), and how long the phases of the good ones took.

    A run that was answered with an earlier result is no new success and took no time.
    """

    outcomes: Outcomes = field(default_factory=Counter)
    times: dict[str, Histogram] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, outcomes: Mapping[str, int], times: Mapping[str, Mapping[str, int]]) -> None:
        self.outcomes.update(outcomes)
        for phase, counts in times.items():
            self.times[phase].update(counts)

    @classmethod
    def sum(cls, parts: Iterable[Numbers]) -> Numbers:
        whole = cls()
        for numbers in parts:
            whole.add(numbers.outcomes, numbers.times)
        return whole

    @property
    def ended(self) -> int:
        return sum(self.outcomes.values())

    @property
    def errors(self) -> Outcomes:
        """Failures by error code."""
        return Counter({code: n for code, n in self.outcomes.items() if code not in (SUCCEEDED, CANCELLED, REUSED)})

    @property
    def classes(self) -> Counter[str]:
        """Failures by class, each class named."""
        found = Counter(dict.fromkeys(CLASSES, 0))
        for code, number in self.errors.items():
            found[class_of(code)] += number
        return found

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def success_rate(self) -> float | None:
        """The share of the runs that were worked on to their end; None when there were none."""
        worked_on = self.outcomes[SUCCEEDED] + self.failed
        return self.outcomes[SUCCEEDED] / worked_on if worked_on else None

    def percentile(self, phase: str, share: float) -> float | None:
        return percentile(self.times.get(phase, {}), share)


@dataclass
class Period:
    """The numbers of an hour, a day or more, by preset and by user."""

    presets: dict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))
    users: dict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))

    def add(self, kept: Mapping[str, Any]) -> None:
        """Add what `as_json` returned."""
        for mine, group in ((self.presets, "presets"), (self.users, "users")):
            for key, numbers in kept.get(group, {}).items():
                mine[key].add(numbers["outcomes"], numbers["times"])

    def as_json(self) -> dict[str, Any]:
        groups = {"presets": self.presets, "users": self.users}
        return {
            name: {key: {"outcomes": numbers.outcomes, "times": numbers.times} for key, numbers in group.items()}
            for name, group in groups.items()
        }


# -- From rows -------------------------------------------------------------------------------------------------


def from_rows(begin: datetime, end: datetime) -> dict[datetime, Period]:
    """Count the runs that ended in these hours, each hour that has any."""
    periods: dict[datetime, Period] = defaultdict(Period)
    ended = Run.objects.filter(finished_at__gte=begin, finished_at__lt=end).order_by()
    ended = ended.annotate(hour=TruncHour("finished_at", tzinfo=UTC))
    for group, column in (("presets", "preset_slug"), ("users", "user_id")):
        asked = ended.values_list("hour", column, "status", "cached", "error_code").annotate(Count("pk"))
        for hour, key, status, cached, code, number in asked:
            outcome = REUSED if cached else code if status == Run.Status.FAILED else status
            getattr(periods[hour], group)[str(key)].outcomes[outcome] += number
    for phase in PHASES:
        for hour, key, bucket, number in _times(ended, phase, "preset_slug"):
            periods[hour].presets[key].times[phase][str(bucket)] = number
    for hour, key, bucket, number in _times(ended, "total", "user_id"):
        periods[hour].users[str(key)].times["total"][str(bucket)] = number
    return dict(periods)


def _times(ended: QuerySet[Run], phase: str, key: str) -> Iterator[tuple[datetime, Any, int, int]]:
    column = f"{phase}_ms"
    made = ended.filter(status=Run.Status.SUCCEEDED, cached=False, **{f"{column}__isnull": False})
    yield from made.annotate(bucket=bucket_of(column)).values_list("hour", key, "bucket").annotate(Count("pk"))


# -- Kept counts -----------------------------------------------------------------------------------------------


def roll_up() -> int:
    """Keep the counts of finished hours and days that are not kept, or not settled; return how many were written.

    They are made from the rows anew each time, so it does no harm to do it twice, or two at once.
    """
    now = database_now()
    first = Run.objects.filter(finished_at__gte=now - KEPT).aggregate(Min("finished_at"))["finished_at__min"]
    written = 0
    if first is not None:
        # A day at a time, so that an installation that begins to count does not hold a month of it in memory.
        for day in _starts(_floor(first, DAY), now, DAY):
            written += _keep_hours(max(day, _floor(first, HOUR)), min(day + DAY, _floor(now, HOUR)), now)
            if day + DAY <= now:
                written += _keep_day(day, now)
    CountedRuns.objects.filter(start__lt=now - KEPT - DAY).delete()
    return written


def _keep_hours(begin: datetime, end: datetime, now: datetime) -> int:
    missing = _not_kept(CountedRuns.Step.HOUR, _starts(begin, end, HOUR), now)
    if not missing:
        return 0
    counted = from_rows(missing[0], missing[-1] + HOUR)
    return _keep(CountedRuns.Step.HOUR, {start: counted.get(start, Period()) for start in missing})


def _keep_day(day: datetime, now: datetime) -> int:
    if not _not_kept(CountedRuns.Step.DAY, [day], now):
        return 0
    whole = Period()
    for numbers in _kept(CountedRuns.Step.HOUR, _starts(day, day + DAY, HOUR)).values():
        whole.add(numbers)
    return _keep(CountedRuns.Step.DAY, {day: whole})


def _not_kept(step: CountedRuns.Step, starts: Iterable[datetime], now: datetime) -> list[datetime]:
    starts = list(starts)
    settled = now - SETTLED - STEPS[step]
    kept = set(CountedRuns.objects.filter(step=step, start__in=starts).values_list("start", flat=True))
    return [start for start in starts if start not in kept or start > settled]


def _keep(step: CountedRuns.Step, periods: Mapping[datetime, Period]) -> int:
    rows = [CountedRuns(step=step, start=start, numbers=period.as_json()) for start, period in periods.items()]
    CountedRuns.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["step", "start"], update_fields=["numbers"]
    )
    return len(rows)


def _kept(step: CountedRuns.Step, starts: Iterable[datetime]) -> dict[datetime, Any]:
    rows = CountedRuns.objects.filter(step=step, start__in=list(starts))
    return dict(rows.values_list("start", "numbers"))


# -- For whoever asks ------------------------------------------------------------------------------------------


@dataclass
class Span:
    """The numbers of some hours or days: of each, the oldest first, and of all of them by preset and by user."""

    steps: dict[datetime, Numbers]
    whole: Period = field(default_factory=Period)

    @property
    def all(self) -> Numbers:
        return Numbers.sum(self.steps.values())

    def add(self, start: datetime, counted: Mapping[str, Any]) -> None:
        self.whole.add(counted)
        for numbers in counted.get("presets", {}).values():
            self.steps[start].add(numbers["outcomes"], numbers["times"])


def last(number: int, step: CountedRuns.Step, now: datetime | None = None) -> Span:
    """Return the numbers of the last hours or days, this one among them."""
    newest = _floor(now or timezone.now(), STEPS[step])
    starts = [newest - STEPS[step] * ago for ago in reversed(range(number))]
    span = Span({start: Numbers() for start in starts})
    kept = _kept(step, starts)
    for start, counted in kept.items():
        span.add(start, counted)
    for hour, counted in _by_hour([start for start in starts if start not in kept], step):
        span.add(_floor(hour, STEPS[step]), counted)
    return span


def _by_hour(starts: Iterable[datetime], step: CountedRuns.Step) -> Iterator[tuple[datetime, Any]]:
    """Yield the hours of these steps, from kept hours where there are any and else from the rows."""
    hours = [hour for start in starts for hour in _starts(start, start + STEPS[step], HOUR)]
    kept = _kept(CountedRuns.Step.HOUR, hours)
    yield from kept.items()
    missing = {hour for hour in hours if hour not in kept}
    if missing:
        for hour, period in from_rows(min(missing), max(missing) + HOUR).items():
            if hour in missing:
                yield hour, period.as_json()


def _starts(begin: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    while begin < end:
        yield begin
        begin += step


def _floor(moment: datetime, step: timedelta) -> datetime:
    moment = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return moment if step == HOUR else moment.replace(hour=0)
