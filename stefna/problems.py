"""The one place where an error becomes an HTTP answer of the API: a problem (RFC 9457)."""

from __future__ import annotations

import errno
import http
import sys
from datetime import datetime
from typing import Any

import structlog
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template import loader
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views import csrf
from rest_framework import exceptions
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.response import Response

from accounts.exceptions import Refusal

WANTING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
PREFIXES = ("/api/", "/_allauth/")
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
CONFLICT = _("Somebody else changed the same at the same moment. Please try again.")
CSRF_FAILED = _("Nothing was sent: the security token is missing or too old. Please reload the page.")
SENTENCES = {
    400: _("The request was not understood."),
    401: _("Please sign in first."),
    403: _("You are not allowed to do this."),
    404: _("There is nothing at this address."),
    405: _("This address does not take requests of this kind."),
    429: _("There were too many requests. Please wait a little."),
    500: _("Something went wrong on our side."),
    503: _("The service is not available at the moment. Please try again shortly."),
}


# The database may refuse what passed every check of ours: PostgreSQL has no texts with a NUL in them.
MALFORMED = (SuspiciousOperation, DataError, ValidationError, UnicodeError)
# Of the database only these pass by themselves; any other error of it is ours, or a conflict.
UNAVAILABLE = (OperationalError, InterfaceError)


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
    detail = detail or str(SENTENCES.get(status, http.HTTPStatus(status).phrase))
    if status == 400 and not errors:
        errors = {"non_field_errors": [detail]}
    members: dict[str, Any] = {
        "type": f"/api/docs/#{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
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
    elif isinstance(error, IntegrityError):
        structlog.get_logger("stefna").warning("database_conflict", exc_info=error)
        members = _conflict()
    elif isinstance(error, MALFORMED):
        members = problem(400)
    elif isinstance(error, UNAVAILABLE):
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
    code, detail, wait = "", "", None
    if isinstance(error, exceptions.NotAuthenticated) and error.get_codes() == "reauthentication_required":
        code, detail = "reauthentication_required", str(error.detail)
    if isinstance(error, exceptions.AuthenticationFailed | exceptions.NotAuthenticated):
        status = 401
    if isinstance(error, exceptions.UnsupportedMediaType | exceptions.NotAcceptable):
        status = 400
    # Of the sentences only ours: a library's are in its own words, and name its own parts.
    if isinstance(error, exceptions.AuthenticationFailed) and error.detail != error.default_detail:
        detail = str(error.detail)
        code = "app_key_invalid" if error.get_codes() == "app_key_invalid" else ""
    elif isinstance(error, exceptions.ParseError) and error.get_codes() == "malformed":
        detail = str(error.detail)
    elif isinstance(error, exceptions.PermissionDenied) and str(error.detail).startswith("CSRF Failed"):
        code, detail = "csrf_failed", str(CSRF_FAILED)
    elif isinstance(error, exceptions.Throttled):
        wait = error.wait
    return problem(status, detail, code=code, retryable=status == 429, retry_after=wait)


def _conflict() -> dict[str, Any]:
    """Say that somebody else wrote the same at the same moment; the same request again is answered by what stands."""
    return problem(409, str(CONFLICT), code="conflict", retryable=True, retry_after=1)


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
    return request.path_info.startswith(PREFIXES)


def _page(request: HttpRequest, status: int) -> HttpResponse:
    """Show an error. Django's own views check the CSRF token first, and fail on a form that cannot be read."""
    return HttpResponse(loader.render_to_string(f"{status}.html", request=request), status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(400) if is_api(request) else _page(request, 400)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(403) if is_api(request) else _page(request, 403)


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    if is_api(request):
        return answer(403, str(CSRF_FAILED), code="csrf_failed")
    if "HX-Request" not in request.headers:
        return csrf.csrf_failure(request, reason=reason)
    # Of the page only a sentence changes: whatever was chosen stays chosen.
    sentence = gettext(
        "Nothing was sent. Go back, reload the page and send it again."
        " If that does not help, allow cookies for this site."
    )
    return HttpResponse(loader.render_to_string("generation/_error.html", {"message": sentence}), status=403)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(404) if is_api(request) else _page(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    # Called while the exception is being handled; a page for a database that is away must not ask it anything.
    error = sys.exc_info()[1]
    if isinstance(error, DataError):
        return bad_request(request, error)
    if isinstance(error, IntegrityError):
        return _answer_conflict(request)
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


def _answer_conflict(request: HttpRequest) -> HttpResponse:
    if is_api(request):
        members = _conflict()
        return JsonResponse(members, status=409, content_type=CONTENT_TYPE, headers=_headers(members))
    return HttpResponse(loader.render_to_string("error.html", {"message": CONFLICT}), status=409)


def _is_passing(error: BaseException | None) -> bool:
    """Say whether it is for want of something that may be there again in a while: room, files, the database."""
    return isinstance(error, (*UNAVAILABLE, MemoryError)) or (isinstance(error, OSError) and error.errno in WANTING)


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
