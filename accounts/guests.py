"""Trying the product without an account: one guest per browser session, made when the first photo is sent."""

import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from accounts import limits
from accounts.limits import Limit
from accounts.models import User

COOKIE = "guest"
SALT = "accounts.guest"
PAGES_OF_ALLAUTH = ("account_", "mfa_", "socialaccount_", "usersessions_", "google_", "apple_", "admin:login")


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
    key = _key(request) if settings.ALLOW_GUESTS else ""
    return User.objects.filter(guest_key=key, is_active=True).first() if key else None


def may_become(request: HttpRequest) -> bool:
    """Say whether a visitor without an account may be given a guest account."""
    key = _key(request)
    return settings.ALLOW_GUESTS and bool(key) and not User.objects.filter(guest_key=key).exists()


def become(request: HttpRequest) -> User:
    """Give a visitor a guest account. Raises LimitReached.

    Call it when their photo has been checked: nobody gets an account for a photo that cannot be used.
    """
    limits.hit(request, Limit.GUESTS)
    return User.objects.guest(_key(request))


def sign_in(request: HttpRequest, guest: User) -> None:
    """Sign the visitor in as their guest, once there is something of theirs to come back to.

    Not sooner: signing in changes the form's CSRF token, and a form that was refused must be able to be sent again.
    """
    if not request.user.is_authenticated:
        login(request, guest, backend=settings.AUTHENTICATION_BACKENDS[0])


def _key(request: HttpRequest) -> str:
    return request.get_signed_cookie(COOKIE, default="", salt=SALT) or ""


class VisitorsAtTheDoor:
    """On the pages of signing in and up a guest is a visitor; the pages of an account are not for guests.

    allauth knows members and strangers, and sends everybody who is signed in away from its door.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        match = request.resolver_match
        if not match or not f"{match.view_name}".startswith(PAGES_OF_ALLAUTH):
            return None
        user = request.user
        if not isinstance(user, User) or not user.is_guest:
            return None
        if getattr(view, "login_required", True):
            return redirect("account_signup")
        request.guest = user  # type: ignore[attr-defined]
        request.user = AnonymousUser()
        return None


def at_the_door(request: HttpRequest) -> User | None:
    """Return the guest whom VisitorsAtTheDoor made a visitor for this request."""
    return getattr(request, "guest", None)
