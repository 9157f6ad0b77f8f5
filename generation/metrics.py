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

from django.db.models import Count, QuerySet
from django.db.models.functions import Trunc
from django.utils import timezone

from generation.histogram import Histogram, bucket_of, percentile
from generation.models import CountedRuns, Run, database_now

Step = CountedRuns.Step
LENGTH = {Step.HOUR: timedelta(hours=1), Step.DAY: timedelta(days=1)}
HOURS_A_DAY = 24
PHASES = ("queue", "upload", "model", "store", "total")
# The clock of a worker, which says when a run ended, may be an hour slow: only then is an hour surely over.
SETTLED = timedelta(hours=3)
# What is asked for, and a day more: 24 hours, of yesterday too until it is kept as a day, and 30 days.
KEPT = {Step.HOUR: timedelta(hours=48), Step.DAY: timedelta(days=31)}

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
# Numbers by preset and by user, as they are kept. There may be many users: theirs are packed into a text each, which
# is read several times faster.
Counted = Mapping[str, Mapping[str, Any]]


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

    def add(self, other: Numbers) -> None:
        # Counter.update does the same at several times the cost, and this is where the page's time goes.
        for outcome, number in other.outcomes.items():
            self.outcomes[outcome] += number
        for phase, counts in other.times.items():
            mine = self.times[phase]
            for bucket, number in counts.items():
                mine[bucket] += number

    @classmethod
    def sum(cls, parts: Iterable[Numbers]) -> Numbers:
        whole = cls()
        for numbers in parts:
            whole.add(numbers)
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

    def pack(self) -> str:
        """Return how many ended, how many of them not well, all failures as one, and the buckets of the total time."""
        counts = self.ended, self.outcomes[CANCELLED], self.outcomes[REUSED], self.failed
        return " ".join([*map(str, counts), *(f"{bucket} {found}" for bucket, found in self.times["total"].items())])

    @classmethod
    def unpack(cls, packed: str) -> Numbers:
        ended, cancelled, reused, failed, *times = map(int, packed.split())
        succeeded = ended - cancelled - reused - failed
        numbers = cls(Counter({SUCCEEDED: succeeded, CANCELLED: cancelled, REUSED: reused, "failed": failed}))
        numbers.times["total"] = Counter(dict(zip(map(str, times[::2]), times[1::2], strict=True)))
        return numbers


@dataclass
class Period:
    """The numbers of an hour, a day or more, by preset and by user."""

    presets: dict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))
    users: dict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))

    def add(self, counted: Counted) -> None:
        for slug, numbers in counted["presets"].items():
            self.presets[slug].add(Numbers(**numbers))
        for key, packed in counted["users"].items():
            self.users[key].add(Numbers.unpack(packed))

    def as_json(self) -> Counted:
        return {
            "presets": {slug: vars(numbers) for slug, numbers in self.presets.items()},
            "users": {key: numbers.pack() for key, numbers in self.users.items()},
        }


# -- From rows -------------------------------------------------------------------------------------------------


def from_rows(begin: datetime, end: datetime, step: Step = Step.HOUR) -> dict[datetime, Period]:
    """Count the runs that ended in these hours or days; one in which none did is left out."""
    periods: dict[datetime, Period] = defaultdict(Period)
    ended = Run.objects.filter(finished_at__gte=begin, finished_at__lt=end).order_by()
    ended = ended.annotate(start=Trunc("finished_at", step.value, tzinfo=UTC))
    for group, column in (("presets", "preset_slug"), ("users", "user_id")):
        asked = ended.values_list("start", column, "status", "cached", "error_code").annotate(Count("pk"))
        for start, key, status, cached, code, number in asked:
            outcome = REUSED if cached else code if status == Run.Status.FAILED else status
            getattr(periods[start], group)[str(key)].outcomes[outcome] += number
    for phase in PHASES:
        for start, key, bucket, number in _times(ended, phase, "preset_slug"):
            periods[start].presets[key].times[phase][str(bucket)] = number
    for start, key, bucket, number in _times(ended, "total", "user_id"):
        periods[start].users[str(key)].times["total"][str(bucket)] = number
    return dict(periods)


def _times(ended: QuerySet[Run], phase: str, key: str) -> Iterator[tuple[datetime, Any, int, int]]:
    column = f"{phase}_ms"
    made = ended.filter(status=Run.Status.SUCCEEDED, cached=False, **{f"{column}__isnull": False})
    yield from made.annotate(bucket=bucket_of(column)).values_list("start", key, "bucket").annotate(Count("pk"))


# -- Kept counts -----------------------------------------------------------------------------------------------


def roll_up() -> int:
    """Keep the counts of finished hours and days that are not kept, or not settled; return how many were written.

    They are made from the rows anew each time, so it does no harm to do it twice, or two at once.
    """
    now = database_now()
    written = 0
    if Run.objects.filter(finished_at__gte=now - KEPT[Step.DAY]).exists():
        # Hours first, because a day is made of its hours if they are all there.
        for step in (Step.HOUR, Step.DAY):
            starts = _starts(_floor(now - KEPT[step], step), _floor(now, step), step)
            for start, period in _finished(step, _not_kept(step, starts, now)):
                _keep(step, start, period)
                written += 1
    for step, long in KEPT.items():
        CountedRuns.objects.filter(step=step, start__lt=now - long - LENGTH[step]).delete()
    return written


def _not_kept(step: Step, starts: Iterable[datetime], now: datetime) -> list[datetime]:
    starts = list(starts)
    settled = now - SETTLED - LENGTH[step]
    kept = set(CountedRuns.objects.filter(step=step, start__in=starts).values_list("start", flat=True))
    return [start for start in starts if start not in kept or start > settled]


def _finished(step: Step, starts: list[datetime]) -> Iterator[tuple[datetime, Period]]:
    """Count hours, at once; and days, each by itself: an installation may begin with a month of them."""
    if step == Step.HOUR and starts:
        counted = from_rows(starts[0], starts[-1] + LENGTH[step])
        yield from ((start, counted.get(start, Period())) for start in starts)
    elif step == Step.DAY:
        yield from ((start, _day(start)) for start in starts)


def _day(start: datetime) -> Period:
    end = start + LENGTH[Step.DAY]
    hours = _kept(Step.HOUR, _starts(start, end, Step.HOUR))
    if len(hours) < HOURS_A_DAY:
        return from_rows(start, end, Step.DAY).get(start, Period())
    day = Period()
    for counted in hours.values():
        day.add(counted)
    return day


def _keep(step: Step, start: datetime, period: Period) -> None:
    CountedRuns.objects.bulk_create(
        [CountedRuns(step=step, start=start, numbers=period.as_json())],
        update_conflicts=True,
        unique_fields=["step", "start"],
        update_fields=["numbers"],
    )


def _kept(step: Step, starts: Iterable[datetime]) -> dict[datetime, Counted]:
    rows = CountedRuns.objects.filter(step=step, start__in=list(starts))
    return dict(rows.values_list("start", "numbers"))


# -- For whoever asks ------------------------------------------------------------------------------------------


@dataclass
class Span:
    """The numbers of some hours or days: of each, the oldest first, and of all of them by preset and by user."""

    steps: dict[datetime, Numbers]
    presets: dict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))
    # As they were kept: there may be many users, and few of them are of interest.
    users: list[Mapping[str, str]] = field(default_factory=list)

    @property
    def all(self) -> Numbers:
        return Numbers.sum(self.steps.values())

    def add(self, start: datetime, counted: Counted) -> None:
        for slug, kept in counted["presets"].items():
            numbers = Numbers(**kept)
            self.presets[slug].add(numbers)
            self.steps[start].add(numbers)
        self.users.append(counted["users"])

    def busiest_users(self, most: int) -> tuple[dict[str, Numbers], int]:
        """Return the users with the most runs, those first, and how many users there were."""
        ended: dict[str, int] = defaultdict(int)
        for group in self.users:
            for key, packed in group.items():
                ended[key] += int(packed.partition(" ")[0])
        busiest = {key: Numbers() for key in sorted(ended, key=lambda key: (-ended[key], int(key)))[:most]}
        for group in self.users:
            for key in busiest.keys() & group.keys():
                busiest[key].add(Numbers.unpack(group[key]))
        return busiest, len(ended)


def last(number: int, step: Step, now: datetime | None = None) -> Span:
    """Return the numbers of the last hours or days, this one among them."""
    newest = _floor(now or timezone.now(), step)
    starts = [newest - LENGTH[step] * ago for ago in reversed(range(number))]
    span = Span({start: Numbers() for start in starts})
    kept = _kept(step, starts)
    missing = [start for start in starts if start not in kept]
    for start, counted in [*kept.items(), *_not_kept_yet(missing, step)]:
        span.add(_floor(start, step), counted)
    return span


def _not_kept_yet(starts: list[datetime], step: Step) -> Iterator[tuple[datetime, Counted]]:
    """Count hours or days from the rows; of a day of which some hours are kept only the others."""
    if step == Step.DAY:
        hours = _kept(Step.HOUR, [hour for day in starts for hour in _starts(day, day + LENGTH[step], Step.HOUR)])
        yield from hours.items()
        begun = {_floor(hour, step) for hour in hours}
        rest = [hour for day in begun for hour in _starts(day, day + LENGTH[step], Step.HOUR) if hour not in hours]
        yield from _counted_now(rest, Step.HOUR)
        starts = [day for day in starts if day not in begun]
    yield from _counted_now(starts, step)


def _counted_now(starts: Iterable[datetime], step: Step) -> Iterator[tuple[datetime, Counted]]:
    wanted = set(starts)
    if wanted:
        for start, period in from_rows(min(wanted), max(wanted) + LENGTH[step], step).items():
            if start in wanted:
                yield start, period.as_json()


def _starts(begin: datetime, end: datetime, step: Step) -> Iterator[datetime]:
    while begin < end:
        yield begin
        begin += LENGTH[step]


def _floor(moment: datetime, step: Step) -> datetime:
    moment = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return moment if step == Step.HOUR else moment.replace(hour=0)
