"""Accounts as the owner sees them: who they are, what they use, and switching them off."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, F, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.admin import UserAdmin, may_manage
from accounts.models import User
from generation import services
from generation.models import Photo, Run


class KindFilter(admin.SimpleListFilter):
    title, parameter_name = "kind", "kind"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("member", "Members"), ("guest", "Guests"), ("staff", "Staff")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        kinds: dict[str | None, dict[str, Any]] = {
            "member": {"email__isnull": False, "is_staff": False},
            "guest": {"email": None},
            "staff": {"is_staff": True},
        }
        return queryset.filter(**kinds.get(self.value(), {}))


@admin.register(User)
class OwnersUserAdmin(UserAdmin):
    list_display = ["who", "kind", "used_today", "limit", "runs", "is_active", "date_joined", "last_login"]
    list_filter = ["is_active", KindFilter, "date_joined"]
    search_help_text = "A part of an e-mail address or of a name."
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    readonly_fields = [*UserAdmin.readonly_fields, "kind", "used_today", "limit", "runs"]
    fieldsets = [
        UserAdmin.fieldsets[0],
        ("Runs", {"fields": ["kind", "used_today", "limit", "runs"]}),
        *UserAdmin.fieldsets[1:],
    ]
    actions = ["deactivate", "activate"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """Count what each has used of today's limit in the query that reads them."""
        counted = Run.objects.filter(user=OuterRef("pk")).counted_today().order_by().values("user")
        used = Subquery(counted.annotate(count=Count("pk")).values("count"), output_field=IntegerField())
        return super().get_queryset(request).select_related("profile").annotate(used=Coalesce(used, 0))

    @admin.display(description="user", ordering="email")
    def who(self, user: User) -> str:
        name = getattr(getattr(user, "profile", None), "display_name", "")
        address = user.email or f"guest {user.pk}"
        return f"{name} · {address}" if name else address

    @admin.display(description="kind")
    def kind(self, user: User) -> str:
        return "Staff" if user.is_staff else "Guest" if user.is_guest else "Member"

    @admin.display(description="used today", ordering="used")
    def used_today(self, user: User) -> int:
        return user.used  # type: ignore[attr-defined]

    @admin.display(description="daily limit")
    def limit(self, user: User) -> str:
        profile = getattr(user, "profile", None)
        if profile is None:
            return ""
        return f"{services.daily_limit(profile) or 'none'}{'' if profile.daily_run_limit is None else ' (own)'}"

    @admin.display(description="runs")
    def runs(self, user: User) -> SafeString:
        address = reverse("admin:generation_run_changelist")
        return format_html('<a href="{}?user__id__exact={}">Their runs</a>', address, user.pk)

    # -- Switching off -------------------------------------------------------------------------------------

    @admin.action(permissions=["change"], description="Deactivate selected users: they are signed out at once")
    def deactivate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        """Every session, of a page or an app, asks for an active account with each request."""
        self._switch(request, users, False)

    @admin.action(permissions=["change"], description="Activate selected users")
    def activate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self._switch(request, users, True)

    def _switch(self, request: HttpRequest, users: QuerySet[User], is_active: bool) -> None:
        for user in users:
            if user.pk == request.user.pk or not may_manage(request, user):
                messages.error(request, f"{self.who(user)} stays as it is: this account is not yours to switch.")
            elif user.is_active != is_active:
                # The addresses of pictures that were given out end with the account.
                User.objects.filter(pk=user.pk).update(is_active=is_active, media_version=F("media_version") + 1)
                self.log_change(request, user, "Activated." if is_active else "Deactivated.")
                messages.success(request, f"{self.who(user)} is {'active' if is_active else 'not active any more'}.")

    # -- Deleting ------------------------------------------------------------------------------------------

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, dict[str, int], set[str], list[str]]:
        """Say what goes with the accounts. It is read-only elsewhere, and goes all the same."""
        users = [user for user in objs if may_manage(request, user)]
        counts = {
            "users": len(users),
            "photos": Photo.objects.filter(user__in=users).count(),
            "runs": Run.objects.filter(user__in=users).count(),
        }
        refused = {"staff"} if len(users) < len(objs) else set()
        return [self.who(user) for user in users], counts, refused, []

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        services.delete_account(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            services.delete_account(user)
