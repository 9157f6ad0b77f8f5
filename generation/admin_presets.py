"""The owner's presets: seen as pictures, ordered, copied, and tried on the samples before anybody else sees them."""

from __future__ import annotations

from typing import Any

import structlog
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from generation import photos, showing, tryout
from generation.admin_catalogue import CatalogueInAndOut
from generation.admin_history import RememberedChanges, changed
from generation.catalogue import FIELDS, recipe_text
from generation.exceptions import GenerationError, InternalError
from generation.models import Preset
from generation.modes import BATCHES, Mode

log = structlog.get_logger("generation")


class RecipeField(forms.JSONField):
    """A recipe as people read it: a line for each step."""

    widget = forms.Textarea(attrs={"rows": 14, "class": "recipe", "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else recipe_text(value)


class LookForm(forms.ModelForm):
    """What a try-out is made from: the fields of the form that make the look, checked as they are when it is saved."""

    sample = forms.ChoiceField(choices=list(photos.SAMPLES.items()))
    recipe = RecipeField()

    class Meta:
        model = Preset
        fields = ("prompt", "negative_prompt", "strength", "default_seed", "recipe")


class RowForm(forms.ModelForm):
    """A preset's row of the list, where a column's head alone would say what a field is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, field in self.fields.items():
            field.widget.attrs["aria-label"] = f"{field.label or name} of {self.instance}"


@admin.register(Preset)
class PresetAdmin(RememberedChanges, CatalogueInAndOut):
    list_display = ["preview", "name", "is_active", "position", "mode", "category", "strength", "tag", "slug"]
    list_display_links = ["preview", "name"]
    list_editable = ["is_active", "position"]
    list_filter = ["is_active", "mode", "category"]
    search_fields = ["name", "slug", "tag", "description"]
    actions = ["activate", "deactivate", "export_selected"]
    formfield_overrides = {models.JSONField: {"form_class": RecipeField}}
    fieldsets = [
        (
            None,
            {"fields": ["slug", "name", "description", "tag", "category", "mode", "is_active", "position"]},
        ),
        ("The look", {"fields": ["prompt", "negative_prompt", "strength", "default_seed", "recipe"]}),
    ]

    @admin.display(description="picture")
    def preview(self, preset: Preset) -> SafeString:
        if preset.problems:
            lines = format_html_join("", "<li>{}</li>", ([problem] for problem in preset.problems))
            return format_html('<ul class="errorlist">{}</ul>', lines)
        address = reverse("admin:generation_preset_preview", args=[preset.pk])
        version = int(preset.updated_at.timestamp())
        picture = '<img src="{}?v={}" alt="{}" width="64" height="64" loading="lazy">'
        return format_html(picture, address, version, preset.name)

    def get_readonly_fields(self, request: HttpRequest, obj: Preset | None = None) -> list[str]:
        return ["slug"] if obj else []

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("try-out", view(self.try_out), name="generation_preset_try_out"),
            path("<int:pk>/preview", view(self.preview_picture, cacheable=True), name="generation_preset_preview"),
            *super().get_urls(),
        ]

    def get_changelist_form(self, request: HttpRequest, **options: Any) -> type[forms.ModelForm]:
        return super().get_changelist_form(request, **{"form": RowForm} | options)

    # -- The list ------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"modes": _modes()} | (extra_context or {}))

    def preview_picture(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show what a preset does to the sample portrait, an inactive one too."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        preset = get_object_or_404(Preset.objects.filter(pk=pk).sound())
        response = HttpResponse(showing.preset_preview(preset), "image/webp")
        response["Cache-Control"] = "private, max-age=86400"
        return response

    @admin.action(permissions=["change"], description="Activate selected presets")
    def activate(self, request: HttpRequest, presets: QuerySet[Preset]) -> None:
        for preset in presets:
            if preset.problems:
                sentence = f"{preset} stays as it is: {' '.join(preset.problems)}"
                self.message_user(request, sentence, messages.ERROR)
            else:
                self._set_active(request, preset, True)

    @admin.action(permissions=["change"], description="Deactivate selected presets")
    def deactivate(self, request: HttpRequest, presets: QuerySet[Preset]) -> None:
        for preset in presets:
            self._set_active(request, preset, False)

    def _set_active(self, request: HttpRequest, preset: Preset, is_active: bool) -> None:
        if preset.is_active != is_active:
            Preset.objects.filter(pk=preset.pk).update(is_active=is_active)
            self.log_change(request, preset, changed({"is_active": (preset.is_active, is_active)}))
            self.message_user(request, f"{preset} is {'active' if is_active else 'not active any more'}.")

    # -- One preset ----------------------------------------------------------------------------------------

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Begin a new preset empty, or as an inactive copy of another: nothing is written before it is saved."""
        pk = request.GET.get("copy_of", "")
        copied = Preset.objects.filter(pk=int(pk)).first() if pk.isascii() and pk.isdigit() else None
        if copied is None:
            return super().get_changeform_initial_data(request)
        values = {name: getattr(copied, name) for name in FIELDS}
        return values | {"slug": _free_slug(copied.slug), "name": f"{copied.name[:73]} (copy)", "is_active": False}

    def render_change_form(  # type: ignore[override]
        self, request: HttpRequest, context: dict[str, Any], **options: Any
    ) -> HttpResponse:
        preset = options.get("obj")
        context |= {
            "samples": photos.SAMPLES,
            "is_paid": tryout.is_paid(),
            # Who may only look has no fields to try out.
            "may_try": self.has_change_permission(request) if preset else self.has_add_permission(request),
            "problems": preset.problems if preset else [],
        }
        return super().render_change_form(request, context, **options)

    def try_out(self, request: HttpRequest) -> HttpResponse:
        """Answer with the picture that the form's values make of a sample, or with what is wrong with them."""
        if not (self.has_change_permission(request) or self.has_add_permission(request)):
            raise PermissionDenied
        form = LookForm(request.POST)
        if not form.is_valid():
            wrong = {name: [str(message) for message in found] for name, found in form.errors.items()}
            return JsonResponse({"errors": wrong}, status=422)
        try:
            picture = tryout.try_out(form.instance, form.cleaned_data["sample"])
        except GenerationError as error:
            return _trouble(error)
        except Exception:
            log.exception("try_out_crashed")
            return _trouble(InternalError(detail="see the log"))
        return HttpResponse(picture, "image/webp")


def _trouble(error: GenerationError) -> JsonResponse:
    """Say to the owner what a user would be spared."""
    log.warning("try_out_failed", code=error.code, detail=error.detail)
    reason = f"{error.code}: {error.detail}" if error.detail else error.code
    return JsonResponse({"message": f"{error.message} ({reason})"}, status=error.status)


def _free_slug(slug: str) -> str:
    taken = set(Preset.objects.filter(slug__startswith=slug[:40]).values_list("slug", flat=True))
    number = 1
    while (free := f"{slug[:40]}_copy{number if number > 1 else ''}") in taken:
        number += 1
    return free


def _modes() -> list[dict[str, Any]]:
    """Count the presets of each mode, and say what it needs."""
    active = Count("pk", filter=Q(is_active=True))
    rows = Preset.objects.order_by().values("mode").annotate(all=Count("pk"), active=active)
    counts = {row["mode"]: row for row in rows}
    none = {"all": 0, "active": 0}
    needs = {Mode.PRESET: "Looks that are picked one at a time."} | {
        batch.mode: f"{batch.name} makes a run for each of its active members, in their order. It needs at least one."
        for batch in BATCHES.values()
    }
    return [
        {"mode": mode.value, "name": mode.label, "needs": sentence} | counts.get(mode, none)
        for mode, sentence in needs.items()
    ]
