"""The catalogue as a file: what of a preset is in it, how it is written, and what is wrong with one that came in."""

from __future__ import annotations

import json
from typing import Any

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


def recipe_text(recipe: Any) -> str:
    """Write a recipe with a line for each step."""
    if not isinstance(recipe, dict) or not isinstance(recipe.get("steps"), list):
        return json.dumps(recipe, ensure_ascii=False, indent=2)
    entries = [f'  "{name}": {_json(value)}' for name, value in recipe.items() if name != "steps"]
    steps = ",\n".join(f"    {_json(step)}" for step in recipe["steps"])
    return "{\n" + ",\n".join([*entries, f'  "steps": [\n{steps}\n  ]']) + "\n}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
