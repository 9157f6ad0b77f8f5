"""What has happened before a test begins: people, and runs in every state, made in an installation by its own code.

`Server.call` names these functions. They run in a process of the installation, which `listen` keeps open: starting
Django for each would take longer than the tests do.
"""

import json
import sys
import time
import traceback
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.models import Profile, User
from generation import photos, services, sweep, tasks
from generation.models import IdempotencyKey, Photo, Preset, Run
from generation.modes import BATCHES, Mode
from notifications.models import Notification
from stefna import problems

LOOKS = ["express_enhance", "noir_classic", "vivid_pop", "duotone"]
SAMPLES = ["portrait", "landscape", "coffee"]


def listen() -> None:
    """Answer one line of JSON with one, as long as somebody asks."""
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"answer": globals()[name](**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def member(password: str = "", owner: bool = False) -> dict[str, str]:
    """Make somebody with an account, or the owner, who is signed in by a cookie."""
    email = f"alma.{uuid.uuid4().hex[:12]}@example.com"
    make = User.objects.create_superuser if owner else User.objects.create_user
    user = make(email, password or None)
    Profile.objects.filter(user=user).update(display_name="Alma")
    cookie = just_signed_in(user).cookies[settings.SESSION_COOKIE_NAME].value
    return {"email": email, "session": cookie, "cookie": settings.SESSION_COOKIE_NAME}


def just_signed_in(user: User) -> Client:
    """Return the browser of somebody who has just said who they are: the pages that ask do not ask again."""
    client = Client()
    client.force_login(user)
    session = client.session
    session["account_authentication_methods"] = [{"method": "password", "at": time.time(), "reauthenticated": True}]
    session["account_authentication_methods_user"] = str(user.pk)
    session.save()
    return client


def run(email: str, state: str = "succeeded", look: str = LOOKS[0], sample: str = SAMPLES[0]) -> str:
    """Make a run that stands somewhere, and return the address of its page."""
    user = User.objects.get(email=email)
    preset = Preset.objects.get(slug=look)
    made = services.start_run(
        user=user, photo=photos.accept(user, photos.Upload.sample(sample)), preset=preset, key=uuid.uuid4().hex
    )
    bring(made, state)
    return made.get_absolute_url()


def batch(email: str, states: Iterable[str] = ("succeeded",) * 3, looks: Iterable[str] = ()) -> str:
    """Make the runs of one click, MoodMorph's or those of some looks, and return the address of their page."""
    presets = [Preset.objects.get(slug=look) for look in looks]
    runs = services.start_batch(
        user=User.objects.get(email=email),
        photo=photos.Upload.sample(SAMPLES[0]),
        mode=None if presets else Mode(next(iter(BATCHES))),
        presets=presets,
        key=uuid.uuid4().hex,
    )
    for made, state in zip(runs, states, strict=True):
        bring(made, state)
    return runs[0].get_batch_url()


def bring(made: Run, state: str) -> None:
    """Bring a waiting run into a state."""
    row = Run.objects.filter(pk=made.pk, status=Run.Status.QUEUED)
    if state == "succeeded":
        tasks.process(made.pk)
    elif state == "failed":
        row.update(recipe=None)
        tasks.process(made.pk)
    elif state == "cancelled":
        services.cancel_run(made)
    elif state == "running":
        hour = timezone.now() + timedelta(hours=1)
        row.update(status=state, phase=Run.Phase.GENERATING, attempts=1, leased_until=hour, worker="stage")


def rows(email: str) -> list[int]:
    """Count somebody's photos, runs and keys of requests."""
    return [model.objects.filter(user__email=email).count() for model in (Photo, Run, IdempotencyKey)]


def ended() -> list[list[Any]]:
    """Tell of each run its status, its attempts and how often its user was told."""
    runs = Run.objects.values_list("status", "attempts", "pk")
    return [[status, attempts, Notification.objects.filter(subject=pk).count()] for status, attempts, pk in runs]


def results() -> list[str]:
    """Name the pictures that were made, of those that can be read."""
    return [run.result.name for run in Run.objects.exclude(result="") if run.result.storage.exists(run.result.name)]


def clean_up() -> dict[str, int]:
    return sweep.clean_up()


def rename(email: str, words: str) -> None:
    """Let all that somebody has be called something, and all that went wrong be said by it."""
    Profile.objects.filter(user__email=email).update(display_name=words)
    Run.objects.filter(user__email=email).update(preset_name=words, error_message=words)
    Notification.objects.filter(user__email=email).update(message=words)


def many(email: str, number: int) -> None:
    """Fill a history: a few pictures that were really made, and copies of their rows."""
    kinds = [(look, SAMPLES[at % len(SAMPLES)]) for at, look in enumerate(LOOKS)]
    for look, sample in kinds:
        run(email, look=look, sample=sample)
    made = list(Run.objects.filter(user__email=email))
    copies = []
    for at in range(number - len(made)):
        copy = Run.objects.get(pk=made[at % len(made)].pk)
        copy.pk, copy.created_at = uuid.uuid4(), copy.created_at - timedelta(hours=at + 1)
        copies.append(copy)
    Run.objects.bulk_create(copies)


def work(path: str) -> None:
    """Make what is waiting on a run's or a batch's page."""
    for waiting in _runs(path).filter(status=Run.Status.QUEUED):
        tasks.process(waiting.pk)


def advance(path: str) -> None:
    """Let a running run get to its last phase."""
    _runs(path).filter(status=Run.Status.RUNNING).update(phase=Run.Phase.STORING)


def spoil(path: str, look: str) -> None:
    """Take away what the waiting run of a look would be made with, so that it fails."""
    _runs(path).filter(status=Run.Status.QUEUED, preset_slug=look).update(recipe=None)


def mend(path: str) -> None:
    for spoiled in _runs(path).filter(status=Run.Status.QUEUED):
        Run.objects.filter(pk=spoiled.pk).update(recipe=Preset.objects.get(slug=spoiled.preset_slug).recipe)


def facts(path: str) -> list[dict[str, object]]:
    """Say what all runs of the owner of a page were made from, the oldest first."""
    owner = _runs(path)[0].user
    rows = Run.objects.for_user(owner).order_by("created_at", "preset_slug")
    return [
        {"look": one.preset_slug, "strength": one.strength, "seed": one.seed, "photo": str(one.photo_id)}
        for one in rows
    ]


def _runs(path: str):
    kind, pk = path.strip("/").split("/")[-2:]
    return Run.objects.filter(batch=pk) if kind == "batches" else Run.objects.filter(pk=pk)


def error_page(status: int) -> str:
    """Return the page that a visitor sees when something is wrong."""
    request = RequestFactory().get("/broken")
    request.user = AnonymousUser()
    if status == 413:
        return render_to_string("error.html", {"message": photos.too_large().message}, request)
    if status in (500, 503):
        return render_to_string(f"{status}.html", {"request_id": "0123456789abcdef"})
    handler = {400: problems.bad_request, 403: problems.permission_denied, 404: problems.page_not_found}[status]
    return handler(request, Exception()).content.decode()
