"""Telling people."""

import uuid

import structlog

from accounts.models import Profile
from notifications.models import Notification

log = structlog.get_logger("notifications")


def notify(*, user_id: int, kind: Notification.Kind, subject: uuid.UUID, message: str, url: str) -> Notification | None:
    """Write one piece of news, in the caller's transaction; none for somebody without a profile.

    A second one of the same kind about the same subject is not written.
    """
    if not Profile.objects.filter(user_id=user_id).exists():
        return None
    notification, created = Notification.objects.get_or_create(
        subject=subject, kind=kind, defaults={"user_id": user_id, "message": message, "url": url}
    )
    if created:
        log.info("notification_created", kind=str(kind))
    return notification
