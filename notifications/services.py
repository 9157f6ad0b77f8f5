"""Telling people."""

import uuid

import structlog

from accounts.models import Profile
from notifications.models import Notification

log = structlog.get_logger("notifications")


def notify(*, user_id: int, kind: Notification.Kind, subject: uuid.UUID, message: str, url: str) -> None:
    """Write one piece of news, in the caller's transaction; none for somebody without a profile.

    A second one of the same kind about the same subject is not written.
    """
    if not Profile.objects.filter(user_id=user_id).exists():
        return
    news = Notification(user_id=user_id, kind=kind, subject=subject, message=message, url=url)
    # One statement: who wrote it first is the database's to say.
    Notification.objects.bulk_create([news], ignore_conflicts=True)
    log.info("notification_created", kind=str(kind))
