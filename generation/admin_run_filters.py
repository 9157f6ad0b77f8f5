"""What runs are found by at the owner's desk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from generation.exceptions import GenerationError, InternalError, ProviderError, StorageUnavailable
from generation.models import Preset, Run
from generation.providers import PROVIDERS

SHOWN_DAYS = 14
# Said by what looks after runs, and no exception's.
CODES_OF_THE_SWEEP = ("deadline_exceeded", "worker_crashed", "worker_stopped", "engine_failed")


class ColumnFilter(admin.SimpleListFilter):
    """By a column's known values, and not by those of all rows, which would be a long look."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Run]) -> QuerySet[Run]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class ErrorCodeFilter(ColumnFilter):
    title, parameter_name = "error code", "error_code"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        ours: list[type[GenerationError]] = [StorageUnavailable, InternalError, ProviderError]
        codes = {error.code for error in [*ours, *ProviderError.__subclasses__()]}
        return [(code, code) for code in sorted(codes.union(CODES_OF_THE_SWEEP))]


class PresetFilter(ColumnFilter):
    title, parameter_name = "preset", "preset_slug"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return list(Preset.objects.order_by("name").values_list("slug", "name"))


class ProviderFilter(ColumnFilter):
    title = parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(name, name) for name in PROVIDERS]


class DayFilter(admin.SimpleListFilter):
    """By one of the last days, or by any that stands in the address: ?day=2026-11-25."""

    title, parameter_name = "day (UTC)", "day"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        days = {(timezone.now() - timedelta(days=ago)).strftime("%Y-%m-%d") for ago in range(SHOWN_DAYS)}
        return [(day, day) for day in sorted(days | {self.value() or min(days)}, reverse=True)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Run]) -> QuerySet[Run]:
        if not self.value():
            return queryset
        try:
            day = datetime.strptime(self.value() or "", "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            return queryset.none()
        return queryset.filter(created_at__gte=day, created_at__lt=day + timedelta(days=1))
