"""The circuits of the picture service's endpoints: which of them is being skipped, and taking one back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods

from generation.providers import endpoints
from generation.providers.endpoints import Endpoint

log = structlog.get_logger("generation")

STATES = {
    "closed": "Closed: it takes calls.",
    "open": "Open: it is skipped.",
    "half_open": "Half-open: the next call probes it.",
}


def may_see(request: HttpRequest) -> bool:
    return request.user.has_perm("generation.view_run")


def may_reset(request: HttpRequest) -> bool:
    return request.user.is_authenticated and request.user.is_superuser


@require_http_methods(["GET", "HEAD", "POST"])
def circuits(request: HttpRequest) -> HttpResponse:
    """Show every endpoint's circuit; a superuser may close one by hand."""
    if not may_see(request):
        raise PermissionDenied
    if request.method == "POST":
        return _reset(request)
    context = admin.site.each_context(request) | {
        "title": "Circuits",
        "circuits": [_described(endpoint) for endpoint in endpoints.configured()],
        "may_reset": may_reset(request),
        "is_shared": bool(settings.REDIS_URL),
        "window_seconds": round(settings.CIRCUIT_WINDOW_SECONDS),
        "min_calls": settings.CIRCUIT_MIN_CALLS,
    }
    return TemplateResponse(request, "admin/circuits.html", context)


def _described(endpoint: Endpoint) -> dict[str, Any]:
    circuit = endpoints.circuit(endpoint)
    calls, failed = endpoints.recent_calls(endpoint)
    return {
        "name": endpoint.name,
        "weight": endpoint.weight,
        "state": circuit.state,
        "meaning": STATES[circuit.state],
        "since": datetime.fromtimestamp(circuit.since, UTC) if circuit.since else None,
        "seconds": round(circuit.seconds),
        "calls": calls,
        "failed": failed,
    }


def _reset(request: HttpRequest) -> HttpResponse:
    if not may_reset(request):
        raise PermissionDenied
    endpoint = next((one for one in endpoints.configured() if one.name == request.POST.get("endpoint")), None)
    if endpoint is None:
        raise Http404
    endpoints.close(endpoint)
    log.warning("circuit_reset", endpoint=endpoint.name, user_id=request.user.pk)
    LogEntry.objects.create(
        user_id=request.user.pk or 0,
        action_flag=CHANGE,
        object_repr=f"Circuit of {endpoint.name}"[:200],
        change_message="Closed by hand.",
    )
    messages.success(request, f"The circuit of {endpoint.name} is closed: it takes calls again.")
    return redirect("admin:circuits")
