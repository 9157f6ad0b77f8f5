"""Receivers: the profile of a saved account, and what follows from a change of credentials."""

from collections.abc import Iterable
from typing import Any

import structlog
from allauth.account.models import EmailAddress
from allauth.account.signals import (
    authentication_step_completed,
    email_changed,
    email_confirmed,
    login_code_rejected,
    password_changed,
    password_reset,
    password_set,
    user_signed_up,
)
from allauth.mfa.signals import authenticator_added, authenticator_removed, authenticator_reset
from allauth.socialaccount.signals import social_account_added, social_account_removed
from django.contrib import messages
from django.contrib.admin.models import LogEntry
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts import credentials, password_limits
from accounts.models import Profile, User

log = structlog.get_logger("accounts")


@receiver(post_save, sender=User)
def upsert_profile(
    instance: User, created: bool, raw: bool, update_fields: Iterable[str] | None, **kwargs: Any
) -> None:
    """Give every saved account its profile. Fixtures bring their own, and signing in is no change of the account."""
    if raw or (update_fields is not None and set(update_fields) == {"last_login"}):
        return
    Profile.objects.upsert(instance, is_new=created)


@receiver(user_signed_up)
def remember_sign_up(request: HttpRequest, user: User, **kwargs: Any) -> None:
    credentials.remember_sign_up(request=request, user=user)


@receiver(authentication_step_completed)
def notice_a_code(method: str, user: User, email: str | None = None, **kwargs: Any) -> None:
    if method == "code" and email:
        credentials.ensure_address(user=user, email=email)


@receiver(email_confirmed)
def check_who_proved_the_address(request: HttpRequest, email_address: EmailAddress, **kwargs: Any) -> None:
    """Wipe credentials that another person may have set. Sent for links and codes, on pages and in apps."""
    if credentials.address_was_proved(request=request, user=email_address.user) and not hasattr(
        request.allauth,  # type: ignore[attr-defined]
        "headless",
    ):
        sentence = _(
            "This address was confirmed in another browser than the one that signed up, so the password was removed."
            " Sign in with a code by e-mail, or reset the password."
        )
        messages.warning(request, sentence)


@receiver(password_reset)
def check_who_reset_the_password(request: HttpRequest, user: User, **kwargs: Any) -> None:
    password_limits.forget_failures_of_client(request, user.email or "")
    credentials.mailbox_reset_password(request=request, user=user)


@receiver(password_set)
@receiver(password_changed)
@receiver(password_reset)
def end_picture_addresses(user: User, **kwargs: Any) -> None:
    credentials.end_picture_addresses(user=user)


@receiver(email_changed)
def end_picture_addresses_of_the_old_address(
    user: User, from_email_address: EmailAddress | None, **kwargs: Any
) -> None:
    # Sent for the first address as well, which is no change.
    if from_email_address:
        credentials.end_picture_addresses(user=user)


# -- The log: who changed what, without addresses ----------------------------------------------------------------


def _log_change(what: str, user_id: int) -> None:
    log.info("credentials_changed", user_id=user_id, what=what)


@receiver(password_set)
@receiver(password_changed)
@receiver(password_reset)
def log_password(user: User, **kwargs: Any) -> None:
    _log_change("password", user.pk)


@receiver(email_changed)
def log_address(user: User, from_email_address: EmailAddress | None, **kwargs: Any) -> None:
    # Sent for the first address as well, which is no change.
    if from_email_address:
        _log_change("email", user.pk)


@receiver(email_changed)
def offer_the_way_back(user: User, from_email_address: EmailAddress | None, **kwargs: Any) -> None:
    """Give the notice to the old address a link, if that address was proved. The notice is made of this object."""
    if from_email_address and from_email_address.verified:
        user.undo_key = credentials.signed_undo_key(  # type: ignore[attr-defined]
            user=user, old_address=from_email_address.email
        )


@receiver(authenticator_added)
@receiver(authenticator_removed)
@receiver(authenticator_reset)
def log_authenticator(user: User, authenticator: Any, **kwargs: Any) -> None:
    _log_change(authenticator.type, user.pk)


@receiver(social_account_added)
def log_connection(sociallogin: Any, **kwargs: Any) -> None:
    _log_change("social_account", sociallogin.user.pk)


@receiver(social_account_removed)
def log_disconnection(socialaccount: Any, **kwargs: Any) -> None:
    _log_change("social_account", socialaccount.user_id)


@receiver(login_code_rejected)
def log_rejected_code(user: User, **kwargs: Any) -> None:
    log.info("sign_in_failed", user_id=user.pk, code="code")


@receiver(post_save, sender=LogEntry)
def log_staff_action(instance: LogEntry, created: bool, **kwargs: Any) -> None:
    """Write an entry of the admin site's log as an event: what and which, without its words, which may be addresses."""
    if created:
        model = instance.content_type.model if instance.content_type else ""
        action = {1: "added", 2: "changed", 3: "deleted"}.get(instance.action_flag, "")
        log.info("staff_action", user_id=instance.user_id, what=model, target=instance.object_id, code=action)
