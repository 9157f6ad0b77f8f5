"""The owner's desk: Django's admin site, with the pages that are about no single row."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.admin.actions import delete_selected
from django.contrib.auth.decorators import login_not_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from generation import admin_circuits, views_metrics

log = structlog.get_logger("stefna")


@dataclass(frozen=True)
class Page:
    """A page for staff that is about no single row, and for whom the index has a link to it."""

    title: str
    url_name: str
    sentence: str
    may_see: Callable[[HttpRequest], bool]


PAGES = [
    Page(
        "Metrics",
        "metrics_page",
        "How many pictures were asked for, which looks please and which fail, and how long they take.",
        views_metrics.may_see,
    ),
    Page(
        "Circuits",
        "admin:circuits",
        "Which endpoints of the picture service are being skipped, and since when.",
        admin_circuits.may_see,
    ),
]


@functools.wraps(delete_selected)
def delete_and_log(model_admin: Any, request: HttpRequest, queryset: QuerySet) -> TemplateResponse | None:
    """Delete rows, and log each as an event: Django writes several entries at once, without their signal."""
    deleted = list(queryset.values_list("pk", flat=True))
    response: TemplateResponse | None = delete_selected(model_admin, request, queryset)
    if response is None and len(deleted) > 1:
        for pk in deleted:
            what = model_admin.opts.model_name
            log.info("staff_action", user_id=request.user.pk, what=what, target=str(pk), code="deleted")
    return response


class Desk(admin.AdminSite):
    site_header = site_title = "Stefna"
    index_title = "The owner's desk"

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        self.add_action(delete_and_log, "delete_selected")

    # Sign-in to the admin site goes through the same rate limits as every other sign-in.
    @method_decorator([login_not_required, never_cache, secure_admin_login])
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().login(request, extra_context)

    # A password has one page, with its limits, its notice and its line in the log.
    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("account_change_password")

    def password_change_done(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("account_change_password")

    def get_urls(self) -> list[URLPattern | URLResolver]:
        return [
            path("circuits/", self.admin_view(admin_circuits.circuits), name="circuits"),
            *super().get_urls(),
        ]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        pages = [page for page in PAGES if page.may_see(request)]
        return super().index(request, {"desk_pages": pages} | (extra_context or {}))
