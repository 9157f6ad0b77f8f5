"""Where allauth asks us: what signing up and signing in mean for a guest."""

from smtplib import SMTPException
from typing import Any

import structlog
from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest

from accounts.models import User
from generation import services

log = structlog.get_logger("stefna")


class AccountAdapter(DefaultAccountAdapter):
    def new_user(self, request: HttpRequest) -> User:
        """Turn the guest into the account that is signed up, so that everything they made is simply theirs."""
        if request.user.is_authenticated and request.user.is_guest:
            # Read anew: a sign-up that fails must not leave half an account on the request.
            return User.objects.get(pk=request.user.pk)
        return User()

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        user.guest_key = None
        return super().save_user(request, user, form, commit)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send, or say in the log that it did not work: what somebody has done here is done all the same."""
        try:
            super().send_mail(template_prefix, email, context)
        except (OSError, SMTPException):
            log.error("email_failed", exc_info=True)

    def login(self, request: HttpRequest, user: User) -> None:
        guest = request.user
        super().login(request, user)
        if guest.is_authenticated and guest.pk != user.pk and guest.is_guest:
            services.adopt_guest(guest=guest, user=user)
