from __future__ import annotations

import uuid

from django.contrib.auth.decorators import login_not_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Profile
from notifications import emails
from notifications.models import Notification

PAGE_SIZE = 30


@never_cache
@require_safe
def notification_list(request: HttpRequest) -> HttpResponse:
    """Show the news. Each links to what it is about, and showing that is what marks it as read."""
    page = Paginator(Notification.objects.for_user(request.user), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "notifications/list.html", {"page": page})


@require_POST
def mark_all_read(request: HttpRequest) -> HttpResponse:
    Notification.objects.for_user(request.user).mark_read()
    return redirect("notification_list")


@require_POST
def mark_read(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    mine = Notification.objects.for_user(request.user).filter(pk=pk)
    get_object_or_404(mine)
    mine.mark_read()
    page = request.POST.get("page", "")
    return redirect(reverse("notification_list") + (f"?page={page}" if page.isdecimal() and page != "1" else ""))


# The link in a mail is the permission: mail programs post to it by themselves, without a cookie or a form of ours.
@csrf_exempt
@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def switch_off(request: HttpRequest, token: str) -> HttpResponse:
    """Switch e-mails off for whom the link was made. Opening it only asks: programs open links to look at them."""
    profile = emails.profile_of(token)
    if profile is None:
        raise Http404
    if request.method == "POST":
        Profile.objects.filter(pk=profile.pk).update(email_notifications=False)
        profile.email_notifications = False
    return render(request, "notifications/off.html", {"on": profile.email_notifications})
