"""The pages. A view finds, checks, calls one service, answers."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from accounts import guests, limits
from accounts.exceptions import Refusal
from accounts.limits import Limit
from accounts.models import User
from generation import photos, services, showing
from generation.exceptions import GenerationError
from generation.forms import MOST_LOOKS, PhotoForm, StudioForm
from generation.models import MAX_SEED, Photo, Preset, Run, RunQuerySet
from generation.modes import BATCHES, Mode
from generation.photos import Upload
from notifications.emails import looks_at
from notifications.models import Notification

RECENT_PHOTOS = 4
MAX_VALUE_LENGTH = 50
STRENGTH_STEP = 0.15


@login_not_required
@never_cache
@require_safe
def studio(request: HttpRequest) -> HttpResponse:
    return guests.offer(request, _studio(request))


def _studio(request: HttpRequest, *, error: str = "", status: int = 200) -> HttpResponse:
    """Show the studio. The form's key is new each time, so what is sent from one page is accepted once."""
    chosen = request.POST or request.GET
    catalogue = list(Preset.objects.active().sound())
    # Where each one's tile lies on the sheet.
    tiles = [(preset, -number * showing.TILE_SIDE) for number, preset in enumerate(catalogue)]
    context = {
        "looks": [(preset, y) for preset, y in tiles if preset.mode == Mode.PRESET],
        "moods": [(preset, y) for preset, y in tiles if preset.mode == Mode.MOODMORPH],
        "modes": BATCHES.values(),
        "tile_side": showing.TILE_SIDE,
        "sheet_height": showing.TILE_SIDE * len(catalogue),
        "sheet": f"{reverse('preset_sheet')}?v={showing.sheet_version(catalogue)}",
        "categories": _categories(catalogue),
        "samples": photos.SAMPLES,
        "recent": _recent_photos(request),
        "max_bytes": settings.MAX_PHOTO_BYTES,
        "max_megabytes": photos.max_megabytes(),
        "photo": _photo_of(request, chosen.get("photo_id", "")),
        "picked": chosen.getlist("look")[:MOST_LOOKS] or ["express_enhance"],
        "takes_prompts": services.takes_prompts(),
        "prompt": chosen.get("prompt", ""),
        "sample": chosen.get("sample", ""),
        "most_looks": MOST_LOOKS,
        "key": uuid.uuid4(),
        "error": error,
    }
    return render(request, "generation/studio.html", context, status=status)


def _categories(presets: list[Preset]) -> list[tuple[str, Any]]:
    used = {preset.category for preset in presets if preset.mode == Mode.PRESET}
    return [(value, label) for value, label in Preset.Category.choices if value in used]


def _photo_of(request: HttpRequest, photo_id: str) -> Photo | None:
    try:
        pk = uuid.UUID(photo_id)
    except ValueError:
        return None
    return Photo.objects.for_user(request.user).filter(pk=pk).first() if request.user.is_authenticated else None


def _recent_photos(request: HttpRequest) -> list[Photo]:
    return list(Photo.objects.for_user(request.user)[:RECENT_PHOTOS]) if request.user.is_authenticated else []


@login_not_required
@require_POST
def sketch(request: HttpRequest) -> HttpResponseBase:
    """Show what every look would do to a photo: one line of JSON for each, as soon as it is there."""
    user = request.user if request.user.is_authenticated else None
    form = PhotoForm(request.POST, request.FILES)
    if not (user or settings.ALLOW_GUESTS) or not form.is_valid():
        return JsonResponse({}, status=403 if form.is_valid() else 400)
    made = showing.sketches(form.chosen_photo(user), list(Preset.objects.active().sound()))
    first = next(made, None)
    lines = _sketch_lines(itertools.chain([first] if first else [], made))
    return StreamingHttpResponse(lines, content_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"})


def _sketch_lines(made: Iterable[tuple[Preset, bytes]]) -> Iterator[str]:
    try:
        for preset, picture in made:
            address = f"data:image/webp;base64,{base64.b64encode(picture).decode()}"
            yield json.dumps({"look": preset.slug, "picture": address}) + "\n"
    except GenerationError:
        return  # the cards without a line go on showing the sample


@login_not_required
@require_POST
def create(request: HttpRequest) -> HttpResponse:
    """Accept a photo and a look, and lead to the run's page."""
    user = guests.account(request)
    if user is None and not guests.may_become(request):
        return _sign_in_first(request)
    form = StudioForm(request.POST, request.FILES)
    if not form.is_valid():
        return _refuse(request, " ".join(str(error) for errors in form.errors.values() for error in errors), 400)
    try:
        photo = _counted_photo(request, form, user)
        user = user or guests.become(request)
        page = _start(user, photo, form.cleaned_data)
    except Refusal as error:
        return _refuse(request, error.message, error.status, again=error.transient, headers=error.headers)
    guests.sign_in(request, user)
    return _go(request, page)


def _counted_photo(request: HttpRequest, form: StudioForm, user: User | None) -> Photo | Upload:
    """Return the photo that was chosen, and count what is asked of it. A visitor's photo is checked first of all."""
    photo = form.chosen_photo(user)
    if isinstance(photo, Upload):
        limits.hit(request, Limit.UPLOADS)
    limits.hit(request, Limit.RUNS, amount=form.number_of_runs)
    if user is None and isinstance(photo, Upload):
        photo.files  # noqa: B018  (it is kept, and raises what is wrong with the photo)
    return photo


def _start(user: User, photo: Photo | Upload, data: dict[str, Any]) -> HttpResponse:
    """Start what the form asks for, and lead to its page."""
    asked: dict[str, Any] = {"user": user, "photo": photo, "key": data["key"]}
    if data["mode"] or len(data["presets"]) > 1:
        runs = services.start_batch(mode=data["mode"], presets=data["presets"], **asked)
        return redirect("batch", runs[0].batch)
    asked |= {name: data[name] for name in ("prompt", "strength", "seed")}
    return redirect(services.start_run(preset=next(iter(data["presets"]), None), **asked))


def _sign_in_first(request: HttpRequest) -> HttpResponse:
    """Lead to signing in and back to the same studio; the page itself keeps a photo that is not stored here yet."""
    kept = [(name, value) for name in ("photo_id", "sample", "look") for value in _short_list(request, name)]
    studio = f"{reverse('studio')}?{urlencode(kept)}"
    return _go(request, redirect(f"{reverse('account_login')}?{urlencode({'next': studio})}"))


def _short_list(request: HttpRequest, name: str) -> list[str]:
    """Return the values of a field, of each as much as a form of ours can have: an address must not get too long."""
    return [value for value in request.POST.getlist(name)[:MOST_LOOKS] if value and len(value) <= MAX_VALUE_LENGTH]


def _refuse(
    request: HttpRequest, message: str, status: int, *, again: bool = False, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Put the sentence where the user is looking. With JavaScript only the sentence changes: the file stays chosen."""
    if request.htmx:  # type: ignore[attr-defined]
        response = render(request, "generation/_error.html", {"message": message, "again": again}, status=status)
    else:
        response = _studio(request, error=message, status=status)
    for name, value in (headers or {}).items():
        response[name] = value
    return response


def _go(request: HttpRequest, page: HttpResponse) -> HttpResponse:
    return HttpResponseClientRedirect(page["Location"]) if request.htmx else page  # type: ignore[attr-defined]


@require_safe
def run(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Show a run as its row says it is; htmx asks for the changing part alone until it has ended."""
    found = get_object_or_404(_runs(request), pk=pk)
    if not found.is_active:
        _seen(request, [found])
    context = {
        "run": found,
        "usual_seconds": round(showing.usual_ms().get(found.preset_slug, 0) / 1000),
        "steps": _steps(found),
        "key": uuid.uuid4(),
    }
    return _polled(request, "run", [found], context)


def _steps(run: Run) -> list[tuple[str, str]]:
    """Say of each stage whether it is over, under way or still to come."""
    stages = [Run.Phase.QUEUED, Run.Phase.GENERATING, Run.Phase.STORING]
    phase = Run.Phase.GENERATING if run.phase == Run.Phase.SUBMITTING else Run.Phase(run.phase)
    at = stages.index(phase) if phase in stages else len(stages)
    return [(str(stage.label), "over" if n < at else "now" if n == at else "next") for n, stage in enumerate(stages)]


@require_safe
def batch(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Show the runs of one click; one that was tried again stands in the place of the one it replaces."""
    runs = list(_runs(request).last_tries().filter(batch=pk).order_by("preset__position", "created_at"))
    if not runs:
        raise Http404
    _seen(request, [one for one in runs if not one.is_active], batch=pk)
    active = sum(one.is_active for one in runs)
    context: dict[str, Any] = {
        "runs": runs,
        "batch": pk,
        "photo": runs[0].photo,
        "mode": BATCHES.get(runs[0].mode),
        "active": active,
        "ended": len(runs) - active,
    }
    return _polled(request, "batch", runs, context)


def _polled(request: HttpRequest, name: str, runs: list[Run], context: dict[str, Any]) -> HttpResponse:
    """Answer a page, or htmx with the part of it that changes: and with 304 as long as that would be the same."""
    if any(one.is_active for one in runs):
        looks_at(runs[0].batch or runs[0].pk)
    poll_seconds = min((one.poll_after_ms or 5000) for one in runs) // 1000
    etag = hashlib.sha256("".join(one.etag for one in runs).encode()).hexdigest()[:32]
    context |= {"now": timezone.now(), "poll_seconds": poll_seconds, "etag": etag}
    part = request.htmx and not request.htmx.boosted  # type: ignore[attr-defined]
    if part and request.headers.get("If-None-Match") == f'"{etag}"':
        response = HttpResponse(status=304)
    else:
        response = render(request, f"generation/_{name}.html" if part else f"generation/{name}.html", context)
    if part and not any(one.is_active for one in runs):
        response["HX-Trigger"] = "ended"
    # Not even for going back: what the page showed then is not how it stands now.
    add_never_cache_headers(response)
    patch_vary_headers(response, ["HX-Request"])
    return response


def _runs(request: HttpRequest) -> RunQuerySet:
    return Run.objects.for_user(request.user).select_related("photo")  # type: ignore[arg-type]


def _seen(request: HttpRequest, runs: list[Run], batch: uuid.UUID | None = None) -> None:
    """Whoever looks at the result needs no news of it."""
    subjects = [one.pk for one in runs] + ([batch] if batch else [])
    news = Notification.objects.for_user(request.user).filter(subject__in=subjects)
    if news.unread().exists():
        news.mark_read()


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
        limits.hit(request, Limit.RUNS)
        return redirect(_page(services.retry_run(found)))
    except Refusal as error:
        messages.error(request, error.message)
        return redirect(_page(found))


@require_POST
def favourite(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = get_object_or_404(_runs(request), pk=pk)
    Run.objects.filter(pk=found.pk).update(favourite=not found.favourite)
    return redirect(found)


@require_POST
def vary(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask for the same picture once more: with another seed, or gentler, or bolder."""
    found = get_object_or_404(_runs(request), pk=pk)
    key = request.POST.get("key", "")[:255]
    known: dict[str, dict[str, Any]] = {
        # The same for the same click: twice is once.
        "seed": {"seed": random.Random(key).randint(1, MAX_SEED)},  # noqa: S311
        "gentler": {"strength": found.stronger(-STRENGTH_STEP)},
        "bolder": {"strength": found.stronger(STRENGTH_STEP)},
    }
    changes = known.get(request.POST.get("change", ""))
    if not changes:
        raise Http404
    try:
        limits.hit(request, Limit.RUNS)
        return redirect(services.vary_run(found, key=key, **changes))
    except Refusal as error:
        messages.error(request, error.message)
        return redirect(found)


def _page(run: Run) -> str:
    return run.get_batch_url() if run.batch else run.get_absolute_url()
