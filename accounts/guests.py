"""Trying the product without an account: one guest per browser session, made when the first photo is sent."""

import uuid

from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse

from accounts.models import User

COOKIE = "guest"
SALT = "accounts.guest"


def offer(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Leave the visitor a signed key that a guest account can be made from.

    The key exists before the first form is sent, so a double click is two requests of one guest, not two guests;
    and no row is written for visitors who only look.
    """
    if settings.ALLOW_GUESTS and not request.user.is_authenticated and not _key(request):
        response.set_signed_cookie(
            COOKIE,
            uuid.uuid4().hex,
            salt=SALT,
            httponly=True,
            samesite="Lax",
            secure=settings.SESSION_COOKIE_SECURE,
        )
    return response


def account(request: HttpRequest) -> User | None:
    """Return who sends this request: the account that is signed in, else the visitor's guest account, else None."""
    if isinstance(request.user, User):
        return request.user
    key = _key(request)
    if not (settings.ALLOW_GUESTS and key):
        return None
    guest = User.objects.guest(key)
    return guest if guest.is_active else None


def sign_in(request: HttpRequest, guest: User) -> None:
    """Sign the visitor in as their guest, once there is something of theirs to come back to.

    Not sooner: signing in changes the form's CSRF token, and a form that was refused must be able to be sent again.
    """
    if not request.user.is_authenticated:
        login(request, guest, backend=settings.AUTHENTICATION_BACKENDS[0])


def _key(request: HttpRequest) -> str:
    return request.get_signed_cookie(COOKIE, default="", salt=SALT) or ""
