"""What changes while a run is on its way: rows L1 to L9 of docs/faults.md."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Profile, User
from conftest import small
from generation import services, tasks
from generation.models import Preset, Run
from generation.tests.test_services import provider  # noqa: F401  (a fixture)
from notifications.models import Notification
from stefna.tests.app import App, code

pytestmark = pytest.mark.django_db


def another_session():
    app = App(Client())
    app.sign("login", "alice@example.com", "a-password-of-alice")
    return app


def test_token_that_expires_in_mid_run_leaves_the_run_as_it_is(alices, sent, work):
    run = alices.run(photo_id=sent["id"], preset="duotone").json()
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert alices("get", f"runs/{run['id']}").status_code == 401
    work()
    alices.token = None
    alices.sign("login", "alice@example.com", "a-password-of-alice")
    assert alices("get", f"runs/{run['id']}").json()["status"] == "succeeded"


def test_account_deleted_while_its_run_is_made_leaves_nothing(
    alices,
    alice,
    sent,
    provider,  # noqa: F811
    settings,
    django_capture_on_commit_callbacks,
):
    page, app = Client(), another_session()
    page.force_login(alice)
    run = Run.objects.get(pk=alices.run(photo_id=sent["id"], preset="duotone").json()["id"])

    def answer(request):
        services.delete_account(User.objects.get(pk=alice.pk))
        return small("coffee")

    provider(answer)
    with django_capture_on_commit_callbacks(execute=True):
        assert tasks.process(run.pk)
    assert not Run.objects.exists()
    assert not Notification.objects.exists()
    assert [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()] == []
    assert [one("get", "profile").status_code for one in (alices, app)] == [401, 401]
    assert page.get(reverse("profile")).url.startswith(reverse("account_login"))


def test_account_switched_off_while_its_run_is_made_keeps_the_picture(alices, alice, sent, provider):  # noqa: F811
    run = Run.objects.get(pk=alices.run(photo_id=sent["id"], preset="duotone").json()["id"])

    def answer(request):
        User.objects.filter(pk=alice.pk).update(is_active=False)
        return small("coffee")

    provider(answer)
    tasks.process(run.pk)
    run.refresh_from_db()
    assert (run.status, run.result.storage.exists(run.result.name)) == ("succeeded", True)
    assert Notification.objects.filter(subject=run.pk).count() == 1
    assert code(alices.run(photo_id=sent["id"], preset="vivid_pop"))[0] == 401
    assert Run.objects.count() == 1


@pytest.mark.parametrize("change", ["deleted", "edited"])
def test_preset_changed_meanwhile_changes_no_run(alices, alice, sent, provider, change):  # noqa: F811
    preset = Preset.objects.get(slug="duotone")
    accepted = Run.objects.get(pk=alices.run(photo_id=sent["id"], preset="duotone").json()["id"])
    if change == "deleted":
        preset.delete()
    else:
        Preset.objects.update(name="Other", tag="Other", prompt="other", strength=0.1, recipe=[])
    made = []
    provider(lambda request: made.append(request) or small("coffee"))
    tasks.process(accepted.pk)
    (request,) = made
    was = (preset.prompt, preset.negative_prompt, preset.strength, preset.recipe)
    assert (request.prompt, request.negative_prompt, request.strength, request.recipe) == was
    (listed,) = alices("get", "runs").json()["results"]
    assert (listed["preset"]["slug"], listed["preset"]["name"]) == ("duotone", "Duotone")
    page = Client()
    page.force_login(alice)
    assert "Duotone" in page.get(reverse("history")).content.decode()


def test_profile_that_is_gone_is_made_again_and_that_is_logged(alices, sent, caplog):
    Profile.objects.all().delete()
    assert alices.run(photo_id=sent["id"], preset="duotone").status_code == 202
    assert Profile.objects.get().user.email == "alice@example.com"
    assert caplog.text.count("profile_missing") == 1


def test_account_that_is_new_is_not_logged_as_one_without_a_profile(caplog):
    User.objects.create_user("new@example.com")
    assert "profile_missing" not in caplog.text


def test_news_of_somebody_without_a_profile_are_empty_and_no_error(alices, alice):
    Profile.objects.all().delete()
    answer = alices("get", "notifications")
    said = answer.json()
    assert (answer.status_code, said["results"], said["unread_count"], said["profile_ready"]) == (200, [], 0, False)
    page = Client()
    page.force_login(alice)
    for name in ("notification_list", "studio"):
        assert page.get(reverse(name)).status_code == 200
