"""The recipe language as data: which ops exist, what they take, and whether a recipe is in order.

A recipe is ``{"version": 1, "full_at": 0.75, "steps": [{"op": "bloom", "amount": 0.4}, …]}``. A number may be
written ``{"v": 0.6, "vary": 0.1}``: the run's seed then picks a value within 0.1 of 0.6. A parameter that is left
out has its default, so recipes outlive new parameters. All radii and sizes are fractions of the long side.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

VERSION = 1
MAX_STEPS = 24
MAX_ROWS = 16
MAX_PAINTED = 3
"""Painted layers are the only costly steps, so a recipe may hold few of them."""


@dataclass(frozen=True, slots=True)
class Number:
    default: float
    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Colour:
    default: str


@dataclass(frozen=True, slots=True)
class Colours:
    default: tuple[str, ...]
    most: int = 4


@dataclass(frozen=True, slots=True)
class Choice:
    default: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of rows with the same columns, such as curve points (input, output) or stops (position, colour)."""

    default: tuple[tuple[Any, ...], ...]
    columns: tuple[tuple[str, "Number | Colour"], ...]
    fewest: int = 1
    rising: bool = False


Parameter = Number | Colour | Colours | Choice | Rows

_UNIT = Number(0.0, 0.0, 1.0)
_DEGREES = Number(0.0, 0.0, 360.0)

POINTWISE: dict[str, dict[str, Parameter]] = {
    "exposure": {"stops": Number(0.0, -3, 3)},
    "gamma": {"value": Number(1.0, 0.3, 3)},
    "contrast": {"amount": Number(0.2, -1, 1), "pivot": Number(0.5, 0.1, 0.9)},
    "curve": {
        "points": Rows(((0.0, 0.0), (1.0, 1.0)), (("input", _UNIT), ("output", _UNIT)), fewest=2, rising=True),
        "channel": Choice("rgb", ("rgb", "r", "g", "b")),
    },
    "temperature": {"warm": Number(0.0, -1, 1), "tint": Number(0.0, -1, 1)},
    "saturation": {"amount": Number(0.0, -1, 2), "skin": Number(1.0, 0, 1)},
    "vibrance": {"amount": Number(0.0, -1, 2), "skin": Number(0.35, 0, 1)},
    "hue_pull": {
        "targets": Rows(((55.0, 0.5), (215.0, 0.5)), (("hue", _DEGREES), ("weight", _UNIT))),
        "amount": Number(0.4, 0, 1),
        "chroma": Number(0.0, -1, 1),
    },
    "hue_shift": {
        "bands": Rows(
            ((140.0, 35.0, 0.0, 0.0, 0.0),),
            (
                ("hue", _DEGREES),
                ("width", Number(35, 5, 120)),
                ("turn", Number(0, -90, 90)),
                ("chroma", Number(0, -1, 2)),
                ("light", Number(0, -0.5, 0.5)),
            ),
        ),
    },
    "split_tone": {
        "shadows": Colour("#004060"),
        "mids": Colour("#808080"),
        "highlights": Colour("#ffcc88"),
        "amount": Number(0.3, 0, 1),
        "balance": Number(0.0, -0.3, 0.3),
    },
    "bw": {"red": Number(0.3, -1, 2), "green": Number(0.59, -1, 2), "blue": Number(0.11, -1, 2)},
    "gradient_map": {
        "stops": Rows(
            ((0.0, "#000000"), (1.0, "#ffffff")),
            (("position", _UNIT), ("colour", Colour("#000000"))),
            fewest=2,
            rising=True,
        ),
        "amount": Number(1.0, 0, 1),
    },
    "fade": {"amount": Number(0.1, 0, 1), "colour": Colour("#202428")},
    "bleach": {"amount": Number(0.5, 0, 1)},
}

MEASURED: dict[str, dict[str, Parameter]] = {
    "auto_levels": {
        "clip": Number(0.004, 0, 0.05),
        "limit": Number(0.12, 0, 0.4),
        "mid": Number(0.47, 0.1, 0.9),
        "mid_amount": Number(0.5, 0, 1),
        "balance": Number(0.0, 0, 1),
    },
}

SPATIAL: dict[str, dict[str, Parameter]] = {
    "dehaze": {
        "amount": Number(0.7, 0, 1),
        "floor": Number(0.22, 0.05, 1),
        "patch": Number(0.012, 0.002, 0.05),
        "radius": Number(0.045, 0.005, 0.2),
    },
    "local_tone": {
        "clarity": Number(0.0, -1, 2),
        "shadows": Number(0.0, -1, 1.5),
        "highlights": Number(0.0, -1, 1.5),
        "radius": Number(0.02, 0.002, 0.2),
        "edge": Number(0.012, 0.0005, 0.2),
    },
    "sharpen": {"amount": Number(0.5, 0, 3), "radius": Number(0.0007, 0.0003, 0.005)},
    "smooth": {
        "amount": Number(0.5, 0, 1),
        "radius": Number(0.006, 0.001, 0.05),
        "edge": Number(0.004, 0.0005, 0.1),
        "skin": Number(0.0, 0, 1),
    },
    "focus": {
        "amount": Number(0.7, 0, 1),
        "radius": Number(0.008, 0.001, 0.05),
        "size": Number(0.6, 0.1, 1.5),
        "x": Number(0.5, 0, 1),
        "y": Number(0.45, 0, 1),
    },
    "bloom": {
        "amount": Number(0.4, 0, 2),
        "threshold": Number(0.6, 0, 1),
        "radius": Number(0.02, 0.002, 0.1),
        "tint": Colour("#ffffff"),
    },
    "orton": {"amount": Number(0.4, 0, 1), "radius": Number(0.012, 0.002, 0.05)},
    "fog": {"amount": Number(0.3, 0, 1), "height": Number(0.5, 0, 1), "colour": Colour("#c8d4dc")},
    "vignette": {
        "amount": Number(0.4, 0, 1),
        "size": Number(0.75, 0.2, 1.5),
        "colour": Colour("#000000"),
    },
    "grain": {"amount": Number(0.03, 0, 0.3), "size": Number(0.0008, 0.0003, 0.01)},
    "light_leak": {
        "amount": Number(0.5, 0, 1),
        "colours": Colours(("#ff6a00", "#ffb347", "#ff2d55")),
        "count": Number(2, 1, 6, whole=True),
    },
    "sun_glow": {
        "amount": Number(0.5, 0, 1),
        "radius": Number(0.5, 0.05, 2),
        "colour": Colour("#ffb45a"),
    },
    "stage_lights": {
        "amount": Number(0.5, 0, 1),
        "spread": Number(0.55, 0.1, 2),
        "colours": Colours(("#ff2bd6", "#17e8ff"), most=2),
    },
    "edge_glow": {
        "amount": Number(0.6, 0, 2),
        "spread": Number(0.006, 0.001, 0.05),
        "colours": Colours(("#00f0ff", "#ff2bd6"), most=2),
    },
    "sky_tint": {
        "amount": Number(0.4, 0, 1),
        "height": Number(0.6, 0.1, 1.5),
        "colour": Colour("#3aa0ff"),
    },
    "rain": {
        "amount": Number(0.3, 0, 1),
        "angle": Number(78, 45, 135),
        "density": Number(0.4, 0.05, 1),
        "colour": Colour("#dfe8f0"),
    },
    "chroma_shift": {"amount": Number(0.0015, 0, 0.01)},
    "posterize": {
        "levels": Number(6, 2, 32, whole=True),
        "sharpness": Number(3.0, 0.5, 10),
        "amount": Number(1.0, 0, 1),
    },
    "ink": {
        "amount": Number(0.9, 0, 1),
        "width": Number(0.0012, 0.0004, 0.01),
        "edge": Number(20.0, 1, 80),
        "threshold": Number(0.2, 0, 1),
        "softness": Number(6.0, 1, 50),
        "colour": Colour("#101018"),
    },
    "relief": {"amount": Number(0.4, 0, 2), "size": Number(0.0012, 0.0004, 0.01)},
    "paper": {
        "amount": Number(0.04, 0, 0.3),
        "size": Number(0.0012, 0.0004, 0.01),
        "colour": Colour("#ffffff"),
    },
    "halftone": {
        "cell": Number(0.008, 0.003, 0.05),
        "angle": Number(28, 0, 90),
        "amount": Number(0.6, 0, 1),
        "coverage": Number(0.0, -0.5, 0.5),
    },
    "pencil": {
        "shading": Number(0.5, 0, 1),
        "darkness": Number(1.0, 0.3, 3),
        "line": Number(0.001, 0.0004, 0.005),
        "graphite": Colour("#26262b"),
        "paper": Colour("#f6f3ec"),
    },
}

PAINTED: dict[str, dict[str, Parameter]] = {
    "flatten": {
        "passes": Number(3, 1, 6, whole=True),
        "tolerance": Number(0.1, 0.02, 0.5),
        "radius": Number(0.004, 0.001, 0.02),
        "detail": Number(0.0, 0, 1),
    },
    "brush": {
        "patch": Number(0.003, 0.001, 0.02),
        "length": Number(0.009, 0.002, 0.03),
        "width": Number(0.0026, 0.001, 0.02),
        "passes": Number(2, 1, 6, whole=True),
        "crispness": Number(0.8, 0, 1),
        "detail": Number(0.5, 0, 1),
    },
    "watercolour": {
        "bleed": Number(0.005, 0.001, 0.02),
        "wobble": Number(0.002, 0, 0.02),
        "rim": Number(0.9, 0, 2),
        "pigment": Number(0.5, 0, 1),
        "border": Number(0.4, 0, 1),
        "lines": Number(0.5, 0, 1),
    },
}

OPS: dict[str, dict[str, Parameter]] = POINTWISE | MEASURED | SPATIAL | PAINTED

_HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def problems(recipe: object) -> list[str]:
    """Say what is wrong with a recipe: clear sentences, none when it is in order.

    Takes any value that JSON can hold and never raises.
    """
    if not isinstance(recipe, dict):
        return [f"a recipe must be an object, not {_show(recipe)}"]
    found = [f"unknown entry {_show(key)}" for key in recipe if key not in ("version", "full_at", "steps")]
    if not _is_number(recipe.get("version")) or recipe["version"] != VERSION:
        found.append(f"version must be {VERSION}, not {_show(recipe.get('version'))}")
    if "full_at" in recipe:
        found += _number_problems("full_at", recipe["full_at"], Number(1.0, 0.05, 1.0))
    steps = recipe.get("steps")
    if not isinstance(steps, list):
        return [*found, f"steps must be a list, not {_show(steps)}"]
    if not 1 <= len(steps) <= MAX_STEPS:
        found.append(f"a recipe must have 1 to {MAX_STEPS} steps, not {len(steps)}")
    for number, step in enumerate(steps[:MAX_STEPS], start=1):
        found += [f"step {number}{sentence}" for sentence in _step_problems(step)]
    painted = sum(1 for step in steps if isinstance(step, dict) and _is_op(step.get("op"), PAINTED))
    if painted > MAX_PAINTED:
        found.append(f"a recipe may paint {MAX_PAINTED} times ({', '.join(PAINTED)}), not {painted}")
    return found


@dataclass(frozen=True, slots=True)
class Look:
    """A recipe, how strongly to show it (0..1, as presets say it), and the seed of its chance."""

    recipe: Mapping[str, Any]
    strength: float
    seed: int = 1


def blend(recipe: Mapping[str, Any], strength: float) -> float:
    """Turn a preset's strength (0..1) into how much of the full look to show (0..1)."""
    return min(1.0, max(0.0, strength / float(recipe.get("full_at", 1.0))))


def settings(step: Mapping[str, Any], draw: Callable[[], float]) -> dict[str, Any]:
    """Read a valid step's parameters; ``draw`` gives -1..1 for each number that varies by the seed."""
    resolved = {}
    for name, value in step.items():
        if isinstance(value, dict):
            limits = OPS[step["op"]][name]
            assert isinstance(limits, Number)
            varied = value["v"] + value["vary"] * draw()
            resolved[name] = min(limits.high, max(limits.low, round(varied) if limits.whole else varied))
        elif name != "op":
            resolved[name] = value
    return resolved


def _step_problems(step: object) -> list[str]:
    if not isinstance(step, dict):
        return [f": must be an object, not {_show(step)}"]
    op = step.get("op")
    if not _is_op(op, OPS):
        return [f": there is no op {_show(op)}"]
    found = []
    for name, value in step.items():
        if name == "op":
            continue
        parameter = OPS[op].get(name)
        if parameter is None:
            found.append(f"there is no parameter {_show(name)}")
        elif isinstance(parameter, Number):
            found += _varied_problems(name, value, parameter)
        elif isinstance(parameter, Colour):
            found += _colour_problems(name, value)
        elif isinstance(parameter, Colours):
            found += _colours_problems(name, value, parameter)
        elif isinstance(parameter, Choice):
            if not isinstance(value, str) or value not in parameter.options:
                found.append(f"{name} must be one of {', '.join(parameter.options)}, not {_show(value)}")
        else:
            found += _rows_problems(name, value, parameter)
    return [f" ({op}): {sentence}" for sentence in found]


def _varied_problems(name: str, value: object, limits: Number) -> list[str]:
    if not isinstance(value, dict):
        return _number_problems(name, value, limits)
    if set(value) != {"v", "vary"}:
        return [f'{name} must be a number or {{"v": number, "vary": number}}']
    spread = Number(0.0, 0.0, limits.high - limits.low)
    return _number_problems(name, value["v"], limits) + _number_problems(f"{name} vary", value["vary"], spread)


def _number_problems(name: str, value: object, limits: Number) -> list[str]:
    if not _is_number(value):
        return [f"{name} must be a number, not {_show(value)}"]
    if not limits.low <= value <= limits.high:
        return [f"{name} must be between {limits.low:g} and {limits.high:g}, not {_show(value)}"]
    if limits.whole and value != int(value):
        return [f"{name} must be a whole number, not {_show(value)}"]
    return []


def _colour_problems(name: str, value: object) -> list[str]:
    if isinstance(value, str) and _HEX_COLOUR.fullmatch(value):
        return []
    return [f'{name} must be a colour such as "#ffcc88", not {_show(value)}']


def _colours_problems(name: str, value: object, parameter: Colours) -> list[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= parameter.most:
        return [f"{name} must be a list of 1 to {parameter.most} colours"]
    return [sentence for colour in value for sentence in _colour_problems(f"each of {name}", colour)]


def _rows_problems(name: str, value: object, parameter: Rows) -> list[str]:
    columns = [column for column, _ in parameter.columns]
    if not isinstance(value, list) or not parameter.fewest <= len(value) <= MAX_ROWS:
        return [f"{name} must be a list of {parameter.fewest} to {MAX_ROWS} rows [{', '.join(columns)}]"]
    found = []
    for number, row in enumerate(value, start=1):
        if not isinstance(row, list) or len(row) != len(columns):
            found.append(f"{name} row {number} must be [{', '.join(columns)}], not {_show(row)}")
            continue
        for (column, limits), entry in zip(parameter.columns, row, strict=True):
            where = f"{name} row {number} {column}"
            found += (
                _number_problems(where, entry, limits) if isinstance(limits, Number) else _colour_problems(where, entry)
            )
    if parameter.rising and not found:
        firsts = [row[0] for row in value]
        if any(later - earlier < 0.001 for earlier, later in pairwise(firsts)):
            found.append(f"{name} must rise by at least 0.001 in {columns[0]} from row to row")
    return found


def _is_op(name: object, ops: Mapping[str, object]) -> TypeGuard[str]:
    return isinstance(name, str) and name in ops


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(value: object) -> str:
    """Name a value in a sentence without ever printing much of it."""
    if isinstance(value, str):
        return f'"{value[:40]}…"' if len(value) > 40 else f'"{value}"'
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of many digits"
    return str(value).lower() if isinstance(value, bool) else str(value)
