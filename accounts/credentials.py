"""What an account is signed in with: taking all of it away, and who has set it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from allauth.account.authentication import get_authentication_records
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.auth.hashers import make_password
from django.core import signing
from django.db import transaction
from django.db.models import F, Q
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import AddressChange, User

log = structlog.get_logger("accounts")

SIGNED_UP = "signed_up_user"
UNDO_LIFETIME = timedelta(days=7)
UNDO_SALT = "accounts.undo_email_change"
# Proofs of a mailbox, which say nothing of who has set the password.
MAILBOX_METHODS = {"code", "password_reset"}


def wipe(*, user: User, reason: str, keep_password: bool = False) -> None:
    """Remove the password, passkeys, second factors, connected accounts and sessions of an account.

    An app token is a session. A session also ends because the hash that it holds is no longer that of the password.
    """
    with transaction.atomic():
        Authenticator.objects.filter(user=user).delete()
        SocialAccount.objects.filter(user=user).delete()
        end_sessions(user=user)
        changes: dict[str, Any] = {"media_version": F("media_version") + 1}
        if not keep_password:
            changes["password"] = make_password(None)
        User.objects.filter(pk=user.pk).update(**changes)
    # The caller's object is signed in or saved next, and must not bring the old password back.
    user.refresh_from_db(fields=["password", "media_version"])
    log.info("credentials_changed", user_id=user.pk, what="all", code=reason)


def end_picture_addresses(*, user: User) -> None:
    """Make every picture address that was signed for an account invalid."""
    User.objects.filter(pk=user.pk).update(media_version=F("media_version") + 1)
    # The caller's object may be saved next, and must not bring the old version back.
    user.refresh_from_db(fields=["media_version"])


def end_sessions(*, user: User, only: int | None = None) -> None:
    """End the sessions of an account, on pages and in apps; or one of them."""
    sessions = UserSession.objects.filter(user=user)
    for session in sessions.filter(pk=only) if only else sessions:
        session.end()


def remember_sign_up(*, request: HttpRequest, user: User) -> None:
    """Note in the session that the account was made in it."""
    request.session[SIGNED_UP] = user.pk


def were_set_in_this_session(*, request: HttpRequest, user: User) -> bool:
    """Return whether the session is one of the person who has set the account's credentials.

    It is signed in, made the account, or has just shown that it has a credential other than the mailbox. A superuser
    who marks an address as verified on the admin site has proved nothing about the mailbox, and changes nothing else.
    """
    if request.resolver_match and request.resolver_match.app_name == "admin":
        return True
    if request.user.pk == user.pk or request.session.get(SIGNED_UP) == user.pk:
        return True
    return any(record["method"] not in MAILBOX_METHODS for record in get_authentication_records(request, user))


def address_was_proved(*, request: HttpRequest, user: User) -> bool:
    """Wipe what was set before an address was proved by another person; return whether that was so."""
    if were_set_in_this_session(request=request, user=user):
        return False
    wipe(user=user, reason="address_proved")
    return True


def mailbox_reset_password(*, request: HttpRequest, user: User) -> None:
    """Take a password that was chosen through a link in a mail as the proof of the address that the mail went to."""
    if user.email is None or has_proved_address(user):
        return
    wipe(user=user, reason="address_proved", keep_password=True)
    address, _ = EmailAddress.objects.get_or_create(user=user, email=user.email)
    address.set_verified()
    address.set_as_primary()


def service_proved_address(*, request: HttpRequest, user: User, addresses: list[str]) -> None:
    """Take a sign-in by a service that has verified the account's address as its proof, which may be the first."""
    if EmailAddress.objects.filter(user=user, email__in=addresses, verified=True).exists():
        return
    if user.email in addresses:
        ensure_address(user=user, email=user.email)
    address_was_proved(request=request, user=user)
    for row in EmailAddress.objects.filter(user=user, email__in=addresses):
        row.set_verified()


def ensure_address(*, user: User, email: str) -> None:
    """Give an account that was made without signing up a row for its address, so that its proof is noticed.

    Staff were made by a superuser, who has set their password.
    """
    if user.email == email.lower() and not user.is_staff:
        EmailAddress.objects.get_or_create(user=user, email=user.email)


def replace_address(*, user: User) -> None:
    """Make the account's address the only one, to be proved by its owner."""
    with transaction.atomic():
        EmailAddress.objects.filter(user=user).delete()
        if user.email:
            EmailAddress.objects.create(user=user, email=user.email, primary=True)


def accounts_of(*, address: str) -> list[User]:
    """Return the account that an address signs in to: that which has proved it, else that which was made with it.

    Accounts that merely want to change to the address are none.
    """
    address = address.lower()
    proved = User.objects.filter(emailaddress__email=address, emailaddress__verified=True)
    return list(proved) or list(User.objects.filter(email=address))


def is_pending_change(*, address: str, user: User | None = None) -> bool:
    """Return whether an account that has proved one address wants to change to this one and has not proved it."""
    rows = EmailAddress.objects.filter(email=address.lower(), verified=False)
    if user:
        rows = rows.filter(user=user)
    owners = rows.values("user")
    proved = EmailAddress.objects.filter(user__in=owners, verified=True)
    return proved.exists() and not EmailAddress.objects.filter(email=address.lower(), verified=True).exists()


def release_pending_change(*, address: str) -> None:
    """Drop what others merely want to change to: it must not keep the owner of the address from signing up."""
    if is_pending_change(address=address):
        drop_pending_changes(address=address)


def drop_pending_changes(*, address: str) -> None:
    """Drop the wish of accounts that have proved another address to change to this one."""
    proved = EmailAddress.objects.filter(verified=True).values("user")
    EmailAddress.objects.filter(email=address.lower(), verified=False, user__in=proved).delete()


def signed_undo_key(*, user: User, old_address: str) -> str:
    """Record that an address was changed, and return the key of the way back."""
    change = AddressChange.objects.create(user=user, old_address=old_address)
    return signing.dumps(change.pk, salt=UNDO_SALT)


def find_change(key: str) -> AddressChange | None:
    """Return the change of an address that a key undoes, unless it is too old or was undone."""
    try:
        pk = signing.loads(key, salt=UNDO_SALT, max_age=UNDO_LIFETIME)
    except signing.BadSignature:
        return None
    return AddressChange.objects.filter(pk=pk, undone_at=None).select_related("user").first()


def undo_change(change: AddressChange) -> bool:
    """Give an account its old address back and wipe its credentials; return whether this call did so.

    Later changes are undone with it: whoever took the account over may have changed the address several times, and
    must not come back by the notice of the second change.
    """
    user = change.user
    with transaction.atomic():
        later = AddressChange.objects.filter(user=user, pk__gte=change.pk, undone_at=None)
        if not AddressChange.objects.filter(pk=change.pk, undone_at=None).update(undone_at=timezone.now()):
            return False
        later.update(undone_at=timezone.now())
        EmailAddress.objects.filter(user=user).delete()
        EmailAddress.objects.create(user=user, email=change.old_address, verified=True, primary=True)
        User.objects.filter(pk=user.pk).update(email=change.old_address)
        wipe(user=user, reason="address_change_undone")
    return True


def old_address_is_proved(change: AddressChange) -> bool:
    """Return whether another account has proved the old address by now, or a superuser has made one with it."""
    proved = Q(emailaddress__email=change.old_address, emailaddress__verified=True)
    made_by_staff = Q(email=change.old_address) & (Q(is_staff=True) | Q(is_superuser=True))
    return User.objects.filter(proved | made_by_staff).exclude(pk=change.user_id).exists()


def unproved_holder(change: AddressChange) -> User | None:
    """Return the other account that was made with the old address. One that merely wants to change to it is none."""
    return User.objects.filter(email=change.old_address).exclude(pk=change.user_id).first()


def has_proved_address(user: User) -> bool:
    return EmailAddress.objects.filter(user=user, verified=True).exists()
