"""The catalogue as a file: how presets are written, and what is wrong with, or new in, a file that comes in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from generation.models import Preset

FIELDS = (
    "slug",
    "name",
    "tag",
    "category",
    "mode",
    "description",
    "prompt",
    "negative_prompt",
    "strength",
    "default_seed",
    "recipe",
    "is_active",
    "position",
)
MOST_ENTRIES = 1000


class BadCatalogue(ValueError):
    """The text is no catalogue at all; what it says may be shown."""


@dataclass
class Entry:
    """One preset of a file: the row as it would be, what it was before, and what is wrong with it."""

    number: int
    slug: str
    preset: Preset = field(default_factory=Preset)
    is_new: bool = True
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        if self.problems:
            return "wrong"
        return "new" if self.is_new else "changed" if self.changes else "same"


def write(presets: Iterable[Preset]) -> str:
    """Write presets as `load_presets` reads them."""
    return "[\n" + ",\n".join(_indented(_entry_text(preset)) for preset in presets) + "\n]\n"


def recipe_text(recipe: Any) -> str:
    """Write a recipe with a line for each step."""
    if not isinstance(recipe, dict) or not isinstance(recipe.get("steps"), list):
        return json.dumps(recipe, ensure_ascii=False, indent=2)
    entries = [f'  "{name}": {_json(value)}' for name, value in recipe.items() if name != "steps"]
    steps = ",\n".join(f"    {_json(step)}" for step in recipe["steps"])
    return "{\n" + ",\n".join([*entries, f'  "steps": [\n{steps}\n  ]']) + "\n}"


def read(text: str | bytes) -> list[Entry]:
    """Compare a file with the database, an entry for each preset in it. Raises BadCatalogue; writes nothing."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
        # Half a character, or none at all, is something that JSON can say and a database cannot keep.
        is_storable = "\\u0000" not in json.dumps(found, ensure_ascii=False).encode().decode()
    except (ValueError, RecursionError) as error:
        raise BadCatalogue(f"This is not JSON: {error}") from error
    if not is_storable:
        raise BadCatalogue("The file contains a character of code 0.")
    if not isinstance(found, list) or len(found) > MOST_ENTRIES:
        raise BadCatalogue(f"A catalogue is a list of up to {MOST_ENTRIES} presets.")
    known = Preset.objects.in_bulk(field_name="slug")
    entries: list[Entry] = []
    for number, values in enumerate(found):
        entries.append(_compared(number, values, known, {entry.slug for entry in entries}))
    return entries


def apply(entries: Sequence[Entry]) -> list[Entry]:
    """Save what is new or changed, all of it or nothing, and return it. Raises BadCatalogue."""
    if any(entry.problems for entry in entries):
        raise BadCatalogue("Nothing was written.")
    due = [entry for entry in entries if entry.kind != "same"]
    with transaction.atomic():
        for entry in due:
            entry.preset.save()
    return due


def _compared(number: int, values: Any, known: dict[str, Preset], earlier: set[str]) -> Entry:
    if not isinstance(values, dict):
        return Entry(number + 1, "", problems=["An entry is an object with the fields of a preset."])
    slug = values.get("slug")
    if not isinstance(slug, str) or not slug:
        return Entry(number + 1, "", problems=["slug: it is missing, or is no text."])
    entry = Entry(number + 1, slug, known.get(slug) or Preset(position=number), slug not in known)
    if slug in earlier:
        entry.problems.append("slug: another entry has it too.")
    for name, value in values.items():
        if name not in FIELDS:
            entry.problems.append(f"{name[:40]}: a preset has no such field.")
        elif name != "recipe" and isinstance(value, dict | list):
            entry.problems.append(f"{name}: it cannot be an object or a list.")
    if not entry.problems:
        _fill(entry, values)
    return entry


def _fill(entry: Entry, values: dict[str, Any]) -> None:
    preset = entry.preset
    before = {name: getattr(preset, name) for name in values}
    for name, value in values.items():
        setattr(preset, name, value)
    # Looking also turns "0.5" into 0.5, as a form does. Slugs were compared above, all at once.
    entry.problems = preset.problems
    entry.changes = {name: (old, new) for name, old in before.items() if (new := getattr(preset, name)) != old}


def _entry_text(preset: Preset) -> str:
    lines = [
        f'"{name}": {recipe_text(value) if name == "recipe" else _json(value)}'
        for name in FIELDS
        for value in [getattr(preset, name)]
    ]
    return "{\n" + ",\n".join(_indented(line) for line in lines) + "\n}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
