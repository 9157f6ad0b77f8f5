"""The pages. A view finds, checks, calls one service, answers."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from accounts import guests
from generation import photos, services
from generation.exceptions import GenerationError
from generation.forms import StudioForm
from generation.models import Photo, Preset, Run, RunQuerySet
from generation.modes import BATCHES, Mode
from notifications.models import Notification

HISTORY_PAGE_SIZE = 24


@login_not_required
@never_cache
@require_safe
def studio(request: HttpRequest) -> HttpResponse:
    return guests.offer(request, _studio(request))


def _studio(request: HttpRequest, *, error: str = "", status: int = 200) -> HttpResponse:
    """Show the studio. The form's key is new each time, so what is sent from one page is accepted once."""
    chosen = request.POST or request.GET
    presets = Preset.objects.active().looks()
    context = {
        "presets": presets,
        "modes": BATCHES.values(),
        "samples": photos.SAMPLES,
        "max_bytes": settings.MAX_PHOTO_BYTES,
        "max_megabytes": photos.max_megabytes(),
        "photo": _photo_of(request, chosen.get("photo_id", "")),
        "look": chosen.get("look") or "express_enhance",
        "sample": chosen.get("sample", ""),
        "strength": chosen.get("strength", ""),
        "key": uuid.uuid4(),
        "error": error,
    }
    return render(request, "generation/studio.html", context, status=status)


def _photo_of(request: HttpRequest, photo_id: str) -> Photo | None:
    try:
        pk = uuid.UUID(photo_id)
    except ValueError:
        return None
    return Photo.objects.for_user(request.user).filter(pk=pk).first() if request.user.is_authenticated else None


@login_not_required
@require_POST
def create(request: HttpRequest) -> HttpResponse:
    """Accept a photo and a look, and lead to the run's page."""
    user = guests.account(request)
    if user is None:
        return _go(request, redirect("account_login"))
    form = StudioForm(request.POST, request.FILES)
    if not form.is_valid():
        return _refuse(request, " ".join(str(error) for errors in form.errors.values() for error in errors), 400)
    look, key = form.cleaned_data["look"], form.cleaned_data["key"]
    try:
        photo = form.chosen_photo(user)
        if isinstance(look, Preset):
            run = services.start_run(
                user=user,
                photo=photo,
                preset=look,
                strength=form.cleaned_data["strength"],
                seed=form.cleaned_data["seed"],
                key=key,
            )
            page = redirect(run)
        else:
            runs = services.start_batch(user=user, photo=photo, mode=Mode(look), key=key)
            page = redirect("batch", runs[0].batch)
    except GenerationError as error:
        return _refuse(request, error.message, error.status)
    guests.sign_in(request, user)
    return _go(request, page)


def _refuse(request: HttpRequest, message: str, status: int) -> HttpResponse:
    """Put the sentence where the user is looking. With JavaScript only the sentence changes: the file stays chosen."""
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "generation/_error.html", {"message": message}, status=status)
    return _studio(request, error=message, status=status)


def _go(request: HttpRequest, page: HttpResponse) -> HttpResponse:
    return HttpResponseClientRedirect(page["Location"]) if request.htmx else page  # type: ignore[attr-defined]


@never_cache
@require_safe
def run(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Show a run as its row says it is; htmx asks for the changing part alone until it has ended."""
    found = get_object_or_404(_runs(request), pk=pk)
    if not found.is_active:
        _seen(request, [found])
    template = "generation/_run.html" if request.htmx else "generation/run.html"  # type: ignore[attr-defined]
    return render(request, template, {"run": found, "now": timezone.now(), "poll_seconds": _poll_seconds([found])})


@never_cache
@require_safe
def batch(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Show the runs of one click; one that was tried again stands in the place of the one it replaces."""
    runs = list(_runs(request).filter(batch=pk, retried_by=None).order_by("preset__position", "created_at"))
    if not runs:
        raise Http404
    _seen(request, [one for one in runs if not one.is_active], batch=pk)
    context: dict[str, Any] = {
        "runs": runs,
        "batch": pk,
        "mode": BATCHES.get(runs[0].mode),
        "active": any(one.is_active for one in runs),
        "poll_seconds": _poll_seconds(runs),
    }
    template = "generation/_batch.html" if request.htmx else "generation/batch.html"  # type: ignore[attr-defined]
    return render(request, template, context)


def _runs(request: HttpRequest) -> RunQuerySet:
    return Run.objects.for_user(request.user).select_related("photo")  # type: ignore[arg-type]


def _seen(request: HttpRequest, runs: list[Run], batch: uuid.UUID | None = None) -> None:
    """Whoever looks at the result needs no news of it."""
    subjects = [one.pk for one in runs] + ([batch] if batch else [])
    news = Notification.objects.for_user(request.user).filter(subject__in=subjects)
    if news.unread().exists():
        news.mark_read()


def _poll_seconds(runs: list[Run]) -> int:
    return min((one.poll_after_ms or 5000) for one in runs) // 1000


@require_POST
def cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = get_object_or_404(_runs(request), pk=pk)
    try:
        services.cancel_run(found)
    except GenerationError as error:
        messages.info(request, error.message)
    return redirect(_page(found))


@require_POST
def retry(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = get_object_or_404(_runs(request), pk=pk)
    try:
        return redirect(_page(services.retry_run(found)))
    except GenerationError as error:
        messages.error(request, error.message)
        return redirect(_page(found))


@require_POST
def favourite(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = get_object_or_404(_runs(request), pk=pk)
    Run.objects.filter(pk=found.pk).update(favourite=not found.favourite)
    return redirect(found)


@require_POST
def delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    services.delete_run(get_object_or_404(_runs(request), pk=pk))
    messages.success(request, "The picture was deleted.")
    return redirect("history")


def _page(run: Run) -> str:
    return run.get_batch_url() if run.batch else run.get_absolute_url()


@require_safe
def history(request: HttpRequest) -> HttpResponse:
    runs = _runs(request).filter(retried_by=None)
    status = request.GET.get("status", "")
    if status in Run.Status.values:
        runs = runs.filter(status=status)
    elif status == "favourite":
        runs = runs.filter(favourite=True)
    page = Paginator(runs, HISTORY_PAGE_SIZE).get_page(request.GET.get("page"))
    filters = [("", "All"), ("favourite", "Favourites"), ("succeeded", "Done"), ("failed", "Failed")]
    return render(request, "generation/history.html", {"page": page, "status": status, "filters": filters})
