"""What somebody was told."""

from __future__ import annotations

import uuid
from datetime import datetime

from django.conf import settings
from django.db import models
from django.utils import timezone


class NotificationQuerySet(models.QuerySet["Notification"]):
    def for_user(self, user) -> NotificationQuerySet:  # type: ignore[no-untyped-def]
        return self.filter(user=user)

    def unread(self) -> NotificationQuerySet:
        return self.filter(read_at=None)

    def mark_read(self) -> int:
        return self.unread().update(read_at=timezone.now())


class Notification(models.Model):
    """One piece of news. `subject` is the id of what it is about: a run's, a batch's or an export's."""

    class Kind(models.TextChoices):
        RUN_SUCCEEDED = "run_succeeded"
        RUN_FAILED = "run_failed"
        BATCH_DONE = "batch_done"
        EXPORT_READY = "export_ready"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notifications")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    subject = models.UUIDField()
    message = models.CharField(max_length=200)
    url = models.CharField(max_length=200)
    read_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["user", "-created_at"], name="notification_list"),
            models.Index(fields=["user"], condition=models.Q(read_at=None), name="notification_unread"),
        ]
        constraints = [models.UniqueConstraint(fields=["subject", "kind"], name="notification_once_per_kind")]

    def __str__(self) -> str:
        return self.message

    @property
    def told_at(self) -> datetime:
        """When it was written, but never later than now: the clock of the worker that wrote it may be ahead."""
        return min(self.created_at, timezone.now())
