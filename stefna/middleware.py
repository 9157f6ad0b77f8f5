"""What happens to every request before a view sees it."""

import re
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, multipartparser
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django_htmx.http import HttpResponseClientRedirect

from accounts import limits
from accounts.exceptions import Refusal
from accounts.limits import Limit
from generation import photos
from generation.images import processing
from generation.images.processing import Share
from stefna import counters, encodings, problems

GetResponse = Callable[[HttpRequest], HttpResponse]

log = structlog.get_logger("stefna")

# Where allauth counts, and says nothing to the log.
ALLAUTH = ("/account/", "/_allauth/", "/admin/login/")
# A form is the photo and a few short fields: more than this beside the photo is not our form.
FORM_OVERHEAD_BYTES = 200_000
# A form without a photo is smaller, and so is hardly a photo; to read a body of this size costs nothing.
SMALLEST_PHOTO_BYTES = 16_384
# Not by name: a prefix that the server takes from a header would be part of it.
PREVIEWS = "/sketches"
# Django gives the head of a part 1 kB, and the name of the file is in it: a long one is no reason to refuse a photo.
multipartparser.MAX_TOTAL_HEADER_SIZE = 65_536  # type: ignore[attr-defined]


def request_context(get_response: GetResponse) -> GetResponse:
    """Give each request an id that its log lines and its answer carry, and count it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if re.fullmatch(r"[\w-]{8,64}", given, re.ASCII) else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.monotonic()
        response = get_response(request)
        counters.count_request(request, response, time.monotonic() - started)
        if response.status_code == 429 and request.resolver_match and request.path_info.startswith(ALLAUTH):
            log.warning("limit_hit", code=request.resolver_match.view_name)
        response["X-Request-ID"] = request_id
        return _without_body(response) if request.method == "HEAD" else response

    return middleware


def _without_body(response: HttpResponse) -> HttpResponse:
    """Leave the headers of what was made: a server must not send more to who asked by HEAD, and complains of it."""
    if response.streaming:
        response.streaming_content = []  # type: ignore[attr-defined]
    else:
        response.headers.setdefault("Content-Length", str(len(response.content)))
        response.content = b""
    return response


def private_by_default(get_response: GetResponse) -> GetResponse:
    """Keep caches from what is somebody's own, unless the view has said who may keep it: pictures do, and previews.

    That is every page and every answer of the API: a page of a stranger has a form, and in it a token.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if "Cache-Control" not in response:
            response["Cache-Control"] = "private, no-store"
        if "public" not in response["Cache-Control"]:
            patch_vary_headers(response, ["Cookie"])
            if problems.is_api(request):
                patch_vary_headers(response, ["Authorization", "X-Session-Token"])
        return response

    return middleware


def limit_body(get_response: GetResponse) -> GetResponse:
    """Refuse a body that is too large, or of unknown length, before a byte of it is read.

    Django limits form fields but not files, and a chunked body would arrive as "no file".
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
            sentence = _("Your browser sent the photo in a way we cannot read. Please try another one.")
            return refuse(request, 411, sentence)
        try:
            length = int(request.headers.get("Content-Length") or 0)
        except ValueError:
            return refuse(request, 400, _("The request was not understood."))
        if length > settings.MAX_PHOTO_BYTES + FORM_OVERHEAD_BYTES:
            error = photos.too_large()
            return refuse(request, error.status, error.message)
        return get_response(request)

    def refuse(request: HttpRequest, status: int, message: str) -> HttpResponse:
        if problems.is_api(request):
            return problems.answer(status, message)
        # No session has been opened yet, and none is needed to say no.
        if "HX-Request" in request.headers:
            return render(request, "generation/_error.html", {"message": message}, status=status)
        return render(request, "error.html", {"message": message}, status=status)

    return middleware


def refuse_malformed(get_response: GetResponse) -> GetResponse:
    """Refuse what no view of ours, Django's or a library's can read, before any of them tries."""

    def middleware(request: HttpRequest) -> HttpResponse:
        length = request.headers.get("Content-Length") or "0"
        encoding = request.content_params.get("charset", "") if request.content_params else ""
        if "\0" in request.path_info or "\0" in unquote(request.META.get("QUERY_STRING", "")):
            return problems.bad_request(request, BadRequest("NUL in the address"))
        if encoding and not encodings.is_known(encoding):
            if length != "0":
                return problems.bad_request(request, BadRequest("encoding"))
            request.encoding = "utf-8"
        request.parse_file_upload = partial(_parse_file_upload, request.parse_file_upload)  # type: ignore[method-assign]
        request.COOKIES = {name: value for name, value in request.COOKIES.items() if value.isprintable()}
        if not _is_address(request.headers.get("HX-Current-URL", "")):
            return problems.bad_request(request, BadRequest("page's address"))
        return get_response(request)

    return middleware


def _parse_file_upload(parse: Callable[..., Any], *arguments: Any) -> Any:
    """Read a form with files; whatever is wrong with it is an error that Django answers with 400."""
    try:
        return parse(*arguments)
    except (LookupError, ValueError) as error:
        raise multipartparser.MultiPartParserError("unreadable form") from error


def _is_address(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True


def hold_place(get_response: GetResponse) -> GetResponse:
    """Refuse a picture that there is no place for before its body is read: reading it would delay everybody's pages."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        share = _share(request)
        if share is None:
            return get_response(request)
        try:
            if share is Share.PREVIEW:
                limits.hit(request, Limit.PREVIEWS)
            place = processing.Place(share)
        except Refusal as error:
            return _refusal(request, error)
        try:
            response = get_response(request)
        except BaseException:
            place.close()
            raise
        if response.streaming:
            response.streaming_content = _Held(response.streaming_content, place)  # type: ignore[attr-defined]
        else:
            place.close()
        return response

    return middleware  # type: ignore[return-value]


def _share(request: HttpRequest) -> Share | None:
    """Return what a request needs image processes for, or None when it sends no picture."""
    if request.method != "POST":
        return None
    if request.path_info == PREVIEWS:
        return Share.PREVIEW
    length = int(request.headers.get("Content-Length") or 0)
    return Share.UPLOAD if length > SMALLEST_PHOTO_BYTES else None


class _Held:
    """The content of a streamed answer, whose place is free when it was sent, or when nobody reads it any more."""

    def __init__(self, content: Iterator[bytes], place: processing.Place) -> None:
        self._content = content
        self._place = place

    def __iter__(self) -> Iterator[bytes]:
        return self._content

    def close(self) -> None:
        self._place.close()


def _refusal(request: HttpRequest, error: Refusal) -> HttpResponse:
    """Answer with the sentence, status and headers of an error; scripts of ours get JSON as API clients do."""
    if problems.is_api(request) or request.path_info == PREVIEWS:
        return problems.answer_error(error)
    template = "generation/_error.html" if "HX-Request" in request.headers else "error.html"
    response = render(request, template, {"message": error.message}, status=error.status)
    for name, value in error.headers.items():
        response[name] = value
    return response


def language_of_the_user(get_response: GetResponse) -> GetResponse:
    """Speak the language that the user chose in the profile; LocaleMiddleware has found out the browser's."""

    def middleware(request: HttpRequest) -> HttpResponse:
        # No query of its own: SignInRequired reads the user of every request, and the profile comes along.
        profile = getattr(request.user, "profile", None)
        if profile and profile.language:
            translation.activate(profile.language)
            request.LANGUAGE_CODE = profile.language
        return get_response(request)

    return middleware


class RefusalMiddleware:
    """Answer with the sentence and status of an error that no view has put on its page; the API has its own answers."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return _refusal(request, exception) if isinstance(exception, Refusal) else None


class SignInRequired(LoginRequiredMiddleware):
    """Ask for a sign-in on every page that does not say otherwise; afterwards the visitor is back where they were."""

    def handle_no_permission(self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]) -> HttpResponse:  # type: ignore[override]
        if not request.htmx:  # type: ignore[attr-defined]
            return super().handle_no_permission(request, view_func)
        # A fragment is asked for from a page: it is the page that needs the sign-in, not the fragment's address.
        page = request.htmx.current_url_abs_path or reverse("studio")  # type: ignore[attr-defined]
        return HttpResponseClientRedirect(f"{reverse(settings.LOGIN_URL)}?{urlencode({'next': page})}")
