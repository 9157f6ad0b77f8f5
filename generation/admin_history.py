"""What an owner changed, with the old and the new value: Django's own entries, with more in them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.http import HttpRequest, HttpResponse

from generation.catalogue import recipe_text

Values = Mapping[str, tuple[Any, Any]]


def changed(values: Values) -> list[dict[str, Any]]:
    """Return the message of a change: what Django writes, and each field's old and new value."""
    names = [name.replace("_", " ") for name in values]
    return [{"changed": {"fields": names, "values": {name: list(pair) for name, pair in values.items()}}}]


def differences(entry: LogEntry) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return by field the lines that went (-) and came (+) with a change."""
    try:
        parts = json.loads(entry.change_message)
    except ValueError:
        return []
    changes = [part.get("changed", {}) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    values = [change.get("values", {}) for change in changes]
    return [(name.replace("_", " "), lines(*pair)) for some in values for name, pair in some.items()]


def lines(old: Any, new: Any) -> list[tuple[str, str]]:
    found = difflib.ndiff(_text(old).splitlines(), _text(new).splitlines())
    return [(line[0], line[2:]) for line in found if line[0] in "+-"]


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return recipe_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value) or "(empty)"


class RememberedChanges(admin.ModelAdmin):
    object_history_template = "admin/history.html"

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> list[dict[str, Any]]:
        message: list[Any] = super().construct_change_message(request, form, formsets, add)
        values = {name: [form.initial.get(name), form.cleaned_data.get(name)] for name in form.changed_data}
        for part in message:
            if isinstance(part, dict) and "changed" in part:
                part["changed"]["values"] = values
        return message

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().history_view(request, object_id, extra_context)
        for entry in getattr(response, "context_data", {}).get("action_list", []):
            entry.differences = differences(entry)
        return response
