"""Exports: everything that we hold about a user, written into a zip by a worker and kept in the storage for a week."""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import IO, Any

import structlog
from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import DatabaseError, transaction
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext
from rest_framework.renderers import JSONRenderer

from accounts.models import Profile, User
from generation import photos, services, sweep
from generation.api_profile import ProfileSerializer
from generation.models import Export, Photo, Run, random_path, release_connections
from generation.serializers import PhotoSerializer, RunSerializer
from notifications.api import NotificationSerializer
from notifications.emails import email_news
from notifications.models import Notification
from notifications.services import notify

log = structlog.get_logger("generation")

MAX_FAILURES = 5
RETRY_AFTER = timedelta(minutes=1)
RENEW_SECONDS = 15
ROWS_AT_ONCE = 500
# Addresses are signed for a while, and the files themselves are in the zip.
ADDRESSES = {"url", "thumbnail_url", "download_url"}


class _Interrupted(Exception):
    """The worker is stopping, or another one has the export."""


def make_next(is_stopping: Callable[[], bool] = lambda: False) -> bool:
    """Make the oldest due export; False when there is none."""
    held = Export.objects.filter(state=Export.State.RUNNING).values_list("worker", flat=True)
    export = Export.objects.claim(sweep.WORKER_NAME, sweep.dead_here(held))
    if export is None:
        return False
    if export.failures >= MAX_FAILURES:
        _give_up(export, "worker_crashed")
    else:
        _make(export, is_stopping)
    return True


def _make(export: Export, is_stopping: Callable[[], bool]) -> None:
    name = random_path("exports", "zip")
    try:
        size = _store(export, name, is_stopping)
    except _Interrupted:
        export.requeue()
    except OSError as error:
        photos.delete_files(name)
        _try_again(export, "storage_unavailable", type(error).__name__)
    except DatabaseError:
        # The lease ends, and another attempt is made.
        raise
    except Exception as error:
        log.exception("export_crashed", user_id=export.user_id)
        _try_again(export, "internal_error", type(error).__name__)
    else:
        _finish(export, name, size)


def _store(export: Export, name: str, is_stopping: Callable[[], bool]) -> int:
    """Write the zip into a temporary file without a name, store it, and return its size."""
    with tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR) as file:
        _write(export, file, is_stopping)
        size = file.tell()
        if not export.renew_lease():
            raise _Interrupted
        release_connections()
        default_storage.save(name, File(file, name))
    return size


def _write(export: Export, file: IO[bytes], is_stopping: Callable[[], bool]) -> None:
    renewed = time.monotonic()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        names, missing = _names(export.user), []
        release_connections()
        for name in names:
            if is_stopping():
                raise _Interrupted
            if time.monotonic() - renewed > RENEW_SECONDS:
                renewed = time.monotonic()
                if not export.renew_lease():
                    raise _Interrupted
                release_connections()
            try:
                with default_storage.open(name) as stored:
                    archive.writestr(name, stored.read())
            except FileNotFoundError:
                missing.append(name)
        with archive.open("manifest.json", "w", force_zip64=True) as manifest:
            for part in _manifest(export.user, missing):
                manifest.write(part.encode())


def _names(user: User) -> list[str]:
    """Return the names of all stored files of a user, each once: runs from the cache share theirs."""
    avatars = Profile.objects.filter(user=user).values_list("avatar", flat=True)
    sent = Photo.objects.for_user(user).values_list("file", flat=True)
    results = Run.objects.for_user(user).values_list("result", flat=True)
    return list(dict.fromkeys(name for names in (avatars, sent, results) for name in names if name))


def _manifest(user: User, missing: list[str]) -> Iterator[str]:
    """Yield the parts of a JSON object; all rows of a large account do not have to fit into memory."""
    profile = Profile.objects.upsert(user)
    head = {
        "made_at": timezone.now(),
        "profile": ProfileSerializer(profile).data | {"file": profile.avatar.name or None},
        "missing": missing,
    }
    yield _json(head)[:-1]
    for name, rows in _rows(user).items():
        yield f',\n"{name}": ['
        for number, row in enumerate(rows):
            yield (",\n" if number else "") + _json(row)
        yield "]"
    yield "}\n"


def _rows(user: User) -> dict[str, Iterable[Any]]:
    sent = Photo.objects.for_user(user).iterator(ROWS_AT_ONCE)
    runs = Run.objects.for_user(user).select_related("photo").with_place().iterator(ROWS_AT_ONCE)
    news = Notification.objects.for_user(user).iterator(ROWS_AT_ONCE)
    return {
        "photos": (PhotoSerializer(one).data | {"file": one.file.name, "name": one.name} for one in sent),
        "runs": (RunSerializer(one).data | {"file": one.result.name or None} for one in runs),
        "notifications": (NotificationSerializer(one).data for one in news),
    }


def _json(value: Any) -> str:
    return json.dumps(_without_addresses(json.loads(JSONRenderer().render(value))))


def _without_addresses(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_addresses(inner) for name, inner in value.items() if name not in ADDRESSES}


def _finish(export: Export, name: str, size: int) -> None:
    """Mark the export as ready, notify its user, and delete the earlier ones."""
    with transaction.atomic():
        profile = Profile.objects.lock(export.user_id)
        if profile is None or not export.finish(file=name, size=size):
            transaction.on_commit(partial(photos.delete_files, name))
            return
        services.expire_exports(Export.objects.for_user(export.user).exclude(pk=export.pk).exclude(file=""))
        with translation.override(profile.language or export.language):
            notify(
                profile,
                kind=Notification.Kind.EXPORT_READY,
                subject=export.pk,
                message=gettext("Your export is ready."),
                url=reverse("export"),
            )
        transaction.on_commit(partial(_email, export), robust=True)
    log.info("export_ready", user_id=export.user_id, bytes=size)


def _email(export: Export) -> None:
    kind, url = Notification.Kind.EXPORT_READY, reverse("export")
    email_news(export.user_id, kind=kind, look="", url=url, language=export.language)


def _try_again(export: Export, code: str, detail: str) -> None:
    if export.failures + 1 >= MAX_FAILURES:
        _give_up(export, code)
    elif export.requeue(code=code, after=RETRY_AFTER * 2**export.failures):
        log.warning("export_retried", user_id=export.user_id, code=code, detail=detail)


def _give_up(export: Export, code: str) -> None:
    if export.fail(code):
        log.error("export_failed", user_id=export.user_id, code=code)
