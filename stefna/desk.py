"""The owner's desk: Django's admin site, with the pages that are about no single row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from generation import admin_circuits, views_metrics


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


class Desk(admin.AdminSite):
    site_header = site_title = "Stefna"
    index_title = "The owner's desk"

    # Sign-in to the admin site goes through the same rate limits as every other sign-in.
    @method_decorator([login_not_required, never_cache, secure_admin_login])
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().login(request, extra_context)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        return [
            path("circuits/", self.admin_view(admin_circuits.circuits), name="circuits"),
            *super().get_urls(),
        ]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        pages = [page for page in PAGES if page.may_see(request)]
        return super().index(request, {"desk_pages": pages} | (extra_context or {}))
