"""What machines ask: is the process there, can it work, and the numbers. No sign-in, and no database that is away."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import resolve
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from generation.providers import endpoints
from stefna import counters, gauges
from stefna.readiness import readiness

PATHS = ("/healthz/live", "/healthz/ready", "/metrics")


def answer_probes(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Answer machines before anything asks which host they called, sends them to https or looks for their session.

    A probe comes by an address that is on no list and without TLS. Who has a session goes the way of all pages: it may
    be staff, looking.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        is_probe = request.path_info == PATHS[0] or settings.SESSION_COOKIE_NAME not in request.COOKIES
        if request.path_info not in PATHS or not is_probe:
            return get_response(request)
        request.resolver_match = match = resolve(request.path_info)
        return match.func(request)

    return middleware


@login_not_required
@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Say that the process answers. It touches nothing else, or a database that is away would get it killed."""
    return JsonResponse({"ok": True})


@login_not_required
@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Say whether the process can work; which part of it cannot is for those who run it."""
    checks = readiness()
    ok = all(check.ok for check in checks.values())
    body: dict[str, object] = {"ok": ok}
    # Whether somebody is staff is in the database.
    if _has_token(request) or (checks["database"].ok and _is_staff(request)):
        body["checks"] = {
            name: {"ok": check.ok, "ms": check.milliseconds} | ({"trouble": check.trouble} if check.trouble else {})
            for name, check in checks.items()
        }
        body["circuits"] = {one.name: endpoints.circuit(one).state for one in endpoints.configured()}
    return JsonResponse(body, status=200 if ok else 503)


@login_not_required
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Give Prometheus the numbers of this host."""
    if not _has_token(request) and not _is_staff(request):
        return HttpResponse(status=401, headers={"WWW-Authenticate": 'Bearer realm="stefna metrics"'})
    return HttpResponse(gauges.now() + counters.scrape(), content_type=CONTENT_TYPE_LATEST)


def _has_token(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return (
        bool(settings.METRICS_TOKEN)
        and scheme.lower() == "bearer"
        and hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())
    )


def _is_staff(request: HttpRequest) -> bool:
    # A probe has no user: nobody has looked for one.
    user = getattr(request, "user", None)
    return bool(user and user.is_active and user.is_staff)
