"""The pages of one's own account: what we know, taking it along, and the end of it."""

from __future__ import annotations

from allauth.account.decorators import reauthentication_required
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accounts import credentials, limits
from accounts.exceptions import Refusal
from accounts.forms import PictureForm, ProfileForm
from accounts.limits import Limit
from accounts.models import Profile, User
from generation import photos, services
from generation.exceptions import GenerationError, PhotoRequired
from generation.models import EXPORT_FAILED, Photo, Run
from notifications.models import Notification


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    mine = Profile.objects.upsert(_user(request))
    form = ProfileForm(request.POST or None, instance=mine)
    if request.method == "POST" and form.is_valid():
        form.instance.save(update_fields=form.changed_data)
        # In the language that was just chosen, like the page that comes next.
        translation.activate(mine.language or translation.get_language_from_request(request))
        messages.success(request, _("Your profile was saved."))
        return redirect("profile")
    return _page(request, mine, form)


def _page(
    request: HttpRequest, mine: Profile, form: ProfileForm, *, picture_error: str = "", status: int = 200
) -> HttpResponse:
    ways = list(Authenticator.objects.filter(user=mine.user).values_list("type", flat=True))
    context = {
        "form": form,
        "picture_form": PictureForm(),
        "picture_error": picture_error,
        # The picture's own name makes the address of a new one another than that of the old one.
        "picture": mine.avatar and f"{reverse('avatar', args=[mine.user_id])}?v={mine.avatar.name}",
        "max_megabytes": photos.max_megabytes(),
        "quota": services.quota(mine),
        "storage": services.storage(mine.user),
        "has_app": Authenticator.Type.TOTP in ways,
        # The session that the page is looked at in may not be noted yet.
        "devices": max(1, UserSession.objects.filter(user=mine.user).count()),
        "passkeys": ways.count(Authenticator.Type.WEBAUTHN),
    }
    return render(request, "accounts/profile.html", context, status=status)


@require_POST
def change_picture(request: HttpRequest) -> HttpResponse:
    mine = Profile.objects.upsert(_user(request))
    try:
        if "remove" in request.POST:
            services.change_avatar(mine, None)
        elif file := request.FILES.get("picture"):
            limits.hit(request, Limit.UPLOADS)
            services.change_avatar(mine, file)
        else:
            raise PhotoRequired
    except Refusal as error:
        mine.refresh_from_db()
        return _page(request, mine, ProfileForm(instance=mine), picture_error=error.message, status=error.status)
    messages.success(request, _("Your picture was changed."))
    return redirect("profile")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def export(request: HttpRequest) -> HttpResponse:
    """Show how far the user's export is; a form asks for one. htmx asks for the changing part alone."""
    if request.method == "POST":
        return _request_export(request)
    user = _user(request)
    latest = services.latest_export(user)
    if latest and latest.is_ready:
        Notification.objects.for_user(user).filter(subject=latest.pk).mark_read()
    context = {"export": latest, "export_failed": _(EXPORT_FAILED)}
    part = request.htmx and not request.htmx.boosted  # type: ignore[attr-defined]
    return render(request, "accounts/_export.html" if part else "accounts/export.html", context)


@reauthentication_required
def _request_export(request: HttpRequest) -> HttpResponse:
    try:
        services.request_export(_user(request))
    except GenerationError as error:
        messages.error(request, error.message)
    return redirect("export")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@reauthentication_required
def delete_account(request: HttpRequest) -> HttpResponse:
    """Say what is lost, and delete it. Whoever can prove who they are, by a password or otherwise, has just done so."""
    user = _user(request)
    if request.method == "POST":
        services.delete_account(user)
        logout(request)
        messages.success(request, _("Your account and everything in it was deleted."))
        return redirect("studio")
    lost = {"photos": Photo.objects.for_user(user).count(), "runs": Run.objects.for_user(user).count()}
    return render(request, "accounts/delete.html", lost)


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def undo_email_change(request: HttpRequest) -> HttpResponse:
    """Give an account its old address back, for who has the mail that was sent to it. A mail scanner only looks."""
    change = credentials.find_change(request.GET.get("key", ""))
    if change and request.method == "POST":
        if services.undo_email_change(change=change):
            logout(request)
            sentence = _("Your account has its old e-mail address again. Sign in with a code, and set a new password.")
            messages.success(request, sentence)
            return redirect("account_request_login_code")
        change = None
    return render(request, "account/undo_email_change.html", {"change": change}, status=200 if change else 404)


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # nobody anonymous gets here
    return request.user
