import pytest
from django.core import management
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from accounts import guests
from accounts.models import Profile, User
from conftest import in_parallel
from generation.models import Run

pytestmark = pytest.mark.django_db
PASSWORD = "a-password-of-alice"


def submit(client, **fields):
    """Send the studio's form as the page has it."""
    page = client.get(reverse("studio"))
    return client.post(
        reverse("create"), {"key": page.context["key"], "sample": "coffee", "look": "express_enhance"} | fields
    )


def test_address_is_one_whatever_its_case(alice):
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.bulk_create([User(email="ALICE@example.com")])
    assert User.objects.get_by_natural_key("Alice@Example.com") == alice


def test_account_needs_an_address_or_a_guests_key():
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("")


def test_profile_is_made_with_the_account_and_overwrites_nothing(alice):
    assert alice.profile.display_name == "alice"
    Profile.objects.filter(user=alice).update(display_name="Alice L.")
    alice.save()
    alice.refresh_from_db()
    assert alice.profile.display_name == "Alice L."


def test_signing_in_and_fixtures_make_no_profile(alice, tmp_path):
    Profile.objects.all().delete()
    alice.save(update_fields=["last_login"])
    fixture = tmp_path / "users.json"
    with fixture.open("w") as out:
        management.call_command("dumpdata", "accounts.user", stdout=out)
    management.call_command("loaddata", fixture, verbosity=0)
    assert not Profile.objects.exists()


def test_profile_deleted_by_hand_is_made_again(client, alice):
    client.force_login(alice)
    Profile.objects.all().delete()
    assert client.get(reverse("profile")).status_code == 200
    assert Profile.objects.filter(user=alice).exists()


def test_profile_page_saves_what_is_sent(client, alice):
    client.force_login(alice)
    answer = client.post(reverse("profile"), {"display_name": "<b>Al</b>"}, follow=True)
    assert Profile.objects.get(user=alice).display_name == "<b>Al</b>"
    assert b"<b>Al</b>" not in answer.content


def test_looking_writes_no_guest_and_sending_writes_one(client, catalogue):
    client.get(reverse("studio"))
    assert not User.objects.exists()
    answer = submit(client)
    run = Run.objects.get()
    assert answer.url == reverse("run", args=[run.pk])
    assert run.user.is_guest
    assert client.get(answer.url).status_code == 200
    submit(client)
    assert User.objects.count() == 1


def test_refused_first_photo_can_be_sent_again_from_the_same_page(catalogue):
    client = Client(enforce_csrf_checks=True)
    page = client.get(reverse("studio"))
    fields = {"key": page.context["key"], "look": "express_enhance", "csrfmiddlewaretoken": page.context["csrf_token"]}
    assert client.post(reverse("create"), fields, headers={"HX-Request": "true"}).status_code == 400
    answer = client.post(reverse("create"), fields | {"sample": "coffee"}, headers={"HX-Request": "true"})
    assert answer["HX-Redirect"] == reverse("run", args=[Run.objects.get().pk])


def test_guest_becomes_the_account_that_signs_up(client, catalogue):
    submit(client)
    answer = client.post(reverse("account_signup"), {"email": "New@example.com", "password1": PASSWORD})
    assert answer.status_code == 302
    user = User.objects.get()
    assert (user.email, user.is_guest, user.profile.display_name) == ("new@example.com", False, "new")
    assert Run.objects.get().user == user
    assert client.get(reverse("history")).context["page"][0].user == user


def test_guest_that_signs_in_keeps_everything(client, alice, catalogue):
    submit(client)
    client.post(reverse("account_login"), {"login": "alice@example.com", "password": PASSWORD})
    assert Run.objects.get().user == alice
    assert User.objects.get() == alice


def test_without_guests_the_visitor_is_asked_to_sign_in(client, catalogue, settings):
    settings.ALLOW_GUESTS = False
    back = "?next=%2F%3Fsample%3Dcoffee%26look%3Dexpress_enhance"
    assert submit(client).url == reverse("account_login") + back
    assert guests.COOKIE not in client.cookies


def test_forged_guest_key_is_ignored(client, catalogue):
    User.objects.guest("somebody")
    client.cookies[guests.COOKIE] = "somebody"
    submit(client)
    assert User.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_double_click_of_a_first_visitor_is_one_guest_and_one_run(catalogue):
    client = Client()
    page = client.get(reverse("studio"))
    fields = {"key": page.context["key"], "sample": "coffee", "look": "express_enhance"}

    def click(number):
        browser = Client()
        browser.cookies.update(client.cookies)
        return browser.post(reverse("create"), fields).url

    assert set(in_parallel(5, click)) == {reverse("run", args=[Run.objects.get().pk])}
    assert User.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_hundred_first_requests_of_a_user_make_one_profile(alice):
    Profile.objects.all().delete()
    session = Client()
    session.force_login(alice)

    def ask(number):
        browser = Client()
        browser.cookies.update(session.cookies)
        return browser.get(reverse("profile")).status_code

    assert in_parallel(100, ask) == [200] * 100
    assert Profile.objects.filter(user=alice).count() == 1


def test_admin_sign_in_is_limited_like_every_other(client, alice):
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    assert reverse("account_login") in client.get("/admin/login/", follow=True).redirect_chain[-1][0]
    for _ in range(12):
        answer = client.post(reverse("account_login"), {"login": "alice@example.com", "password": "wrong"})
    assert answer.status_code == 429 or b"Too many" in answer.content


@pytest.mark.parametrize("page", ["login", "signup", "reset_password"])
def test_entrance_pages_are_ours(client, page):
    answer = client.get(reverse(f"account_{page}"))
    assert answer.status_code == 200
    assert "base.html" in [template.name for template in answer.templates]
