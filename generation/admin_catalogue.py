"""The catalogue in and out: what a file would change is shown first, and nothing is written before that was seen."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from generation import catalogue
from generation.admin_history import changed, lines
from generation.models import Preset

MOST_BYTES = 1_000_000


class CatalogueForm(forms.Form):
    """A file at first; when it is confirmed, the text that was looked at: no other can have taken its place."""

    file = forms.FileField(required=False, label="Catalogue", help_text="JSON, as Export writes it.")
    text = forms.CharField(required=False, widget=forms.HiddenInput, strip=False, max_length=MOST_BYTES)

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        file = data.get("file")
        if file and file.size > MOST_BYTES:
            raise forms.ValidationError(f"A catalogue has up to {MOST_BYTES // 1000} kB.")
        text = file.read() if file else data.get("text", "").encode()
        try:
            data["text"] = text.decode("utf-8-sig")
            data["entries"] = catalogue.read(data["text"])
        except UnicodeDecodeError as error:
            raise forms.ValidationError("This is not a text in UTF-8.") from error
        except catalogue.BadCatalogue as error:
            raise forms.ValidationError(str(error)) from error
        return data


class CatalogueInAndOut(admin.ModelAdmin):
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("export", view(self.export_all), name="generation_preset_export"),
            path("import", view(self.import_file), name="generation_preset_import"),
            *super().get_urls(),
        ]

    def may_import(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request) and self.has_change_permission(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"may_import": self.may_import(request)} | (extra_context or {}))

    @admin.action(permissions=["view"], description="Export selected presets")
    def export_selected(self, request: HttpRequest, presets: QuerySet[Preset]) -> HttpResponse:
        response = HttpResponse(catalogue.write(presets), "application/json")
        response["Content-Disposition"] = 'attachment; filename="presets.json"'
        return response

    def export_all(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.export_selected(request, Preset.objects.all())

    def import_file(self, request: HttpRequest) -> HttpResponse:
        """Take a file, show what it would change, and change that when it is confirmed."""
        if not self.may_import(request):
            raise PermissionDenied
        form = CatalogueForm(request.POST or None, request.FILES or None)
        entries: list[catalogue.Entry] = form.cleaned_data["entries"] if form.is_valid() else []
        is_fine = not any(entry.problems for entry in entries)
        if entries and is_fine and "confirm" in request.POST:
            self._import(request, entries)
            return redirect("admin:generation_preset_changelist")
        context = self.admin_site.each_context(request) | {
            "title": "Import presets",
            "opts": self.opts,
            "form": form,
            "text": form.cleaned_data["text"] if entries else "",
            "rows": [(one, [(name, lines(*pair)) for name, pair in one.changes.items()]) for one in entries],
            "counts": {kind: sum(one.kind == kind for one in entries) for kind in ("new", "changed", "same", "wrong")},
            "may_confirm": is_fine and any(one.kind != "same" for one in entries),
        }
        return TemplateResponse(request, "admin/generation/preset/import.html", context)

    def _import(self, request: HttpRequest, entries: list[catalogue.Entry]) -> None:
        written = catalogue.apply(entries)
        for entry in written:
            if entry.is_new:
                self.log_addition(request, entry.preset, [{"added": {}}])
            else:
                self.log_change(request, entry.preset, changed(entry.changes))
        messages.success(request, f"{len(written)} presets were imported.")
