"""The one entrance for image bytes: photos are checked and normalised, results are marked, both are stored.

Pixels are decoded in processes apart (images/processing.py); here are the rules and the storage.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from django.conf import settings
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models.fields.files import FieldFile
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import Profile
from generation.engine import exceptions as decode_errors
from generation.engine.headers import read_header
from generation.exceptions import (
    PhotoDimensions,
    PhotoEmpty,
    PhotoInvalid,
    PhotoTooLarge,
    PhotoTooManyPixels,
    PhotoTypeUnsupported,
    ResultInvalid,
    StorageFull,
    StorageUnavailable,
)
from generation.images import processing
from generation.images.processing import EncodedImage, ImageFiles, Share
from generation.models import Photo, Run, random_path, release_connections

if TYPE_CHECKING:
    from accounts.models import User

log = structlog.get_logger("generation")

SAMPLES = {"portrait": _("Portrait"), "landscape": _("Landscape"), "coffee": _("Coffee")}
SHORTEST_SIDE, LONGEST_SIDE = 64, 12_000
# A result can be downloaded as WebP, which has no longer sides.
LONGEST_WEBP_SIDE = 16_383
THUMBNAIL_SIDE = 480
AVATAR_SIDE = 256
RENDITION_SIDE = 960
SAMPLE_STORED_SECONDS = 3600
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

    @cached_property
    def files(self) -> ImageFiles:
        """What is stored of it. Raise PhotoError."""
        _check_bytes(self)
        release_connections()
        with refusing_photos():
            return processing.normalise(
                self.data,
                _photo_limits(),
                share=Share.UPLOAD,
                max_side=settings.MAX_PHOTO_SIDE,
                thumbnail_side=THUMBNAIL_SIDE,
            )


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


def accept(user: User, upload: Upload, *, check_room: Callable[[int], None] | None = None) -> Photo:
    """Check, normalise and store what a user sent; the same bytes give the same photo. Raise PhotoError.

    `check_room` raises StorageFull when a user has no room for so many more bytes. It is asked before anything is
    stored, and again while the user's profile is locked: several photos may come at once.
    """
    _check_bytes(upload)
    known = Photo.objects.for_user(user).filter(sha256=upload.sha256).first()
    if known:
        return known
    if check_room:
        check_room(len(upload.data))
    files = upload.files
    photo = Photo(
        user=user,
        sha256=upload.sha256,
        name="".join(c for c in upload.name if c.isprintable())[:200],
        width=files.picture.width,
        height=files.picture.height,
        bytes=len(files.picture.data),
        content_type=files.content_type,
    )
    started = time.monotonic()
    with _all_or_nothing() as save:
        photo.file = save(random_path("photos", EXTENSIONS[files.content_type]), files.picture)
        photo.thumbnail = save(random_path("photos", "jpg"), files.thumbnail)
    photo.upload_ms = round((time.monotonic() - started) * 1000)
    return _insert(photo, check_room)


def _insert(photo: Photo, check_room: Callable[[int], None] | None) -> Photo:
    """Write the row of a photo whose files are stored; without a row its files go too."""
    try:
        with transaction.atomic():
            if check_room:
                Profile.objects.lock(photo.user_id)
                check_room(photo.bytes)
            photo.save(force_insert=True)
    except StorageFull:
        delete_files(photo.file.name, photo.thumbnail.name)
        raise
    except IntegrityError:
        delete_files(photo.file.name, photo.thumbnail.name)
        # The same bytes came twice at once, and the other request's copy stays; or the account is gone.
        if same := Photo.objects.filter(user=photo.user_id, sha256=photo.sha256).first():
            return same
        raise
    except DatabaseError:
        # Of a commit whose confirmation was lost the row is there.
        if not _is_stored(photo):
            delete_files(photo.file.name, photo.thumbnail.name)
        raise
    return photo


def _is_stored(photo: Photo) -> bool:
    """Say whether a photo's row was written although an error was reported; in doubt it was."""
    try:
        return Photo.objects.filter(pk=photo.pk).exists()
    except DatabaseError:
        return True


def accept_avatar(upload: Upload) -> str:
    """Check a picture of a user, store it small, and return its name. Raise PhotoError or StorageUnavailable."""
    _check_bytes(upload)
    release_connections()
    with refusing_photos():
        small = processing.scale(
            upload.data,
            _photo_limits(),
            share=Share.UPLOAD,
            max_side=settings.MAX_PHOTO_SIDE,
            side=AVATAR_SIDE,
            quality=85,
        )
    with _all_or_nothing() as save:
        return save(random_path("avatars", "jpg"), small)


def _check_bytes(upload: Upload) -> None:
    if not upload.data:
        raise PhotoEmpty
    if len(upload.data) > settings.MAX_PHOTO_BYTES:
        raise too_large()


def too_large() -> PhotoTooLarge:
    sentence = gettext("This photo is too large. A photo may have up to %(megabytes)d MB.")
    return PhotoTooLarge(sentence % {"megabytes": max_megabytes()})


def max_megabytes() -> int:
    return settings.MAX_PHOTO_BYTES // 10**6


def accept_result(data: bytes, source_type: str, *, name: str) -> Stored:
    """Check, mark and store what a provider made. Raise ResultInvalid or StorageUnavailable.

    `name` is the attempt's: what is stored twice replaces itself, and no other attempt's picture.
    """
    with _refusing_results():
        files = processing.normalise(
            data, result_limits(), share=Share.BACKGROUND, thumbnail_side=THUMBNAIL_SIDE, source_type=source_type
        )
    made, content_type = files.picture, files.content_type
    with _all_or_nothing() as save:
        result = save(f"results/{name[:2]}/{name}.{EXTENSIONS[content_type]}", made)
        thumbnail = save(f"results/{name[:2]}/{name}-thumbnail.jpg", files.thumbnail)
    return Stored(result, thumbnail, made.width, made.height, len(made.data), content_type, source_type)


def download_type(run: Run, wanted: str) -> str | None:
    """Return the content type of a format's name, or None for one that we do not make."""
    return {"original": run.content_type, "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}.get(wanted)


def download(run: Run, content_type: str) -> bytes:
    """Return a run's result in a format, with its mark. Raise ResultInvalid, or what is transient."""
    data = read(run.result)
    if content_type == run.content_type:
        return data
    with _refusing_results():
        return processing.convert(
            data, result_limits(), share=Share.CONVERSION, content_type=content_type, source_type=run.source_type
        ).data


def small(photo: Photo | Upload) -> bytes:
    """Return a picture of the size of a thumbnail, of a photo that is kept or that was only sent. Raise PhotoError."""
    if isinstance(photo, Photo):
        return read(photo.thumbnail)
    _check_bytes(photo)
    with refusing_photos():
        return processing.scale(
            photo.data,
            _photo_limits(),
            share=Share.PREVIEW,
            max_side=settings.MAX_PHOTO_SIDE,
            side=THUMBNAIL_SIDE,
        ).data


def sample_url(name: str) -> str:
    """Return where a service that fetches photos by itself finds a sample. Raise StorageUnavailable.

    It is stored where every photo is, under a name of its own, and again when that was a while ago.
    """
    stored = f"samples/{name}.jpg"
    if not cache.get(f"sample_stored:{name}"):
        upload = Upload.sample(name)
        header = read_header(upload.data)
        assert header
        with _all_or_nothing() as save:
            save(stored, EncodedImage(upload.data, header.width, header.height))
        cache.set(f"sample_stored:{name}", 1, SAMPLE_STORED_SECONDS)
    return default_storage.url(stored)


def rendition(data: bytes, source_type: str) -> bytes:
    """Return what a provider made as a marked WebP for the screen. Raise ResultInvalid."""
    with _refusing_results():
        return processing.scale(
            data,
            result_limits(),
            share=Share.PREVIEW,
            side=RENDITION_SIDE,
            image_format="WEBP",
            quality=85,
            source_type=source_type,
        ).data


def read(file: FieldFile) -> bytes:
    """Return the bytes of a stored picture. Raise StorageUnavailable."""
    # The storage may be slow, and a thread that waits for it holds no connection to the database.
    release_connections()
    try:
        with file.open("rb") as stored:
            data: bytes = stored.read()
            return data
    except OSError as error:
        raise StorageUnavailable(detail=repr(error)) from error


def stored_before(folder: str, when: datetime) -> Iterator[str]:
    """Yield the names of stored pictures of a folder that are older than a time."""
    if hasattr(default_storage, "stored_before"):
        yield from default_storage.stored_before(folder, when)
        return
    for subfolder in default_storage.listdir(folder)[0] if default_storage.exists(folder) else ():
        for file in default_storage.listdir(f"{folder}/{subfolder}")[1]:
            name = f"{folder}/{subfolder}/{file}"
            if default_storage.get_modified_time(name) < when:
                yield name


def delete_files(*names: str | None) -> int:
    """Delete stored bytes; return how many. What cannot be deleted now is an orphan that the sweep tries again."""
    deleted = 0
    # As for reading: the storage may be slow.
    release_connections()
    for name in filter(None, names):
        try:
            default_storage.delete(name)
            deleted += 1
        except OSError:
            log.warning("delete_failed", exc_info=True)
    return deleted


def result_limits() -> dict[str, int]:
    return {"pixels": settings.MAX_PHOTO_PIXELS, "longest_side": LONGEST_WEBP_SIDE}


def _photo_limits() -> dict[str, int]:
    return {"pixels": settings.MAX_PHOTO_PIXELS, "shortest_side": SHORTEST_SIDE, "longest_side": LONGEST_SIDE}


@contextmanager
def refusing_photos() -> Iterator[None]:
    """Turn what is wrong with the bytes of a photo into the error that its user reads."""
    try:
        yield
    except decode_errors.UnsupportedType as error:
        raise PhotoTypeUnsupported from error
    except decode_errors.TooManyPixels as error:
        megapixels = settings.MAX_PHOTO_PIXELS // 10**6
        sentence = gettext("This photo has too many pixels. Up to %(megapixels)d megapixels are fine.")
        raise PhotoTooManyPixels(sentence % {"megapixels": megapixels}) from error
    except decode_errors.InvalidDimensions as error:
        raise PhotoDimensions from error
    except decode_errors.DecodeError as error:
        raise PhotoInvalid(detail=repr(error)) from error


@contextmanager
def _refusing_results() -> Iterator[None]:
    try:
        yield
    except decode_errors.DecodeError as error:
        raise ResultInvalid(detail=repr(error)) from error


@contextmanager
def _all_or_nothing() -> Iterator[Callable[[str, EncodedImage], str]]:
    """Save several pictures; when one fails, none stays, not even one that was only begun."""
    names: list[str] = []

    def save(name: str, file: EncodedImage) -> str:
        started = time.monotonic()
        facts = {"public_id": name, "bytes": len(file.data), "width": file.width, "height": file.height}
        log.info("upload_started", **facts)
        names.append(name)
        release_connections()
        try:
            stored: str = default_storage.save(name, ContentFile(file.data))
        except OSError as error:
            reason = error.strerror or str(error)
            log.error("upload_failed", **facts, code=type(error).__name__, detail=reason, duration_ms=_since(started))
            raise
        log.info("upload_succeeded", **facts, duration_ms=_since(started))
        return stored

    try:
        yield save
    except OSError as error:
        delete_files(*names)
        raise StorageUnavailable(detail=type(error).__name__) from error
    except BaseException:
        delete_files(*names)
        raise


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
