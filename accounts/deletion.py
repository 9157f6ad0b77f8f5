"""What names somebody beside their own rows, and is cleared when their account is deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator

from allauth.account.models import EmailAddress
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q

from accounts.models import User

DELETED = "deleted account"


def forget(user: User) -> None:
    """Take the names and addresses of an account out of the admin log, before its rows go.

    That somebody of the staff did something stays, and when. What they wrote about the account goes: a name may be
    in it in any form.
    """
    written = Q(pk__in=list(_entries_about(user)))
    for address in _addresses(user):
        # In a message that is JSON an address may be written in escapes.
        for text in {address, json.dumps(address)[1:-1]}:
            written |= Q(object_repr__icontains=text) | Q(change_message__icontains=text)
    LogEntry.objects.filter(written).update(object_repr=DELETED, change_message="")


def _entries_about(user: User) -> Iterator[int]:
    """Yield the log's entries about an account and about every row that belongs to it."""
    yield from _entries(User, [user.pk])
    for relation in User._meta.related_objects:
        model = relation.related_model
        if model is LogEntry or not isinstance(model, type) or not issubclass(model, Model):
            continue
        ids = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model)).values_list("object_id")
        logged = [text for (text,) in ids.distinct() if text]
        mine = model._default_manager.filter(**{relation.field.name: user, "pk__in": logged})
        yield from _entries(model, mine.values_list("pk", flat=True))


def _entries(model: type[Model], ids: object) -> Iterator[int]:
    about = [str(pk) for pk in ids]  # type: ignore[attr-defined]
    kind = ContentType.objects.get_for_model(model)
    yield from LogEntry.objects.filter(content_type=kind, object_id__in=about).values_list("pk", flat=True)


def _addresses(user: User) -> set[str]:
    known = EmailAddress.objects.filter(user=user).values_list("email", flat=True)
    return {address for address in (user.email, *known) if address}
