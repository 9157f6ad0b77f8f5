"""Where allauth asks us: what signing up and signing in mean for a guest."""

import uuid
from smtplib import SMTPException
from typing import Any

import structlog
from allauth.account.adapter import DefaultAccountAdapter
from django.contrib.auth.hashers import make_password
from django.http import HttpRequest

from accounts import guests
from accounts.limits import client_network
from accounts.models import User
from generation import services

log = structlog.get_logger("stefna")


class AccountAdapter(DefaultAccountAdapter):
    def get_client_ip(self, request: HttpRequest) -> str:
        """Count sign-ins and sign-ups of a client as everything else is counted."""
        return client_network(request)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send, or say in the log that it did not work: what somebody has done here is done all the same."""
        try:
            super().send_mail(template_prefix, email, context)
        except (OSError, SMTPException) as error:
            # What a mail server says names the address, so it is not logged.
            log.error("email_failed", code=type(error).__name__)

    def send_account_already_exists_mail(self, email: str) -> None:
        """Take as long as for an address that is new, whose password is hashed: the time would tell the two apart."""
        make_password(uuid.uuid4().hex)
        super().send_account_already_exists_mail(email)

    def login(self, request: HttpRequest, user: User) -> None:
        """Every way of signing in and up ends here; what the visitor made as a guest comes along."""
        super().login(request, user)
        if guest := guests.at_the_door(request):
            services.adopt_guest(guest=guest, user=user)
