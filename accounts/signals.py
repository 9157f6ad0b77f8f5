"""The only receiver in the house."""

from collections.abc import Iterable
from typing import Any

from django.db.models.signals import post_save
from django.dispatch import receiver

from accounts.models import Profile, User


@receiver(post_save, sender=User)
def upsert_profile(
    instance: User, created: bool, raw: bool, update_fields: Iterable[str] | None, **kwargs: Any
) -> None:
    """Give every saved account its profile. Fixtures bring their own, and signing in is no change of the account."""
    if raw or (update_fields is not None and set(update_fields) == {"last_login"}):
        return
    Profile.objects.upsert(instance, is_new=created)
