"""Runs as the owner sees them: what happened when, and once more what failed. Nothing here changes a row."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils import translation
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST, require_safe

from generation import pictures, services
from generation.admin_run_filters import DayFilter, ErrorCodeFilter, PresetFilter, ProviderFilter
from generation.catalogue import recipe_text
from generation.exceptions import GenerationError
from generation.models import Run
from generation.timeline import bar, timeline


@admin.register(Run)
class RunAdmin(admin.ModelAdmin):
    list_display = [
        "created_at",
        "preset_name",
        "user",
        "status",
        "error_code",
        "attempts",
        "possible_cost",
        "queue_ms",
        "model_ms",
        "total_ms",
        "cached",
    ]
    list_filter = ["status", ErrorCodeFilter, PresetFilter, ProviderFilter, "cached", DayFilter]
    list_select_related = ["user__profile"]
    search_fields = ["id", "user__email", "preset_slug"]
    search_help_text = "A run's id, or a part of its user's e-mail address or of its preset's slug."
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # A user's page of a run is for that user.
    view_on_site = False
    fieldsets = [
        ("Where it stands", {"fields": ["status", "phase", "error_code", "error_message", "error_retryable"]}),
        ("Work", {"fields": ["attempts", "crashes", "worker", "leased_until", "run_after", "cancel_requested_at"]}),
        ("The service", {"fields": ["provider", "model", "endpoint", "upstream_request_id", "possible_cost"]}),
        ("Made from", {"fields": ["preset_slug", "prompt", "negative_prompt", "strength", "seed", "recipe_steps"]}),
        ("Made", {"fields": ["width", "height", "bytes", "content_type", "source_type", "cached", "favourite"]}),
        ("Belongs to", {"fields": ["user", "mode", "batch", "retry_of", "language", "deleted_at"]}),
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<uuid:pk>/retry", view(self.retry), name="generation_run_retry"),
            path("<uuid:pk>/<slug:which>", view(self.thumbnail, cacheable=True), name="generation_run_thumbnail"),
            *super().get_urls(),
        ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Run], search_term: str
    ) -> tuple[QuerySet[Run], bool]:
        """Find a whole id by its index: comparing all ids as texts is slow."""
        try:
            return queryset.filter(pk=uuid.UUID(search_term.strip())), False
        except ValueError:
            return super().get_search_results(request, queryset, search_term)

    @admin.display(description="recipe")
    def recipe_steps(self, run: Run) -> SafeString:
        return format_html('<pre class="recipe">{}</pre>', recipe_text(run.recipe))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        return super().get_queryset(request).select_related("user__profile", "photo")

    def render_change_form(  # type: ignore[override]
        self, request: HttpRequest, context: dict[str, Any], **options: Any
    ) -> HttpResponse:
        run = options["obj"]
        context |= {
            "timeline": timeline(run),
            "bar": bar(run),
            "may_retry": may_retry(request) and not why_not_again(run),
            "why_not": why_not_again(run) if run.can_retry else "",
            "retried_by": getattr(run, "retried_by", None),
        }
        return super().render_change_form(request, context, **options)

    @method_decorator(require_safe)
    def thumbnail(self, request: HttpRequest, pk: uuid.UUID, which: str) -> HttpResponseBase:
        """Show staff the photo or the result of a run, small; what its user has deleted is gone for them too."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        run = get_object_or_404(Run.objects.filter(deleted_at=None).select_related("photo"), pk=pk)
        shown = {"photo": run.photo.thumbnail, "result": run.thumbnail}.get(which)
        if not shown:
            raise Http404
        return pictures.send(shown, "image/jpeg")

    @method_decorator(require_POST)
    def retry(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Try a run again for its user: it counts for them as if they had asked for it."""
        if not may_retry(request):
            raise PermissionDenied
        run = get_object_or_404(Run.objects.select_related("user", "photo"), pk=pk)
        page = reverse("admin:generation_run_change", args=[run.pk])
        if reason := why_not_again(run):
            messages.error(request, reason)
            return redirect(page)
        try:
            # What a worker will tell about it is for its user, not for whoever pressed the button.
            with translation.override(run.language):
                again = services.retry_run(run)
        except GenerationError as error:
            messages.error(request, f"It was not tried again: {error.english}")
            return redirect(page)
        self.log_change(request, run, f"Tried again as {again.pk}.")
        messages.success(request, "It is being tried again: this is the new run.")
        return redirect("admin:generation_run_change", again.pk)


def may_retry(request: HttpRequest) -> bool:
    return request.user.has_perm("generation.change_run")


def why_not_again(run: Run) -> str:
    """Say why a run cannot be tried again, or nothing when it can."""
    if not run.can_retry:
        return "Only a run that failed or was cancelled can be tried again."
    if not run.error_retryable:
        return "The same photo with the same look would be refused again."
    if run.deleted_at or not run.photo.file:
        return "Its user has deleted it or its photo."
    if not run.user.is_active:
        return "Its user's account is switched off."
    return ""
