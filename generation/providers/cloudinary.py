"""Photos and results on Cloudinary, as a Django Storage on the official SDK.

Everything is of type `authenticated`: without a signature its address opens nothing. The SDK is used with care: only
bytes are handed to it (a text would be read as a local file), every call has its own time
limits (those of its configuration are ignored), its answers are checked (an empty one counts as success to it), and
its messages are shown to nobody (they contain what was signed).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import cloudinary
import cloudinary.api
import cloudinary.api_client.call_api
import cloudinary.exceptions
import cloudinary.uploader
import cloudinary.utils
import structlog
import urllib3
from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage
from django.utils.deconstruct import deconstructible

from generation.providers import http

log = structlog.get_logger("generation")

TYPE = "authenticated"
CONNECT_SECONDS = 5
WHOLE_CALL_SECONDS = 30
# Shorter than the lease of an export.
RAW_CALL_SECONDS = 540
RAW_URL_SECONDS = 600
MAX_STORED_BYTES = 40_000_000
# The SDK's own pools try again by themselves, follow redirects with the file, and know no deadline.
cloudinary.uploader._http = cloudinary.api_client.call_api._http = http.pool_manager(retries=False, maxsize=64)


class CloudinaryFailed(OSError):
    """A call to Cloudinary did not work; storages raise OSError for what a disk would."""


@deconstructible
class CloudinaryStorage(Storage):
    """Keeps a file under a public id that is its name without the ending, which Cloudinary adds itself."""

    def _save(self, name: str, content: File) -> str:
        content.seek(0)
        if _is_raw(name):
            return self._save_raw(name, content)
        stored = _call(
            cloudinary.uploader.upload,
            content.read(),
            public_id=_public_id(name),
            filename="picture",
            resource_type="image",
            type=TYPE,
            # The same name is the same picture, so sending it twice does no harm.
            overwrite=True,
            invalidate=True,
        )
        # The SDK takes any JSON for success, even an empty object.
        if stored.get("public_id") != _public_id(name) or not stored.get("secure_url") or not stored.get("bytes"):
            raise CloudinaryFailed("an answer without the stored picture")
        return name

    def _save_raw(self, name: str, content: File) -> str:
        """Store a large file, in parts: it does not have to fit into memory."""
        size = content.size
        stored = _call(
            cloudinary.uploader.upload_large,
            content,
            call_seconds=RAW_CALL_SECONDS,
            public_id=name,
            filename="file",
            resource_type="raw",
            type=TYPE,
            overwrite=True,
        )
        if stored.get("public_id") != name or stored.get("bytes") != size:
            raise CloudinaryFailed("an answer without the stored file")
        return name

    def _open(self, name: str, mode: str = "rb") -> ContentFile[bytes]:
        limits = http.Limits(CONNECT_SECONDS, settings.UPLOAD_TIMEOUT_SECONDS, WHOLE_CALL_SECONDS, MAX_STORED_BYTES)
        try:
            answer = http.get(self.url(name), limits=limits)
        except (http.CallFailed, http.TooLarge) as error:
            raise CloudinaryFailed(str(error)) from error
        if answer.status == 404:
            raise FileNotFoundError(name)
        if answer.status != 200:
            raise CloudinaryFailed(f"status {answer.status}")
        return ContentFile(answer.body, name)

    def url(self, name: str | None) -> str:
        """Return a signed address: who has it sees the picture, and no other. That of an export expires."""
        if name and _is_raw(name):
            until = int(time.time()) + RAW_URL_SECONDS
            options = {"resource_type": "raw", "type": TYPE, "attachment": True, "expires_at": until}
            return str(cloudinary.utils.private_download_url(name, "", **options))
        public_id, _, ending = (name or "").rpartition(".")
        url, _ = cloudinary.utils.cloudinary_url(
            public_id,
            format=ending,
            resource_type="image",
            type=TYPE,
            sign_url=True,
            secure=not cloudinary.config().cname,
            version=1,
        )
        return str(url)

    def delete(self, name: str) -> None:
        """Delete at the storage and in its caches; what is not there is no error."""
        kind = "raw" if _is_raw(name) else "image"
        _call(cloudinary.uploader.destroy, _public_id(name), resource_type=kind, type=TYPE, invalidate=True)

    def exists(self, name: str) -> bool:
        """Names are never reused for other pictures, so asking would only cost a call."""
        return False

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    def stored_before(self, folder: str, when: datetime) -> list[str]:
        """Return the names of the pictures in a folder that are older than a time (Admin API, 500 to a call)."""
        names, cursor = [], None
        while True:
            page = _call(
                cloudinary.api.resources,
                resource_type="raw" if _is_raw(f"{folder}/") else "image",
                type=TYPE,
                prefix=f"{folder}/",
                max_results=500,
                next_cursor=cursor,
            )
            for entry in page.get("resources", []):
                if datetime.fromisoformat(entry["created_at"]).replace(tzinfo=UTC) < when:
                    names.append(".".join(filter(None, (entry["public_id"], entry.get("format")))))
            cursor = page.get("next_cursor")
            if not cursor:
                return names


def _is_raw(name: str) -> bool:
    """Whether a file is no picture. Cloudinary keeps it as it is, under its whole name."""
    return name.startswith("exports/")


def _public_id(name: str) -> str:
    return name if _is_raw(name) else name.rpartition(".")[0]


def _call(
    function: Callable[..., Any], *arguments: Any, call_seconds: float = WHOLE_CALL_SECONDS, **options: Any
) -> dict[str, Any]:
    """Call the SDK within limits. Raises CloudinaryFailed, whose text says nothing that was sent or signed."""
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=settings.UPLOAD_TIMEOUT_SECONDS)
    try:
        with http.deadline(call_seconds):
            answer = function(*arguments, timeout=timeout, signature_algorithm="sha256", **options)
    except cloudinary.exceptions.AuthorizationRequired:
        log.critical("storage_refused_key")
        raise CloudinaryFailed("the key was refused") from None
    except Exception as error:  # noqa: BLE001  (the SDK raises bare ones for statuses that it does not know)
        raise CloudinaryFailed(type(error).__name__) from None
    if not isinstance(answer, dict):
        raise CloudinaryFailed("an answer of another shape")
    return answer
