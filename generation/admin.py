from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from generation.models import Preset, Run


@admin.register(Preset)
class PresetAdmin(admin.ModelAdmin):
    list_display = ["preview", "name", "slug", "mode", "category", "tag", "strength", "is_active", "position"]
    list_display_links = ["preview", "name"]
    list_editable = ["is_active", "position"]
    list_filter = ["is_active", "mode", "category"]
    search_fields = ["name", "slug", "tag", "description"]
    fieldsets = [
        (
            None,
            {"fields": ["slug", "name", "description", "tag", "category", "mode", "is_active", "position"]},
        ),
        (_("The look"), {"fields": ["prompt", "negative_prompt", "strength", "default_seed", "recipe"]}),
    ]

    @admin.display(description="")
    def preview(self, preset: Preset) -> SafeString:
        return format_html('<img src="{}" alt="" width="64" height="64" loading="lazy">', preset.get_preview_url())

    def get_readonly_fields(self, request: HttpRequest, obj: Preset | None = None) -> list[str]:
        return ["slug"] if obj else []


@admin.register(Run)
class RunAdmin(admin.ModelAdmin):
    """To look at only: a run's row is changed by running it."""

    list_display = [
        "created_at",
        "preset_name",
        "user",
        "status",
        "error_code",
        "attempts",
        "model_ms",
        "total_ms",
        "cached",
    ]
    list_filter = ["status", "provider", "cached", "error_code", "preset_slug", "created_at"]
    list_select_related = ["user__profile"]
    search_fields = ["id", "user__email", "preset_slug", "error_code"]
    date_hierarchy = "created_at"
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False
