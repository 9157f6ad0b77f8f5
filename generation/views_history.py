"""The history: what was made, shown, filtered, picked out, taken away and brought back."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from generation import services
from generation.models import Preset, Run, RunQuerySet

PAGE_SIZE = 24
MAX_SELECTED = 500


@never_cache
@require_safe
def history(request: HttpRequest) -> HttpResponse:
    runs = _mine(request).last_tries().select_related("photo")
    status, preset = request.GET.get("status", ""), request.GET.get("preset", "")
    if status in Run.Status.values:
        runs = runs.filter(status=status)
    elif status == "favourite":
        runs = runs.filter(favourite=True)
    if preset:
        runs = runs.filter(preset_slug=preset)
    if before := request.GET.get("before"):
        runs = runs.older_than(_last_shown(request, before))
    page = list(runs[: PAGE_SIZE + 1])
    context = {
        "page": page[:PAGE_SIZE],
        "more": len(page) > PAGE_SIZE,
        "status": status,
        "preset": preset,
        "presets": Preset.objects.values_list("slug", "name"),
        "filters": [("", _("All")), ("favourite", _("Favourites")), ("succeeded", _("Done")), ("failed", _("Failed"))],
        "filter_query": urlencode({"status": status, "preset": preset}),
    }
    part = request.htmx and before  # type: ignore[attr-defined]
    return render(request, "generation/_history.html" if part else "generation/history.html", context)


def _last_shown(request: HttpRequest, key: str) -> Run:
    """Return the run that a page ended with, which may be taken away by now."""
    try:
        return get_object_or_404(Run, user=request.user, pk=key)
    except ValidationError:
        raise Http404 from None


@never_cache
@require_safe
def activity(request: HttpRequest) -> HttpResponse:
    """Show the dot of the header anew: how many runs are under way, and how many news are unread."""
    return render(request, "_activity.html")


@require_POST
def delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    get_object_or_404(_mine(request), pk=pk)
    return _bin(request, _mine(request).filter(pk=pk))


@require_POST
def change_selected(request: HttpRequest) -> HttpResponse:
    """Do one thing to every picture that is ticked in the history."""
    selected = request.POST.getlist("run")
    if len(selected) > MAX_SELECTED:
        messages.error(request, _("Select up to %(count)d pictures at once, please.") % {"count": MAX_SELECTED})
        return redirect(_back(request))
    try:
        runs = forms.ModelMultipleChoiceField(_mine(request), required=False).clean(selected)
    except forms.ValidationError:
        raise Http404 from None
    if not runs:
        messages.info(request, _("Nothing was selected."))
    elif "delete" in request.POST:
        return _bin(request, runs)
    else:
        runs.update(favourite="favourite" in request.POST)
    return redirect(_back(request))


def _bin(request: HttpRequest, runs: QuerySet[Run]) -> HttpResponse:
    count = runs.count()
    moment = services.bin_runs(runs)
    sentence = ngettext("The picture was deleted.", "%(count)d pictures were deleted.", count) % {"count": count}
    messages.success(request, sentence, extra_tags=f"undo {moment.isoformat()}")
    return redirect(_back(request))


@require_POST
def restore(request: HttpRequest) -> HttpResponse:
    """Undo a deletion, which is known by its moment."""
    try:
        moment = datetime.fromisoformat(request.POST.get("moment", "")).astimezone(UTC)
        if timezone.now() - moment > timedelta(days=1):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise Http404 from None
    count = services.restore_runs(request.user, moment)  # type: ignore[arg-type]
    if count:
        messages.success(request, ngettext("The picture is back.", "The pictures are back.", count))
    else:
        messages.error(request, _("It is too late to undo that."))
    return redirect("history")


def _back(request: HttpRequest) -> str:
    """Return the history as it was filtered."""
    return f"{reverse('history')}?{request.POST.get('filters', '')}"


def _mine(request: HttpRequest) -> RunQuerySet:
    return Run.objects.for_user(request.user)  # type: ignore[arg-type]
