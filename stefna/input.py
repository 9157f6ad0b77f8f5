"""What is sent to views of libraries, which trust its shape more than a stranger can be trusted."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from cryptography.exceptions import InvalidSignature
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.forms.forms import BaseForm
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from accounts import parsers
from stefna import problems

log = structlog.get_logger("stefna")

# What code raises that was given something of another shape than it expects.
WRONG_SHAPE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, InvalidSignature)
# Nobody here has a telephone number, and allauth's views for them fail without an adapter that keeps some.
PHONE = "phone"
# What a passkey answers. allauth takes `false` for one that need not be checked, and keeps it as a passkey.
CREDENTIAL = "credential"


class ReadableInput:
    """Refuse with 400 what libraries cannot read: bodies of allauth's API, values that forms and filters fail on."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        if request.resolver_match and PHONE in (request.resolver_match.url_name or ""):
            raise Http404
        reads_json = getattr(getattr(view, "view_class", None), "handle_json_input", False)
        if reads_json and request.method != "GET":
            return _refusal_of_body(request)
        if request.method == "POST" and (given := request.POST.get(CREDENTIAL)) and not _is_credential(given):
            return problems.bad_request(request, BadRequest(CREDENTIAL))
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer where checking what was sent failed for its shape: a passkey's answer without its parts."""
        if not isinstance(exception, WRONG_SHAPE) or not _is_from_checking(exception):
            return None
        # With its traceback: a mistake in the form itself would look the same.
        log.warning("input_refused", code=type(exception).__name__, exc_info=exception)
        return problems.bad_request(request, exception)


def _refusal_of_body(request: HttpRequest) -> HttpResponse | None:
    """Return the answer to a body that allauth's API cannot read; None for one that it can."""
    try:
        data = parsers.load_object(request.body) if request.body else {}
    except RequestDataTooBig:
        return problems.answer(400, str(parsers.TOO_LARGE))
    except parsers.Malformed as error:
        return problems.answer(400, str(error.sentence))
    if CREDENTIAL in data and not _is_object(data[CREDENTIAL]):
        return problems.answer(400, errors={CREDENTIAL: [str(parsers.NOT_AN_OBJECT)]})
    return None


def _is_credential(text: str) -> bool:
    try:
        return _is_object(json.loads(text))
    except (ValueError, RecursionError):
        return False


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_from_checking(error: Exception) -> bool:
    """Say whether an error comes from reading what was sent: allauth's forms, the admin's filters."""
    return any(
        _reads_input(frame.f_code.co_name, frame.f_locals) for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _reads_input(name: str, names: Mapping[str, Any]) -> bool:
    read = names.get("self")
    if isinstance(read, ChangeList):
        return name in ("get_queryset", "get_results")
    is_form = isinstance(read, BaseForm) and any(kind.__module__.startswith("allauth.") for kind in type(read).__mro__)
    return name == "full_clean" and is_form
