from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from notifications.models import Notification

PAGE_SIZE = 30


@require_safe
def notification_list(request: HttpRequest) -> HttpResponse:
    page = Paginator(Notification.objects.for_user(request.user), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "notifications/list.html", {"page": page})


@require_POST
def mark_all_read(request: HttpRequest) -> HttpResponse:
    Notification.objects.for_user(request.user).mark_read()
    return redirect("notification_list")


@require_POST
def open_notification(request: HttpRequest, pk: str) -> HttpResponse:
    """Mark one as read and go to what it is about."""
    mine = Notification.objects.for_user(request.user).filter(pk=pk)
    notification = get_object_or_404(mine)
    mine.mark_read()
    return redirect(notification.url)
