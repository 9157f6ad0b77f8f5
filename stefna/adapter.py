"""Where allauth asks us: what signing up and signing in mean for a guest, and what proves who somebody is."""

import time
import uuid
from smtplib import SMTPException
from typing import Any

import structlog
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.account.models import EmailAddress
from allauth.core import ratelimit
from allauth.core.exceptions import ImmediateHttpResponse, ReauthenticationRequired
from allauth.headless.base.response import UnauthorizedResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from django.contrib import messages
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from accounts import credentials, guests, password_limits
from accounts.limits import client_network
from accounts.models import User
from generation import services

log = structlog.get_logger("stefna")

# What is sent to an address that nobody here has proved.
TO_STRANGERS = {
    "account/email/account_already_exists",
    "account/email/email_confirmation",
    "account/email/email_confirmation_signup",
    "account/email/unknown_account",
}
# Of these, one in a few minutes for who asks. Signing up with a known address is answered as with a new one.
CONFIRMATIONS = TO_STRANGERS - {"account/email/unknown_account"}


class AccountAdapter(DefaultAccountAdapter):
    def get_client_ip(self, request: HttpRequest) -> str:
        """Count sign-ins and sign-ups of a client as everything else is counted."""
        return client_network(request)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send, or say in the log that it did not work: what somebody has done here is done all the same."""
        if not self._may_send(template_prefix, email.lower()):
            log.info("email_limited")
            return
        try:
            super().send_mail(template_prefix, email, context)
        except (OSError, SMTPException) as error:
            # What a mail server says names the address, so it is not logged.
            log.error("email_failed", code=type(error).__name__)

    def _may_send(self, template_prefix: str, email: str) -> bool:
        """Count what goes to an address that may not be proved, and say whether it may go there."""
        if template_prefix not in TO_STRANGERS:
            return True
        user = self.request.user
        asks = f"user {user.pk}" if user.is_authenticated else password_limits.pair(self.request, "")
        if template_prefix in CONFIRMATIONS and not ratelimit.consume(
            self.request, action="confirmation_mail", key=f"{asks} {email}"
        ):
            return False
        is_change = user.is_authenticated and template_prefix == "account/email/email_confirmation"
        key = f"change {email}" if is_change else email
        return ratelimit.consume(self.request, action="stranger_mail", key=key)

    def send_account_already_exists_mail(self, email: str) -> None:
        """Take as long as for an address that is new, whose password is hashed: the time would tell the two apart."""
        make_password(uuid.uuid4().hex)
        super().send_account_already_exists_mail(email)

    def send_notification_mail(
        self, template_prefix: str, user: User, context: dict[str, Any] | None = None, email: str | None = None
    ) -> None:
        """Add the way back to the notice of a changed address, which goes to the old one."""
        if template_prefix == "account/email/email_changed" and (key := getattr(user, "undo_key", "")):
            undo_url = self.request.build_absolute_uri(f"{reverse('undo_email_change')}?{urlencode({'key': key})}")
            context = (context or {}) | {"undo_url": undo_url}
        super().send_notification_mail(template_prefix, user, context, email)

    # -- Who may sign in ---------------------------------------------------------------------------------------

    def pre_authenticate(self, request: HttpRequest, **given: Any) -> None:
        """Count the failures of one client with one account, and then those of the account, which slow others only."""
        email = _login(given)
        try:
            super().pre_authenticate(request, email=password_limits.pair(request, email))
        except ValidationError:
            log.info("sign_in_failed", code="limited")
            raise
        if not password_limits.allows_password(request, email):
            log.info("sign_in_failed", code="limited")
            raise self.validation_error("too_many_login_attempts")

    def authenticate(self, request: HttpRequest, **given: Any) -> User | None:
        user: User | None = super().authenticate(request, **given)
        if user:
            password_limits.forget_failures(request, _login(given))
        return user

    def authentication_failed(self, request: HttpRequest, **given: Any) -> None:
        log.info("sign_in_failed", code="password")

    def login(self, request: HttpRequest, user: User) -> None:
        """Every way of signing in and up ends here; what the visitor made as a guest comes along."""
        # Proving the address may have removed the password since this object was read.
        user.refresh_from_db(fields=["password"])
        super().login(request, user)
        request.session[password_limits.SIGNED_IN_AT] = time.time()
        records = get_authentication_records(request, user)
        log.info("sign_in", user_id=user.pk, code=records[-1]["method"] if records else "sign_up")
        if guest := guests.at_the_door(request):
            services.adopt_guest(guest=guest, user=user)

    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> bool:
        """Confirm an address; one that an account changes to, only where that account is signed in.

        Otherwise an account could be changed to the address of another person, who then signs in to it.
        """
        is_change = credentials.is_pending_change(address=email_address.email, user=email_address.user)
        if not is_change or request.user.pk == email_address.user_id:
            return super().confirm_email(request, email_address)
        if hasattr(request.allauth, "headless"):  # type: ignore[attr-defined]
            raise ImmediateHttpResponse(UnauthorizedResponse(request))
        messages.error(request, _("Sign in to your account first, and then open the link in the e-mail again."))
        return False

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Count a fresh sign-in too. Who has neither password nor passkey has to sign in again, by code for example."""
        user = self.request.user
        if not super().is_reauthentication_required(app=app, **kwargs) or user.is_guest:
            return False
        if password_limits.is_recent(self.request.session, user):
            return False
        if not self.get_reauthentication_methods(user):
            raise ReauthenticationRequired
        return True

    def is_safe_url(self, url: str | None) -> bool:
        """Say whether to lead somebody there; what is no address at all is not safe, and neither is a view's name."""
        try:
            return bool(url and url.startswith(("/", "http"))) and bool(super().is_safe_url(url))
        except ValueError:
            return False


class SocialAccountAdapter(DefaultSocialAccountAdapter):
    def authenticate_by_email(self, sociallogin: SocialLogin) -> tuple[User, str] | None:
        """Find the account of an address that the service has verified, and not one that wants to change to it."""
        for address in sociallogin.email_addresses:
            if not address.verified or not self.can_authenticate_by_email(sociallogin, address.email):
                continue
            if accounts := credentials.accounts_of(address=address.email):
                return accounts[0], address.email
        return None

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Treat a service that knows the address as its proof: it may be the first."""
        if sociallogin.state.get("process") == AuthProcess.CONNECT or sociallogin.account.pk:
            return
        proved = [address.email.lower() for address in sociallogin.email_addresses if address.verified]
        for email in proved:
            credentials.release_pending_change(address=email)
        if not sociallogin.is_existing:
            return
        credentials.service_proved_address(request=request, user=sociallogin.user, addresses=proved)


def _login(given: dict[str, Any]) -> str:
    return str(given.get("email") or given.get("username") or "").lower()
