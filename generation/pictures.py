"""The bytes of pictures: private to their owner, or to whoever was given a signed address for a while."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.signing import BadSignature, TimestampSigner
from django.db.models.fields.files import FieldFile
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.templatetags.static import static
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from accounts.models import Profile
from generation import photos, showing
from generation.models import Export, Photo, Preset, Run

SIGNATURE_SECONDS = 3600
_signer = TimestampSigner(salt="generation.pictures")


def signed(path: str) -> str:
    """Return an address of a picture that works without signing in, for an hour."""
    return f"{path}?signature={_signer.sign(path).removeprefix(path + ':')}"


def _is_signed(request: HttpRequest) -> bool:
    try:
        _signer.unsign(f"{request.path}:{request.GET.get('signature', '')}", max_age=SIGNATURE_SECONDS)
    except BadSignature:
        return False
    return True


def _visible(rows: Any, request: HttpRequest) -> Any:
    """The rows that this request may see: another's picture is as missing as one that never was."""
    if _is_signed(request):
        return rows.all()
    return rows.for_user(request.user) if request.user.is_authenticated else rows.none()


@login_not_required
@require_safe
def photo(request: HttpRequest, pk: uuid.UUID, size: str) -> HttpResponseBase:
    found = get_object_or_404(_visible(Photo.objects, request), pk=pk)
    return send(found.thumbnail, "image/jpeg") if size == "thumbnail" else send(found.file, found.content_type)


@login_not_required
@require_safe
def result(request: HttpRequest, pk: uuid.UUID, size: str) -> HttpResponseBase:
    found = get_object_or_404(_visible(Run.objects, request), pk=pk)
    return send(found.thumbnail, "image/jpeg") if size == "thumbnail" else send(found.result, found.content_type)


@login_not_required
@require_safe
def download(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = get_object_or_404(_visible(Run.objects, request).exclude(result=""), pk=pk)
    content_type = photos.download_type(found, request.GET.get("format", "original"))
    if content_type is None:
        raise Http404
    return attachment(found, content_type)


def attachment(run: Run, content_type: str) -> HttpResponse:
    """Send a result as a file with a readable name, in the format that was asked for."""
    response = HttpResponse(photos.download(run, content_type), content_type)
    response["Cache-Control"] = "private, max-age=86400"
    name = f"stefna-{slugify(run.preset_name)}-{run.created_at:%Y-%m-%d}.{photos.EXTENSIONS[content_type]}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@login_not_required
@require_safe
def export(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """Send an export as a file, to its owner or to whom a signed address was given."""
    found = get_object_or_404(_visible(Export.objects, request).ready(), pk=pk)
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
    if not _is_signed(request) and request.user.pk != pk:
        raise Http404
    return send(get_object_or_404(Profile, user_id=pk).avatar, "image/jpeg")


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
