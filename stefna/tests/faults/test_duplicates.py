"""The same thing asked for twice, or by many at once: rows I3 to I11 of docs/faults.md."""

import contextlib
import random
import threading
import time
from datetime import timedelta

import pytest
from django.core import mail
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from conftest import in_parallel, small
from generation import attempts, services
from generation.exceptions import NotCancellable
from generation.models import IdempotencyKey, Run
from generation.tests.test_services import provider  # noqa: F401  (a fixture)
from notifications.models import Notification
from stefna.tests.app import App, code
from stefna.tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.django_db
KEY = {"Idempotency-Key": "k"}


def file(name):
    return {"photo": SimpleUploadedFile(f"{name}.jpg", small(name))}


def test_same_key_with_another_photo_is_refused(alices, sent):
    assert alices.run(photo_id=sent["id"], preset="duotone", key="k").status_code == 202
    other = alices("post", "photos", files=file("coffee")).json()
    assert code(alices.run(photo_id=other["id"], preset="duotone", key="k")) == (422, "idempotency_key_reused")
    by_file = alices("post", "runs", {"preset": "duotone"}, files=file("coffee"), **KEY)
    assert code(by_file) == (422, "idempotency_key_reused")
    assert Run.objects.count() == 1
    # The same bytes are the same request, however they are sent.
    assert alices("post", "runs", {"preset": "duotone"}, files=file("portrait"), **KEY).status_code == 202
    assert Run.objects.count() == 1


def test_same_key_of_two_users_is_two_runs(alices, bobs):
    answers = [app("post", "runs", {"preset": "duotone"}, files=file("coffee"), **KEY) for app in (alices, bobs)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["id"] for answer in answers}) == Run.objects.count() == 2
    assert "Idempotent-Replayed" not in answers[1]


def test_key_older_than_a_day_makes_a_new_run_before_anything_is_swept(alices, sent):
    first = alices.run(photo_id=sent["id"], preset="duotone", key="k").json()
    for hours, is_new in ((23, False), (25, True)):
        IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=hours))
        answer = alices.run(photo_id=sent["id"], preset="duotone", key="k")
        assert (answer.status_code, answer.json()["id"] != first["id"]) == (202, is_new)
    # The new run has the key from now on.
    again = alices.run(photo_id=sent["id"], preset="duotone", key="k")
    assert (again.json()["id"], again["Idempotent-Replayed"]) == (answer.json()["id"], "true")


@pytest.mark.django_db(transaction=True)
def test_fifty_at_once_get_exactly_as_many_runs_as_may_be_active(alices, sent, settings):
    settings.MAX_ACTIVE_RUNS, settings.DAILY_RUN_LIMIT = 5, 0

    def post(number):
        return code(App(Client(), alices.token).run(photo_id=sent["id"], preset="duotone"))

    answers = in_parallel(50, post)
    assert sorted(answers) == [(202, "")] * 5 + [(429, "too_many_active_runs")] * 45
    assert Run.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_sixteen_sign_ups_at_once_are_answered_alike(settings):
    settings.ACCOUNT_RATE_LIMITS, settings.ACCOUNT_EMAIL_VERIFICATION = False, "mandatory"
    fields = {"email": "a@example.com", "password1": "a-good-long-password"}

    def sign_up(number):
        answer = Client().post(reverse("account_signup"), fields)
        return answer.status_code, answer.url

    answers = in_parallel(16, sign_up)
    assert set(answers) == {(302, reverse("account_email_verification_sent"))}
    assert User.objects.filter(email="a@example.com").count() == 1
    assert {message.to[0] for message in mail.outbox} == {"a@example.com"}


@pytest.mark.django_db(transaction=True)
def test_cancel_races_completion_200_times_and_one_of_them_wins(start, provider, settings):  # noqa: F811
    provider(*[small("coffee", 48)] * 200)
    settings.DAILY_RUN_LIMIT = settings.MAX_ACTIVE_RUNS = 0
    runs = [Run.objects.claim(start(seed=seed).pk, "w:1:x") for seed in range(1, 201)]
    together = [threading.Barrier(2) for _ in range(4)]
    took = [0.1] * 4

    def race(number):
        # Pairs side by side: the one works, the other changes their mind at some moment of that.
        pair = number // 2
        for run in runs[pair::4]:
            together[pair].wait(WAIT_SECONDS)
            started = time.monotonic()
            if number % 2:
                attempts.process_run(run)
                took[pair] = time.monotonic() - started
            else:
                time.sleep(random.uniform(0, took[pair]))
                with contextlib.suppress(NotCancellable):
                    services.cancel_run(Run.objects.get(pk=run.pk))

    assert in_parallel(8, race) == [None] * 8
    ended = list(Run.objects.values_list("pk", "status", "result"))
    assert {status for _, status, _ in ended} == {"succeeded", "cancelled"}
    for pk, status, result in ended:
        assert (status == "succeeded") == bool(result)
        assert Notification.objects.filter(subject=pk).count() == (status == "succeeded")
    pictures = (settings.MEDIA_ROOT / "results").rglob("*-1.jpg")
    assert {str(path.relative_to(settings.MEDIA_ROOT)) for path in pictures} == {name for *_, name in ended if name}
