"""The one place where an error becomes an HTTP answer of the API: a problem (RFC 9457)."""

from __future__ import annotations

import errno
import http
import sys
from datetime import datetime
from typing import Any

import structlog
from django.core.exceptions import SuspiciousOperation
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template import loader
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views import csrf, defaults
from rest_framework import exceptions
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.response import Response

from accounts.exceptions import Refusal

WANTING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
PREFIX = "/api/"
CONTENT_TYPE = "application/problem+json"
AGAIN_SECONDS = 5
CHALLENGE = 'Bearer realm="stefna"'
CODES = {
    400: "invalid",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    411: "length_required",
    413: "photo_too_large",
    429: "throttled",
    500: "internal_error",
    503: "service_unavailable",
}
SENTENCES = {
    400: _("The request was not understood."),
    404: _("There is nothing at this address."),
    409: _("Another request has just changed this. Please try again."),
    500: _("Something went wrong on our side."),
    503: _("The service is not available at the moment. Please try again shortly."),
}


def problem(
    status: int,
    detail: str = "",
    *,
    code: str = "",
    retryable: bool = False,
    retry_after: float | None = None,
    resets_at: datetime | None = None,
    errors: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Say what is wrong: a stable code for programs, a sentence for people, the request's id for the log."""
    code = code or CODES.get(status, "invalid")
    members: dict[str, Any] = {
        "type": f"/api/docs/#{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail or str(SENTENCES.get(status, http.HTTPStatus(status).phrase)),
        "retryable": retryable,
        "request_id": structlog.contextvars.get_contextvars().get("request_id", ""),
    }
    if retry_after is not None:
        members["retry_after"] = max(1, round(retry_after))
    if resets_at is not None:
        members["resets_at"] = resets_at
    if errors:
        members["errors"] = errors
    return members


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn what an API view raised into an answer; None for a bug, which Django logs and answers with 500."""
    headers: dict[str, str] = {}
    if isinstance(error, Refusal):
        members = problem(error.status, error.message, **_options(error))
    # The database may refuse what passed every check of ours: PostgreSQL has no texts with a NUL in them.
    elif isinstance(error, SuspiciousOperation | DataError):
        members = problem(400)
    elif isinstance(error, IntegrityError):
        members = problem(409)
    elif isinstance(error, OperationalError | InterfaceError):
        structlog.get_logger("stefna").exception("database_failed")
        members = problem(503, retryable=True, retry_after=AGAIN_SECONDS)
    elif isinstance(error, Http404):
        members = problem(404)
    elif isinstance(error, exceptions.APIException):
        members = _of_framework(error)
        if isinstance(error, exceptions.AuthenticationFailed | exceptions.NotAuthenticated):
            headers["WWW-Authenticate"] = getattr(error, "auth_header", None) or CHALLENGE
    else:
        return None
    return Response(members, status=members["status"], headers=headers | _headers(members), content_type=CONTENT_TYPE)


def _options(error: Refusal) -> dict[str, Any]:
    return {
        "code": error.code,
        "retryable": error.retryable or error.status in (429, 503),
        "retry_after": error.retry_after or (AGAIN_SECONDS if error.status == 503 else None),
        "resets_at": error.resets_at,
    }


def _of_framework(error: exceptions.APIException) -> dict[str, Any]:
    """The framework's own errors; what it calls a wrong media type or page is a wrong request to us."""
    status = error.status_code
    if isinstance(error, exceptions.ValidationError):
        return problem(400, gettext("Some of the fields need another look."), errors=_by_field(error.detail))
    code = ""
    if isinstance(error, exceptions.AuthenticationFailed) and error.get_codes() == "app_key_invalid":
        code = "app_key_invalid"
    if isinstance(error, exceptions.NotAuthenticated) and error.get_codes() == "reauthentication_required":
        code = "reauthentication_required"
    if isinstance(error, exceptions.PermissionDenied) and str(error.detail).startswith("CSRF Failed"):
        code = "csrf_failed"
    if isinstance(error, exceptions.UnsupportedMediaType | exceptions.NotAcceptable):
        status = 400
    if isinstance(error, exceptions.AuthenticationFailed | exceptions.NotAuthenticated):
        status = 401
    wait = error.wait if isinstance(error, exceptions.Throttled) else None
    detail = "" if isinstance(error, exceptions.NotFound) else str(error.detail)
    return problem(status, detail, code=code, retryable=status == 429, retry_after=wait)


def _by_field(detail: Any) -> dict[str, list[str]]:
    if isinstance(detail, dict):
        return {str(name): [str(text) for text in _flat(texts)] for name, texts in detail.items()}
    return {"non_field_errors": [str(text) for text in _flat(detail)]}


def _flat(texts: Any) -> list[Any]:
    if isinstance(texts, dict):
        return [text for inner in texts.values() for text in _flat(inner)]
    return [text for inner in texts for text in _flat(inner)] if isinstance(texts, list) else [texts]


def answer(status: int, detail: str = "", **options: Any) -> HttpResponse:
    """Answer with a problem outside of an API view."""
    members = problem(status, detail, **options)
    headers = _headers(members)
    if status == 401:
        headers["WWW-Authenticate"] = CHALLENGE
    return JsonResponse(members, status=status, content_type=CONTENT_TYPE, headers=headers)


def answer_error(error: Refusal) -> HttpResponse:
    """Answer with a problem for an error that was raised outside of an API view."""
    return answer(error.status, error.message, **_options(error))


def _headers(members: dict[str, Any]) -> dict[str, str]:
    """Return what a problem says in headers too."""
    return {"Retry-After": str(members["retry_after"])} if "retry_after" in members else {}


def is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith(PREFIX)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(400) if is_api(request) else defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(403) if is_api(request) else defaults.permission_denied(request, exception)


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    if is_api(request):
        return answer(403, code="csrf_failed")
    if "HX-Request" not in request.headers:
        return csrf.csrf_failure(request, reason=reason)
    # Of the page only a sentence changes: whatever was chosen stays chosen.
    sentence = gettext(
        "Nothing was sent. Go back, reload the page and send it again."
        " If that does not help, allow cookies for this site."
    )
    return HttpResponse(loader.render_to_string("generation/_error.html", {"message": sentence}), status=403)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(404) if is_api(request) else defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    # Called while the exception is being handled; a page for a database that is away must not ask it anything.
    error = sys.exc_info()[1]
    if isinstance(error, DataError):
        return bad_request(request, error)
    if isinstance(error, IntegrityError):
        return conflict(request)
    status = 503 if _is_passing(error) else 500
    if is_api(request):
        return answer(status, retryable=status == 503, retry_after=AGAIN_SECONDS if status == 503 else None)
    # Without the request, so that no context processor asks the database that is away who somebody is.
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    try:
        page: str = loader.render_to_string(f"{status}.html", {"request_id": request_id})
    except ValueError:  # a static file without a name: the bug may be that they were not collected
        page = str(SENTENCES[status])
    return HttpResponse(page, status=status, headers={"Retry-After": str(AGAIN_SECONDS)} if status == 503 else {})


def conflict(request: HttpRequest) -> HttpResponse:
    """Answer for a row that another request was faster to write."""
    if request.path_info.startswith((PREFIX, "/_allauth/")):
        return answer(409)
    page: str = loader.render_to_string("400.html", {"request": request})
    return HttpResponse(page, status=409)


def _is_passing(error: BaseException | None) -> bool:
    """Say whether it is for want of something that may be there again in a while: room, files, the database."""
    passing = isinstance(error, OperationalError | InterfaceError | MemoryError)
    return passing or (isinstance(error, OSError) and error.errno in WANTING)


def nothing_here(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Answer for every address below /api/ that is none, also where DEBUG would show a page."""
    return answer(404)


class AlwaysJSON(BaseContentNegotiation):
    """Answer in JSON whatever the client says it accepts: it has asked this API."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        content_type = request.content_type.partition(";")[0].strip()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
