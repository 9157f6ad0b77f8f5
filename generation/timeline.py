"""What happened to a run and when, as its row tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from generation.models import Run

BAR_WIDTH = 1000


@dataclass(frozen=True)
class Moment:
    title: str
    at: datetime | None
    facts: list[tuple[str, object]]


def timeline(run: Run) -> list[Moment]:
    """Return what happened to a run in order; what the row does not know is left out."""
    moments = [
        None if run.upload_ms is None else Moment("Photo stored", None, _known(("upload", _seconds(run.upload_ms)))),
        Moment("Created", run.created_at, _known(("mode", run.get_mode_display()), ("provider", run.provider))),
        Moment("Answered with an earlier result", run.finished_at, []) if run.cached else None,
        _claimed(run),
        _answered(run),
        None if run.store_ms is None else Moment("Stored", None, _known(("store", _seconds(run.store_ms)))),
        _ended(run) if run.finished_at and not run.cached else None,
        Moment("Deleted by its user", run.deleted_at, []) if run.deleted_at else None,
    ]
    return [moment for moment in moments if moment]


def bar(run: Run) -> list[tuple[str, str, int, int]]:
    """Return the phases as parts of a bar: name, time, where it begins and how wide it is. Empty when unknown."""
    phases = {"queue": run.queue_ms, "model": run.model_ms, "store": run.store_ms}
    known = {name: milliseconds or 0 for name, milliseconds in phases.items()}
    total = max(run.total_ms or 0, sum(known.values()))
    if not total:
        return []
    known["other"] = total - sum(known.values())
    parts, x = [], 0
    for name, milliseconds in known.items():
        width = round(BAR_WIDTH * milliseconds / total)
        if width:
            parts.append((name, _seconds(milliseconds), x, min(width, BAR_WIDTH - x)))
            x += width
    return parts


def _claimed(run: Run) -> Moment | None:
    if not run.started_at:
        return None
    facts = _known(
        ("queue", _seconds(run.queue_ms)),
        ("attempts", run.attempts),
        ("crashes", run.crashes),
        ("worker", run.worker),
        ("again after", run.run_after),
    )
    return Moment("Claimed by a worker", run.started_at, facts)


def _answered(run: Run) -> Moment | None:
    facts = _known(
        ("model", _seconds(run.model_ms)),
        ("endpoint", run.endpoint),
        ("upstream request id", run.upstream_request_id),
        ("upstream seed", run.upstream_seed),
        ("calls sent and never answered, perhaps billed", run.possible_cost),
    )
    return Moment("Made", None, facts) if facts else None


def _ended(run: Run) -> Moment:
    facts = _known(
        ("total", _seconds(run.total_ms)),
        ("error", run.error_code),
        ("message", run.error_message),
        ("size", run.width and f"{run.width} × {run.height}"),
    )
    return Moment(str(run.get_status_display()), run.finished_at, facts)


def _known(*facts: tuple[str, object]) -> list[tuple[str, object]]:
    return [(name, value) for name, value in facts if value not in (None, "", 0)]


def _seconds(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
