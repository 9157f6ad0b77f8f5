"""Telling people."""

import uuid

import structlog

from accounts.models import Profile
from notifications.models import Notification

log = structlog.get_logger("notifications")


def notify(profile: Profile, *, kind: Notification.Kind, subject: uuid.UUID, message: str, url: str) -> None:
    """Write one piece of news for somebody, in the caller's transaction.

    A second one of the same kind about the same subject is not written.
    """
    news = Notification(user_id=profile.user_id, kind=kind, subject=subject, message=message, url=url)
    # One statement: who wrote it first is the database's to say.
    Notification.objects.bulk_create([news], ignore_conflicts=True)
    log.info("notification_created", kind=str(kind))
