"""Who somebody is: the account that signs in, and the profile that everything else hangs on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

import structlog
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone, translation
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

log = structlog.get_logger("accounts")

GUEST_LIFETIME = timedelta(days=30)
UNVERIFIED_LIFETIME = timedelta(days=3)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=email, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, email: str | None) -> User:
        return self.get(email=(email or "").lower())

    def guest(self, key: str) -> User:
        """Return the guest account of a browser session, made on its first use; parallel first uses share one."""
        guest, _ = self.get_or_create(guest_key=key, defaults={"password": "!", "last_login": timezone.now()})
        return guest

    def expired_guests(self) -> models.QuerySet[User]:
        return self.filter(email=None, last_login__lt=timezone.now() - GUEST_LIFETIME)

    def expired_unverified(self) -> models.QuerySet[User]:
        """Return accounts whose address was never proved, where that is required: nobody has ever signed in to them.

        An account that was used before the owner required proofs has a last sign-in, and stays.
        """
        if settings.ACCOUNT_EMAIL_VERIFICATION != "mandatory":
            return self.none()
        members = self.filter(email__isnull=False, is_staff=False, is_superuser=False, last_login=None)
        old = members.filter(date_joined__lt=timezone.now() - UNVERIFIED_LIFETIME)
        # An account without any address row was made by staff or by an earlier release, and not by signing up.
        return old.filter(emailaddress__isnull=False).exclude(emailaddress__verified=True).distinct()


class User(AbstractBaseUser, PermissionsMixin):
    """An account. One without an e-mail address is a guest's, known only by the key in their browser session."""

    email = models.EmailField(_("e-mail address"), null=True, blank=True, unique=True)
    guest_key = models.CharField(max_length=64, null=True, blank=True, unique=True, editable=False)
    is_staff = models.BooleanField(_("staff"), default=False, help_text=_("May sign in to the admin site."))
    is_active = models.BooleanField(
        _("active"), default=True, help_text=_("Switch off instead of deleting the account.")
    )
    date_joined = models.DateTimeField(default=timezone.now, editable=False)
    # Part of the signature of picture addresses: those that were given out before it was raised are not valid.
    media_version = models.PositiveIntegerField(default=0, db_default=0, editable=False)

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique_without_case"),
            models.CheckConstraint(
                condition=Q(email__isnull=False) | Q(guest_key__isnull=False),
                name="user_has_email_or_guest_key",
            ),
        ]

    def __str__(self) -> str:
        return display_name(self)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.email = self.email.strip().lower() if self.email else None
        super().save(*args, **kwargs)

    @property
    def is_guest(self) -> bool:
        return self.email is None


def display_name(user: User) -> str:
    """Return what to call somebody on a page or in a mail."""
    profile = getattr(user, "profile", None)
    return (profile and profile.display_name) or user.email or gettext("Guest")


def default_name(user: User) -> str:
    return (user.email or "").partition("@")[0][:80]


class AddressChange(models.Model):
    """An address that an account had: its owner can take the account back for a few days."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="address_changes", db_constraint=False
    )
    old_address = models.EmailField()
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    undone_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return str(self.pk)


class ProfileManager(models.Manager["Profile"]):
    def upsert(self, user: User, *, is_new: bool = False) -> Profile:
        """Return the user's profile, made if it is missing; fill what is empty and overwrite nothing."""
        profile, made = self.get_or_create(user=user)
        if made and not is_new:
            log.warning("profile_missing", user_id=user.pk)
        if not profile.display_name and user.email:
            name = default_name(user)
            # Conditional, because somebody may be typing their name in another request right now.
            if self.filter(pk=profile.pk, display_name="").update(display_name=name):
                profile.display_name = name
        return profile

    def lock(self, user_id: int) -> Profile | None:
        """Hold the user's profile row until the transaction ends: whoever counts or ends runs takes turns here.

        SQLite has no row locks and needs none: its transactions begin with the write lock (settings.py).
        """
        return self.select_for_update().filter(user_id=user_id).first()


class Profile(models.Model):
    """What somebody has told us about themselves, and what the owner allows them."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    display_name = models.CharField(_("name"), max_length=80, blank=True)
    avatar = models.FileField(max_length=200, blank=True)
    email_notifications = models.BooleanField(_("e-mail me when a picture is done"), default=True)
    locale = models.CharField(_("language"), max_length=10, blank=True)
    daily_run_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("Runs a day; empty for the installation's limit, 0 for no limit.")
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProfileManager()

    def __str__(self) -> str:
        return self.display_name or str(self.user_id)

    @property
    def language(self) -> str:
        """The language that they chose, as far as we speak it; empty when there is none."""
        try:
            return translation.get_supported_language_variant(self.locale)
        except LookupError:
            return ""
