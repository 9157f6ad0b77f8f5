"""The bytes of pictures: private to their owner, or to whoever was given a signed address for a while."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.contrib.auth.decorators import login_not_required
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.signing import Signer
from django.db.models.fields.files import FieldFile
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.templatetags.static import static
from django.utils.crypto import constant_time_compare
from django.utils.text import slugify
from django.views.decorators.http import require_safe
from rest_framework.request import Request

from accounts import limits
from accounts.limits import Limit
from accounts.models import Profile, User
from generation import photos, showing
from generation.exceptions import ImageProcessingBusy
from generation.models import Export, Photo, Preset, Run, release_connections

SIGNATURE_SECONDS = 900
# Addresses that are given out within one window are the same, so that an answer with them has one ETag.
WINDOW_SECONDS = 300
_signer = Signer(salt="generation.pictures")


def window() -> int:
    """Return the start of the current window, in seconds since 1970."""
    return int(time.time()) // WINDOW_SECONDS * WINDOW_SECONDS


def signed(path: str, user: User) -> str:
    """Return an address of a user's picture that works without signing in, for 10 to 15 minutes."""
    expires = window() + SIGNATURE_SECONDS
    signature = _signer.signature(_signed_value(path, user, expires))
    return f"{path}?{urlencode({'expires': expires, 'signature': signature})}"


def signed_again(answer: Any, user: User) -> Any:
    """Return a stored answer of the API with addresses that work."""
    if isinstance(answer, dict):
        return {name: signed_again(value, user) for name, value in answer.items()}
    if isinstance(answer, list):
        return [signed_again(value, user) for value in answer]
    if isinstance(answer, str) and "signature=" in answer:
        base, _, _ = answer.partition("?")
        path = urlsplit(base).path
        return base.removesuffix(path) + signed(path, user)
    return answer


def _signed_value(path: str, user: User, expires: int) -> str:
    return f"{path}:{user.media_version}:{expires}"


def _is_signed(request: HttpRequest, user: User) -> bool:
    """Return whether the address was signed for its owner as the account is now."""
    expires, signature = request.GET.get("expires", ""), request.GET.get("signature", "")
    if not re.fullmatch("[0-9]{1,12}", expires) or int(expires) <= time.time() or not user.is_active:
        return False
    expected = _signer.signature(_signed_value(request.path, user, int(expires)))
    return constant_time_compare(signature, expected)


def _found(rows: Any, request: HttpRequest, pk: uuid.UUID) -> Any:
    """Return a row that this request may see: another's picture is as missing as one that never was."""
    found = get_object_or_404(rows.select_related("user"), pk=pk)
    if request.user.pk != found.user_id and not _is_signed(request, found.user):
        raise Http404
    return found


@login_not_required
@require_safe
def photo(request: HttpRequest, pk: uuid.UUID, size: str) -> HttpResponseBase:
    found = _found(Photo.objects.filter(deleted_at=None), request, pk)
    return send(found.thumbnail, "image/jpeg") if size == "thumbnail" else send(found.file, found.content_type)


@login_not_required
@require_safe
def result(request: HttpRequest, pk: uuid.UUID, size: str) -> HttpResponseBase:
    found = _found(Run.objects.filter(deleted_at=None), request, pk)
    return send(found.thumbnail, "image/jpeg") if size == "thumbnail" else send(found.result, found.content_type)


@login_not_required
@require_safe
def download(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = _found(Run.objects.filter(deleted_at=None).exclude(result=""), request, pk)
    content_type = photos.download_type(found, request.GET.get("format", "original"))
    if content_type is None:
        raise Http404
    return attachment(request, found, content_type)


def attachment(request: HttpRequest | Request, run: Run, content_type: str) -> HttpResponse:
    """Send a result as a file with a readable name, in the format that was asked for. Raises LimitReached."""
    if content_type != run.content_type:
        # Another format is made of it, which costs as much as an upload.
        limits.hit(request, Limit.UPLOADS)
    try:
        data = photos.download(run, content_type)
    except ImageProcessingBusy:
        limits.give_back(request, Limit.UPLOADS)
        raise
    response = HttpResponse(data, content_type)
    response["Cache-Control"] = "private, max-age=86400"
    name = f"stefna-{slugify(run.preset_name)}-{run.created_at:%Y-%m-%d}.{photos.EXTENSIONS[content_type]}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@login_not_required
@require_safe
def export(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """Send an export as a file, to its owner or to whom a signed address was given."""
    found = _found(Export.objects.ready(), request, pk)
    response = send(found.file, "application/zip", download_name="stefna-export.zip")
    response["Cache-Control"] = "private, no-store"
    return response


@login_not_required
@require_safe
def preview(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what a preset does to the sample portrait."""
    preset = get_object_or_404(Preset.objects.active().filter(slug=slug).sound())
    response = HttpResponse(showing.preset_preview(preset), "image/webp")
    response["Cache-Control"] = "public, max-age=86400"
    return response


@login_not_required
@require_safe
def preset_sheet(request: HttpRequest) -> HttpResponse:
    """Show what every preset does to the sample portrait as one picture: the studio asks once for all its cards."""
    response = HttpResponse(showing.preset_sheet(list(Preset.objects.active().sound())), "image/webp")
    response["Cache-Control"] = "public, max-age=86400"
    return response


@login_not_required
@require_safe
def avatar(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Show the picture of a user, to themselves and to whoever was given a signed address."""
    found = get_object_or_404(Profile.objects.select_related("user"), user_id=pk)
    if request.user.pk != pk and not _is_signed(request, found.user):
        raise Http404
    return send(found.avatar, "image/jpeg")


@login_not_required
@require_safe
def preview_before(request: HttpRequest) -> HttpResponse:
    """Show the sample portrait that previews are made of."""
    return redirect(static("img/samples/portrait.jpg"))


def send(file: FieldFile, content_type: str, *, download_name: str = "") -> HttpResponseBase:
    """Send stored bytes, or send the reader to where they are. They never change under their name.

    With a name they are sent as an attachment.
    """
    if not file:
        raise Http404
    response: HttpResponseBase
    # Neither a slow disk nor a slow reader holds a connection to the database.
    release_connections()
    if isinstance(default_storage, FileSystemStorage):
        try:
            response = FileResponse(
                file.open("rb"), content_type=content_type, as_attachment=bool(download_name), filename=download_name
            )
        except FileNotFoundError as error:
            raise Http404 from error
    else:
        response = HttpResponseRedirect(file.url)
    response["Cache-Control"] = "private, max-age=86400"
    return response
