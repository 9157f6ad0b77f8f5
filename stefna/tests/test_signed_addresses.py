"""Picture addresses that work without signing in: for a few minutes, as the account and the row are now."""

import json
import re
import time

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts import credentials
from accounts.models import User
from accounts.tests.test_accounts import PASSWORD, submit
from generation import pictures, services
from generation.models import IdempotencyKey, Run
from stefna.tests.app import App
from stefna.tests.stage import just_signed_in

pytestmark = pytest.mark.django_db
APP = "/_allauth/app/v1"
LIST = reverse("admin:accounts_user_changelist")


@pytest.fixture
def run(start, work):
    made = start()
    work()
    made.refresh_from_db()
    return made


@pytest.fixture
def addresses(alices, run):
    """Every address that the API gives out, as a client gets them."""
    found = alices("get", f"runs/{run.pk}").json()
    result = found["result"]
    return [
        found["photo"]["url"],
        found["photo"]["thumbnail_url"],
        *(result[f"{one}url"] for one in ("", "thumbnail_", "download_")),
    ]


def statuses(urls):
    stranger = Client()
    return {stranger.get(url).status_code for url in urls}


def test_addresses_work_for_fifteen_minutes_at_most(addresses, time_machine):
    assert statuses(addresses) == {200}
    start = time.time()
    time_machine.move_to(start + 599)
    assert statuses(addresses) == {200}
    time_machine.move_to(start + 901)
    assert statuses(addresses) == {404}


def test_address_of_one_opens_no_other_and_no_later_one(addresses):
    url, query = addresses[0].split("?")
    assert statuses([url]) == {404}
    later = int(query.split("=")[1].split("&")[0]) + 9000
    assert statuses([f"{url}?expires={later}&{query.split('&')[1]}"]) == {404}
    assert statuses([f"{addresses[1].split('?')[0]}?{query}"]) == {404}
    for bad in ("", "x", "9" * 5000, "²", "-1"):
        assert statuses([f"{url}?expires={bad}&signature=x"]) == {404}


def test_addresses_end_when_the_account_is_switched_off(addresses, owner, alice):
    owner.post(LIST, {"action": "deactivate", "_selected_action": [alice.pk]})
    assert statuses(addresses) == {404}
    owner.post(LIST, {"action": "activate", "_selected_action": [alice.pk]})
    assert statuses(addresses) == {404}


def test_addresses_end_when_it_is_switched_off_on_its_own_page(addresses, owner, alice):
    sent = {"email": alice.email, "profile-TOTAL_FORMS": 0, "profile-INITIAL_FORMS": 0}
    assert owner.post(reverse("admin:accounts_user_change", args=[alice.pk]), sent).status_code == 302
    assert not User.objects.get(pk=alice.pk).is_active
    assert statuses(addresses) == {404}


def change_password_on_the_page(member, client):
    words = {"password1": "quite-another-one", "password2": "quite-another-one"}
    client.post(reverse("account_change_password"), words | {"oldpassword": PASSWORD})
    assert User.objects.get(pk=member.pk).check_password("quite-another-one")


def set_password_on_the_page(member, client):
    User.objects.filter(pk=member.pk).update(password="!")
    words = {"password1": "quite-another-one", "password2": "quite-another-one"}
    just_signed_in(User.objects.get(pk=member.pk)).post(reverse("account_set_password"), words)
    assert User.objects.get(pk=member.pk).check_password("quite-another-one")


def change_password_in_the_app(member, client):
    app = App(Client())
    app.sign("login", member.email, PASSWORD)
    sent = json.dumps({"current_password": PASSWORD, "new_password": "quite-another-one"})
    headers = {"X-Session-Token": app.token}
    client.post(f"{APP}/account/password/change", sent, content_type="application/json", headers=headers)
    assert User.objects.get(pk=member.pk).check_password("quite-another-one")


def reset_password_on_the_page(member, client):
    client.logout()
    client.post(reverse("account_reset_password"), {"email": member.email})
    form = client.get(re.search(r"http://testserver(/\S+/reset/key/\S+)", mail.outbox[-1].body)[1])
    client.post(form.url, {"password1": "quite-another-one", "password2": "quite-another-one"})
    assert User.objects.get(pk=member.pk).check_password("quite-another-one")


def change_address_on_the_page(member, client):
    client.post(reverse("account_email"), {"email": "new@example.com", "action_add": ""})
    client.post(re.search(r"http://testserver(/account/confirm-email/\S+)", mail.outbox[-1].body)[1])
    assert User.objects.get(pk=member.pk).email == "new@example.com"


def set_password_on_the_admin_site(member, client):
    words = {"password1": "quite-another-one", "password2": "quite-another-one", "usable_password": "true"}
    superuser = just_signed_in(User.objects.create_superuser("owner@example.com"))
    superuser.post(reverse("admin:auth_user_password_change", args=[member.pk]), words)
    assert User.objects.get(pk=member.pk).check_password("quite-another-one")


def change_address_on_the_admin_site(member, client):
    sent = {"email": "new@example.com", "is_active": "on", "profile-TOTAL_FORMS": 0, "profile-INITIAL_FORMS": 0}
    superuser = just_signed_in(User.objects.create_superuser("owner@example.com"))
    superuser.post(reverse("admin:accounts_user_change", args=[member.pk]), sent)
    assert User.objects.get(pk=member.pk).email == "new@example.com"


CHANGES = [
    change_password_on_the_page,
    set_password_on_the_page,
    change_password_in_the_app,
    reset_password_on_the_page,
    change_address_on_the_page,
    set_password_on_the_admin_site,
    change_address_on_the_admin_site,
]


@pytest.mark.parametrize("change", CHANGES)
def test_addresses_end_with_the_password_and_the_address_of_the_account(addresses, alice, change):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    assert statuses(addresses) == {200}
    change(alice, just_signed_in(alice))
    assert statuses(addresses) == {404}


def test_addresses_end_when_credentials_are_wiped(addresses, alice):
    credentials.wipe(user=alice, reason="test")
    assert statuses(addresses) == {404}


def test_addresses_of_what_is_in_the_trash_or_deleted_open_nothing(addresses, run):
    binned = services.bin_runs([run])
    assert statuses(addresses[2:]) == {404}
    services.restore_runs(run.user, binned)
    assert statuses(addresses[2:]) == {200}
    services.delete_photo(run.photo)
    assert statuses(addresses) == {404}


def test_poll_hands_out_addresses_that_work(alices, run, time_machine):
    first = alices("get", f"runs/{run.pk}")
    assert alices("get", f"runs/{run.pk}", **{"If-None-Match": first["ETag"]}).status_code in (200, 304)
    time_machine.move_to(pictures.window() + pictures.WINDOW_SECONDS + 1)
    again = alices("get", f"runs/{run.pk}", **{"If-None-Match": first["ETag"]})
    assert again.status_code == 200
    time_machine.move_to(time.time() + 590)
    assert statuses([again.json()["result"]["url"]]) == {200}


def test_replayed_answer_has_addresses_that_work(alices, photo, time_machine):
    sent = {"photo_id": str(photo.pk), "preset": "express_enhance", "key": "again"}
    first = alices.run(**sent)
    assert first.status_code == 202
    time_machine.move_to(time.time() + 1200)
    again = alices.run(**sent)
    assert (again.status_code, again["Idempotent-Replayed"]) == (202, "true")
    assert statuses([first.json()["photo"]["url"]]) == {404}
    assert statuses([again.json()["photo"]["url"]]) == {200}


@pytest.mark.parametrize("rows", [1, 4])
def test_list_asks_nothing_for_its_addresses(alices, start, work, rows, django_assert_max_num_queries):
    for _ in range(rows):
        start()
    work()
    with django_assert_max_num_queries(6):
        assert len(alices("get", "runs").json()["results"]) == rows


# -- Keys of requests -------------------------------------------------------------------------------------------------


def test_form_that_a_guest_sent_is_the_same_run_after_signing_in(client, alice, catalogue):
    key = client.get(reverse("studio")).context["key"]
    first = submit(client, key=key).url
    assert Run.objects.get().user.is_guest
    client.post(reverse("account_login"), {"login": alice.email, "password": PASSWORD})
    assert submit(client, key=key).url == first
    assert Run.objects.get().user == alice


def test_keys_of_a_guest_come_along_and_make_no_second_run(alice, preset, upload):
    guest = User.objects.guest("a" * 32)
    made = services.start_run(user=guest, photo=upload, preset=preset, key="mine")
    services.adopt_guest(guest=guest, user=alice)
    again = services.start_run(user=alice, photo=upload, preset=preset, key="mine")
    assert (again.pk, again.replayed, Run.objects.count()) == (made.pk, True, 1)


def test_key_that_the_account_has_used_itself_stays_its_own(alice, preset, upload):
    guest = User.objects.guest("a" * 32)
    theirs = services.start_run(user=guest, photo=upload, preset=preset, key="same", seed=1)
    own = services.start_run(user=alice, photo=upload, preset=preset, key="same", seed=2)
    services.adopt_guest(guest=guest, user=alice)
    again = services.start_run(user=alice, photo=upload, preset=preset, key="same", seed=2)
    assert (again.pk, IdempotencyKey.objects.count()) == (own.pk, 1)
    assert set(Run.objects.values_list("user", flat=True)) == {alice.pk}
    assert theirs.pk != own.pk
