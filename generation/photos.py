"""The one door for image bytes: what comes in is checked and normalised, what goes out carries the mark.

The pixels are worked on in engine/ingest.py; here are the rules and the storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import structlog
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.db.models.fields.files import FieldFile
from PIL import Image

from generation import provenance
from generation.engine import ingest
from generation.exceptions import (
    PhotoDimensions,
    PhotoEmpty,
    PhotoInvalid,
    PhotoTooLarge,
    PhotoTooManyPixels,
    PhotoTypeUnsupported,
    ResultInvalid,
    StorageUnavailable,
)
from generation.models import Photo, Run, random_path

if TYPE_CHECKING:
    from accounts.models import User

log = structlog.get_logger("generation")

SAMPLES = {"portrait": "Portrait", "landscape": "Landscape", "coffee": "Coffee"}
SHORTEST_SIDE, LONGEST_SIDE = 64, 12_000
THUMBNAIL_SIDE = 480
CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
FORMATS = {content_type: image_format for image_format, content_type in CONTENT_TYPES.items()}
EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


@dataclass(frozen=True)
class Upload:
    """A file as somebody sent it. The name is theirs and is never used as a path."""

    data: bytes
    name: str = ""

    @classmethod
    def sample(cls, name: str) -> Upload:
        """Return one of the photos that the product comes with."""
        path = settings.BASE_DIR / "static" / "img" / "samples" / f"{name}.jpg"
        return cls(path.read_bytes(), path.name)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Stored:
    """A result in our storage, in the words of the run's columns."""

    result: str
    thumbnail: str
    width: int
    height: int
    bytes: int
    content_type: str
    source_type: str

    def discard(self) -> None:
        delete_files(self.result, self.thumbnail)


def accept(user: User, upload: Upload) -> Photo:
    """Check, normalise and store what a user sent; the same bytes give the same photo. Raise PhotoError."""
    if not upload.data:
        raise PhotoEmpty
    if len(upload.data) > settings.MAX_PHOTO_BYTES:
        raise too_large()
    known = Photo.objects.for_user(user).filter(sha256=upload.sha256).first()
    if known:
        return known

    log.info("upload_started", bytes=len(upload.data))
    image = _decode(upload.data)
    image_format = "JPEG" if image.mode == "RGB" else "PNG"
    data = ingest.encode(image, image_format)
    photo = Photo(
        user=user,
        sha256=upload.sha256,
        name="".join(c for c in upload.name if c.isprintable())[:200],
        width=image.width,
        height=image.height,
        bytes=len(data),
        content_type=CONTENT_TYPES[image_format],
    )
    extension = EXTENSIONS[photo.content_type]
    with _all_or_nothing() as save:
        photo.file = save(random_path("photos", extension), data)
        photo.thumbnail = save(random_path("photos", "jpg"), _thumbnail(image))
        try:
            with transaction.atomic():
                photo.save(force_insert=True)
        except IntegrityError:
            # The same bytes came twice at once; the other request's copy stays.
            delete_files(photo.file.name, photo.thumbnail.name)
            return Photo.objects.get(user=user, sha256=upload.sha256)
    log.info("upload_succeeded", bytes=photo.bytes, width=photo.width, height=photo.height)
    return photo


def too_large() -> PhotoTooLarge:
    return PhotoTooLarge(f"This photo is too large. A photo may have up to {max_megabytes()} MB.")


def max_megabytes() -> int:
    return settings.MAX_PHOTO_BYTES // 10**6


def accept_result(data: bytes, source_type: str) -> Stored:
    """Check, mark and store what a provider made. Raise ResultInvalid or StorageUnavailable."""
    limits = ingest.Limits(pixels=settings.MAX_PHOTO_PIXELS)
    try:
        image = ingest.decode(data, limits)
    except ingest.Refused as error:
        raise ResultInvalid(detail=repr(error)) from error
    image_format = "JPEG" if image.mode == "RGB" else "PNG"
    content_type = CONTENT_TYPES[image_format]
    marked = ingest.encode(image, image_format, **provenance.save_options(image_format, source_type))
    with _all_or_nothing() as save:
        name = save(random_path("results", EXTENSIONS[content_type]), marked)
        thumbnail = save(random_path("results", "jpg"), _thumbnail(image, source_type))
    return Stored(name, thumbnail, image.width, image.height, len(marked), content_type, source_type)


def download(run: Run, content_type: str) -> bytes:
    """Return a run's result in the format that was asked for, with its mark."""
    data = read(run.result)
    if content_type == run.content_type:
        return data
    image = ingest.decode(data, ingest.Limits(pixels=settings.MAX_PHOTO_PIXELS))
    image_format = FORMATS[content_type]
    return ingest.encode(image, image_format, **provenance.save_options(image_format, run.source_type))


def store_preview(name: str, sketch: Image.Image) -> None:
    marked = provenance.save_options("WEBP", provenance.ALGORITHMICALLY_ENHANCED)
    with _all_or_nothing() as save:
        save(name, ingest.encode(sketch, "WEBP", quality=80, **marked))


def read(file: FieldFile) -> bytes:
    """Return the bytes of a stored picture. Raise StorageUnavailable."""
    try:
        with file.open("rb") as stored:
            data: bytes = stored.read()
            return data
    except OSError as error:
        raise StorageUnavailable(detail=repr(error)) from error


def delete_files(*names: str | None) -> None:
    """Delete stored bytes. What cannot be deleted now is an orphan that the sweep tries again."""
    for name in filter(None, names):
        try:
            default_storage.delete(name)
        except OSError:
            log.warning("delete_failed", exc_info=True)


def _decode(data: bytes) -> Image.Image:
    limits = ingest.Limits(settings.MAX_PHOTO_PIXELS, SHORTEST_SIDE, LONGEST_SIDE)
    try:
        return ingest.decode(data, limits, max_side=settings.MAX_PHOTO_SIDE)
    except ingest.UnsupportedType as error:
        raise PhotoTypeUnsupported from error
    except ingest.TooManyPixels as error:
        megapixels = settings.MAX_PHOTO_PIXELS // 10**6
        raise PhotoTooManyPixels(f"This photo has too many pixels. Up to {megapixels} megapixels are fine.") from error
    except ingest.BadMeasures as error:
        raise PhotoDimensions from error
    except ingest.BadImage as error:
        raise PhotoInvalid(detail=repr(error.__cause__)) from error


def _thumbnail(image: Image.Image, source_type: str = "") -> bytes:
    options = provenance.save_options("JPEG", source_type) if source_type else {}
    return ingest.encode(ingest.thumbnail(image, THUMBNAIL_SIDE), "JPEG", quality=82, **options)


@contextmanager
def _all_or_nothing() -> Iterator[Callable[[str, bytes], str]]:
    """Save several files; when one fails, none stays, not even one that was only begun."""
    names: list[str] = []

    def save(name: str, data: bytes) -> str:
        names.append(name)
        return default_storage.save(name, ContentFile(data))

    try:
        yield save
    except OSError as error:
        delete_files(*names)
        log.error("storage_failed", exc_info=True)
        raise StorageUnavailable(detail=repr(error)) from error
    except BaseException:
        delete_files(*names)
        raise
