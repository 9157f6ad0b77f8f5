"""Charts as shapes for SVG, which templates draw. Their size is the page's choice, so words stand outside of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000, 200
Format = Callable[[float], str]


@dataclass(frozen=True)
class Bar:
    name: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    name: str
    path: str


@dataclass(frozen=True)
class Slot:
    """A step of the chart: where it stands, and what a pointer on it reads."""

    x: float
    width: float
    sentence: str


@dataclass(frozen=True)
class Chart:
    title: str
    names: Sequence[str]
    bars: Sequence[Bar]
    lines: Sequence[Line]
    slots: Sequence[Slot]
    # Of the axes: from the top down, and from the left to the right.
    heights: Sequence[str]
    ends: Sequence[str]

    @property
    def legend(self) -> list[tuple[str, str]]:
        return [(name, _spoken(name)) for name in self.names]

    @property
    def is_empty(self) -> bool:
        return not self.bars and not self.lines


def bars(title: str, steps: Sequence[str], series: Mapping[str, Sequence[int]]) -> Chart:
    """Stack counts on each other, the first series at the bottom."""
    highest = _round_up(max((sum(at) for at in zip(*series.values(), strict=True)), default=0), least=2)
    step = WIDTH / len(steps)
    found = []
    for number in range(len(steps)):
        top = float(HEIGHT)
        for name, counts in series.items():
            height = HEIGHT * counts[number] / highest
            top -= height
            if height:
                found.append(Bar(name, _r(step * (number + 0.1)), _r(top), _r(step * 0.8), _r(height)))
    return Chart(title, list(series), found, [], _slots(steps, series, _count), _heights(highest, _count), _ends(steps))


def lines(
    title: str,
    steps: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    say: Format,
    highest: float | None = None,
) -> Chart:
    """Draw each series as stairs: a value is true for all of its step, and there is none where nothing happened."""
    values = [value for one in series.values() for value in one if value is not None]
    highest = highest or _round_up(max(values, default=0), least=2)
    drawn = [Line(name, _stairs(one, highest)) for name, one in series.items() if any(v is not None for v in one)]
    return Chart(title, list(series), [], drawn, _slots(steps, series, say), _heights(highest, say), _ends(steps))


def _stairs(values: Sequence[float | None], highest: float) -> str:
    step = WIDTH / len(values)
    parts, connected = [], False
    for number, value in enumerate(values):
        if value is not None:
            y = _r(HEIGHT * (1 - value / highest))
            parts.append(f"V{y}" if connected else f"M{_r(step * number)} {y}")
            parts.append(f"H{_r(step * (number + 1))}")
        connected = value is not None
    return "".join(parts)


def _slots(steps: Sequence[str], series: Mapping[str, Sequence[float | None]], say: Format) -> list[Slot]:
    width = WIDTH / len(steps)
    found = []
    for number, step in enumerate(steps):
        known = [(name, values[number]) for name, values in series.items()]
        facts = ", ".join(f"{_spoken(name)} {say(value)}" for name, value in known if value) or "nothing"
        found.append(Slot(_r(width * number), _r(width), f"{step}: {facts}"))
    return found


def _heights(highest: float, say: Format) -> list[str]:
    return [say(value).replace(".0 ", " ") for value in (highest, highest / 2, 0)]


def _ends(steps: Sequence[str]) -> list[str]:
    return [steps[0], steps[len(steps) // 2], steps[-1]]


def _round_up(value: float, least: float) -> float:
    """Return the next number above that can be read easily, and whose half can."""
    power = 1.0
    while value > power * 10:
        power *= 10
    return max(least, next(power * nice for nice in (1, 2, 4, 6, 10) if value <= power * nice))


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _r(value: float) -> float:
    return round(value, 1)
