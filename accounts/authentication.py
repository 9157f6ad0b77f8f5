"""Who is asking: of the pages, an account; of the API, a mobile client with a session token and an app key, or a page.

A page calls the API with its session and its CSRF token.
"""

from __future__ import annotations

import structlog
from allauth.account.adapter import get_adapter
from allauth.account.auth_backends import AuthenticationBackend
from allauth.headless.contrib.rest_framework.authentication import XSessionTokenAuthentication
from allauth.headless.tokens.strategies.sessions import SessionTokenStrategy
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, Throttled
from rest_framework.request import Request

from accounts import password_limits, sessions
from accounts.models import Profile, User

DEVELOPER = "developer@stefna.invalid"


class WithProfile(AuthenticationBackend):
    """Read the profile together with the account: every page asks for its language, and most for its name."""

    def get_user(self, user_id: int) -> User | None:
        user = User.objects.select_related("profile").filter(pk=user_id).first()
        return user if user and self.user_can_authenticate(user) else None


class AppSession(XSessionTokenAuthentication):
    """`Authorization: Bearer <session token>` or `X-Session-Token`, with one of the owner's app keys in `X-App-Key`."""

    def authenticate(self, request: Request) -> tuple[User, SessionBase] | None:
        token = self.get_session_token(request)
        if not token:
            return None
        check_app_key(request.headers.get("X-App-Key", ""))
        found = super().authenticate(request)
        if found is None:
            raise AuthenticationFailed(_("The session token is not valid, or not any more. Please sign in again."))
        user: User = found[0]
        # The owner's rights belong in the admin site, behind its own sign-in, and not in an app.
        if not user.is_active or user.is_staff or user.is_superuser:
            raise AuthenticationFailed(_("This account cannot be used in an app."))
        return user, found[1]

    def get_session_token(self, request: HttpRequest) -> str | None:
        return session_token(request)

    def authenticate_header(self, request: Request) -> str:
        # Without it DRF would answer 403 where 401 is meant.
        return 'Bearer realm="stefna"'


class PageSession(SessionAuthentication):
    """The session of the pages, with its CSRF token."""


class DeveloperWithoutSignIn(BaseAuthentication):
    """Signs every call in as one user, on a developer's own machine (`DEV_ALLOW_NOAUTH` with `DEBUG`)."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        if not (settings.DEBUG and settings.DEV_ALLOW_NOAUTH):
            return None
        user, _ = User.objects.get_or_create(email=DEVELOPER)
        Profile.objects.upsert(user)
        return user, None


class SessionTokens(SessionTokenStrategy):
    """Lets the sign-in endpoints read the token from the same two headers as the API."""

    def get_session_token(self, request: HttpRequest) -> str | None:
        return session_token(request)

    def create_session_token(self, request: HttpRequest) -> str:
        sessions.limit_lifetime(request.session)
        return super().create_session_token(request)


def session_token(request: HttpRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("X-Session-Token") or None


def check_app_key(given: str) -> None:
    """Compare with every configured key, in the same time whatever is given. Raises AuthenticationFailed."""
    known = [name for name, key in settings.APP_KEYS.items() if constant_time_compare(given, key)]
    if not given or not known:
        sentence = _("This app is not known here, or its key has been replaced.")
        raise AuthenticationFailed(sentence, code="app_key_invalid")
    structlog.contextvars.bind_contextvars(app=known[0])


class ReauthenticationRequired(NotAuthenticated):
    default_detail = gettext_lazy("Please confirm that it is you, or sign in again, and then repeat this.")
    default_code = "reauthentication_required"


def require_recent_sign_in(request: Request) -> None:
    """Raise ReauthenticationRequired unless the session has lately shown who it is. Guests have nothing to show.

    An app does so at `/_allauth/app/v1/auth/reauthenticate`, a page at its own.
    """
    user: User = request.user
    if user.is_guest or isinstance(request.successful_authenticator, DeveloperWithoutSignIn):
        return
    if not password_limits.is_recent(request.auth or request.session, user):
        raise ReauthenticationRequired


def check_password(request: Request, password: str) -> bool:
    """Compare a password with the account's, within the limits of signing in. Raises Throttled."""
    try:
        return bool(get_adapter().reauthenticate(request.user, password))
    except ValidationError as error:
        raise Throttled(detail=error.messages[0]) from error
