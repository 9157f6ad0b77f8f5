"""The tables of the metrics page: the same cells for people, who read rounded ones, and for a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accounts.models import User
from generation.metrics import CANCELLED, CLASSES, PHASES, REUSED, SUCCEEDED, Numbers, Span, class_of
from generation.models import CountedRuns, Preset

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
PHASE_NAMES = {"queue": "Queue", "upload": "Upload", "model": "Model", "store": "Store", "total": "Total"}
CLASS_NAMES = {
    "auth": "Auth",
    "rate_limit": "Rate limit",
    "server": "Server",
    "timeout": "Timeout",
    "content": "Content",
    "other": "Other",
}
# Who has asked for a picture once is of no interest here, and there may be many of them.
MOST_USERS = 200
# What a spreadsheet would take for a formula, and run.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    title: str
    say: Callable[[Any], str]

    @property
    def is_text(self) -> bool:
        return self.say is str


@dataclass(frozen=True)
class Table:
    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def said(self, most: int = 1000) -> list[list[tuple[str, bool]]]:
        """Return the cells as people read them, each with whether it is text."""
        pairs = [zip(self.columns, row, strict=True) for row in self.rows[:most]]
        return [[("" if cell is None else column.say(cell), column.is_text) for column, cell in pair] for pair in pairs]

    def write_csv(self, file: Any) -> None:
        writer = csv.writer(file)
        writer.writerow([column.title for column in self.columns])
        writer.writerows([[_safe(cell) for cell in row] for row in self.rows])


def _safe(cell: Any) -> Any:
    if isinstance(cell, float):
        return round(cell, 4)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def count(value: int) -> str:
    return f"{value:,}"


def share(value: float) -> str:
    # All is said only when it is all.
    return f"{min(value * 100, 100 if value == 1 else 99.9):.1f} %".replace("100.0", "100")


def milliseconds(value: float) -> str:
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if value < 100_000 else f"{value / 60_000:.1f} min"


def text(title: str) -> Column:
    return Column(title, str)


COUNTS = [Column(title, count) for title in ("Runs", "Succeeded", "Reused", "Failed", "Cancelled")]
RATE = Column("Success rate", share)
CLASS_COLUMNS = [Column(name, count) for name in CLASS_NAMES.values()]


def _time_columns(*wanted: tuple[str, str]) -> list[Column]:
    return [Column(f"{PHASE_NAMES[phase]} {name}", milliseconds) for phase, name in wanted]


def _counts(numbers: Numbers) -> list[Any]:
    outcomes = numbers.outcomes
    return [numbers.ended, outcomes[SUCCEEDED], outcomes[REUSED], numbers.failed, outcomes[CANCELLED]]


def _times(numbers: Numbers, *wanted: tuple[str, str]) -> list[float | None]:
    return [numbers.percentile(phase, SHARES[name]) for phase, name in wanted]


def _classes(numbers: Numbers) -> list[int]:
    classes = numbers.classes
    return [classes[name] for name in CLASSES]


TOTALS = [("total", name) for name in SHARES]
EVERYTHING = [(phase, name) for phase in PHASES for name in SHARES]
TYPICAL = [(phase, name) for phase in ("model", "total") for name in ("p50", "p95")]


def tables(span: Span, step: CountedRuns.Step, most_users: int = MOST_USERS) -> dict[str, Table]:
    """Return every table of the page by its key; that of users with the busiest only."""
    by_step = [_steps(span, step), _failures(span, step), _latency(span, step)]
    made = [*by_step, _codes(span), _presets(span), _users(span, most_users)]
    return {table.key: table for table in made}


def said_start(start: datetime, step: CountedRuns.Step) -> str:
    return f"{start:%d %b}" if step == CountedRuns.Step.DAY else f"{start:%H:%M}"


def _first_column(step: CountedRuns.Step) -> Column:
    day = step == CountedRuns.Step.DAY
    return text("Day (UTC)" if day else "Hour (UTC)")


def _by_step(span: Span, step: CountedRuns.Step, cells: Callable[[Numbers], Iterable[Any]]) -> list[list[Any]]:
    form = "%Y-%m-%d" if step == CountedRuns.Step.DAY else "%Y-%m-%d %H:%M"
    # The newest first: whoever opens a table asks what is happening.
    return [[start.strftime(form), *cells(numbers)] for start, numbers in reversed(span.steps.items())]


def _steps(span: Span, step: CountedRuns.Step) -> Table:
    columns = [_first_column(step), *COUNTS, RATE, *_time_columns(*TOTALS)]
    rows = _by_step(span, step, lambda one: [*_counts(one), one.success_rate, *_times(one, *TOTALS)])
    return Table("runs", f"Runs by {step}", columns, rows)


def _failures(span: Span, step: CountedRuns.Step) -> Table:
    columns = [_first_column(step), Column("Failed", count), *CLASS_COLUMNS]
    rows = _by_step(span, step, lambda one: [one.failed, *_classes(one)])
    return Table("failures", f"Failures by {step}", columns, rows)


def _latency(span: Span, step: CountedRuns.Step) -> Table:
    columns = [_first_column(step), *_time_columns(*EVERYTHING)]
    return Table("times", f"Times by {step}", columns, _by_step(span, step, lambda one: _times(one, *EVERYTHING)))


def _codes(span: Span) -> Table:
    numbers = span.all
    columns = [text("Error code"), text("Class"), Column("Runs", count), Column("Of all failures", share)]
    rows = [
        [code, CLASS_NAMES[class_of(code)], found, found / numbers.failed]
        for code, found in numbers.errors.most_common()
    ]
    return Table("codes", "Failures by code", columns, rows)


def _presets(span: Span) -> Table:
    names = dict(Preset.objects.values_list("slug", "name"))
    columns = [text("Preset"), *COUNTS, RATE, *CLASS_COLUMNS, *_time_columns(*TYPICAL)]
    rows = [
        # A run by somebody's own words has no preset.
        [names.get(slug, slug) or "Own words", *_counts(one), one.success_rate, *_classes(one), *_times(one, *TYPICAL)]
        for slug, one in _busiest(span.presets)
    ]
    return Table("presets", "By preset", columns, rows)


def _users(span: Span, most: int) -> Table:
    busiest, there_are = span.busiest_users(most)
    emails = dict(User.objects.filter(pk__in=list(busiest)).values_list("pk", "email"))
    columns = [text("User"), *COUNTS, RATE, *_time_columns(*TOTALS)]
    rows = [
        [_who(int(key), emails), *_counts(numbers), numbers.success_rate, *_times(numbers, *TOTALS)]
        for key, numbers in busiest.items()
    ]
    note = f"The {most} with the most runs, of {there_are:,}." if there_are > most else ""
    return Table("users", "By user", columns, rows, note)


def _busiest(presets: Mapping[str, Numbers]) -> list[tuple[str, Numbers]]:
    return sorted(presets.items(), key=lambda pair: (-pair[1].ended, pair[0]))


def _who(pk: int, emails: Mapping[int, str | None]) -> str:
    if pk not in emails:
        return f"deleted account {pk}"
    return emails[pk] or f"guest {pk}"
