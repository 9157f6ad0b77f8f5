"""The profile page: what it shows to whom, what it changes, and the end of an account."""

import io
import json
import re
import time
import zipfile
from urllib.parse import quote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from accounts import password_limits
from accounts.models import Profile, User
from accounts.tests.test_accounts import PASSWORD, submit
from conftest import small
from generation import exports
from generation.models import Export, Photo, Run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_limits_of_other_tests(settings):
    settings.ACCOUNT_RATE_LIMITS = False


@pytest.fixture
def signed_in(client, alice):
    client.force_login(alice)
    return client


@pytest.fixture
def just_signed_in(signed_in):
    session = signed_in.session
    session[password_limits.SIGNED_IN_AT] = time.time()
    session.save()
    return signed_in


def picture():
    return SimpleUploadedFile("me.jpg", small("portrait"), "image/jpeg")


def text(answer):
    return " ".join(re.sub(r"<[^>]*>", " ", answer.content.decode()).split())


def test_profile_saves_name_language_and_mail(signed_in, alice):
    signed_in.post(reverse("profile"), {"display_name": "Al", "locale": "de"})
    mine = Profile.objects.get(user=alice)
    assert (mine.display_name, mine.locale, mine.email_notifications) == ("Al", "de", False)
    signed_in.post(reverse("profile"), {"display_name": "Al", "locale": "", "email_notifications": "on"})
    mine.refresh_from_db()
    assert (mine.locale, mine.email_notifications) == ("", True)


def test_unknown_language_is_refused_and_nothing_changes(signed_in, alice):
    answer = signed_in.post(reverse("profile"), {"display_name": "Al", "locale": "xx"})
    assert answer.context["form"].errors.keys() == {"locale"}
    assert Profile.objects.get(user=alice).display_name == "alice"


def test_language_that_an_app_set_survives_saving(signed_in, alice):
    Profile.objects.filter(user=alice).update(locale="fr")
    assert 'value="fr" selected' in signed_in.get(reverse("profile")).content.decode()
    signed_in.post(reverse("profile"), {"display_name": "Al", "locale": "fr"})
    assert Profile.objects.get(user=alice).locale == "fr"


def test_saving_leaves_what_the_owner_allowed(signed_in, alice):
    Profile.objects.filter(user=alice).update(daily_run_limit=7)
    signed_in.post(reverse("profile"), {"display_name": "Al", "locale": "", "daily_run_limit": "0"})
    assert Profile.objects.get(user=alice).daily_run_limit == 7


def test_usage_and_limit_are_shown(signed_in, start, settings):
    settings.DAILY_RUN_LIMIT = 5
    start()
    assert "1 of 5 pictures." in text(signed_in.get(reverse("profile")))
    settings.DAILY_RUN_LIMIT = 0
    assert "1 picture, without a limit." in text(signed_in.get(reverse("profile")))


def test_picture_is_stored_replaced_and_removed(signed_in, alice, settings):
    def files():
        return [path for path in (settings.MEDIA_ROOT / "avatars").rglob("*") if path.is_file()]

    signed_in.post(reverse("change_picture"), {"picture": picture()})
    first = signed_in.get(reverse("profile")).context["picture"]
    assert first in signed_in.get(reverse("profile")).content.decode()
    with Image.open(io.BytesIO(b"".join(signed_in.get(first).streaming_content))) as shown:
        assert shown.format == "JPEG"
    signed_in.post(reverse("change_picture"), {"picture": picture()})
    second = signed_in.get(reverse("profile")).context["picture"]
    assert first != second, "the browser would show the old one"
    assert len(files()) == 1
    signed_in.post(reverse("change_picture"), {"remove": ""})
    assert not Profile.objects.get(user=alice).avatar
    assert files() == []


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [({"picture": SimpleUploadedFile("x.jpg", b"<svg/>")}, "not a photo"), ({}, "Choose a photo first.")],
)
def test_bad_picture_is_named_and_the_old_one_stays(signed_in, alice, sent, sentence):
    signed_in.post(reverse("change_picture"), {"picture": picture()})
    before = Profile.objects.get(user=alice).avatar.name
    answer = signed_in.post(reverse("change_picture"), sent)
    assert answer.status_code in (400, 415, 422)
    assert sentence in text(answer)
    assert Profile.objects.get(user=alice).avatar.name == before


def test_export_holds_photos_pictures_and_what_they_are(just_signed_in, alice, start, work):
    signed_in = just_signed_in
    run = start()
    work()
    signed_in.post(reverse("change_picture"), {"picture": picture()})
    signed_in.post(reverse("export"))
    assert exports.make_next()
    answer = signed_in.get(reverse("export_download", args=[Export.objects.get().pk]))
    assert answer["Content-Disposition"] == 'attachment; filename="stefna-export.zip"'
    run.refresh_from_db()
    with zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))) as archive:
        mine = Profile.objects.get(user=alice)
        assert set(archive.namelist()) == {mine.avatar.name, run.result.name, run.photo.file.name, "manifest.json"}
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["profile"]["email"] == "alice@example.com"
    assert [one["id"] for one in manifest["runs"]] == [str(run.pk)]


def test_deleting_asks_for_the_password_first(signed_in, alice):
    for answer in (signed_in.get(reverse("delete_account")), signed_in.post(reverse("delete_account"))):
        assert answer.url.startswith(reverse("account_reauthenticate"))
    wrong = signed_in.post(answer.url, {"password": "wrong"})
    assert wrong.status_code == 200
    assert signed_in.get(reverse("delete_account")).status_code == 302
    assert User.objects.filter(pk=alice.pk).exists()


def test_deleting_takes_everything_and_says_so(
    signed_in, alice, bob, start, work, settings, django_capture_on_commit_callbacks
):
    start()
    work()
    asked = signed_in.get(reverse("delete_account"))
    page = signed_in.post(asked.url, {"password": PASSWORD}, follow=True)
    assert "1 photo 1 picture made of them" in text(page)
    with django_capture_on_commit_callbacks(execute=True):
        answer = signed_in.post(reverse("delete_account"), follow=True)
    assert "Your account and everything in it was deleted." in text(answer)
    assert not answer.context["user"].is_authenticated
    assert set(User.objects.all()) == {bob}
    assert not Run.objects.exists()
    assert not Photo.objects.exists()
    assert [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()] == []


def test_account_without_a_password_can_be_deleted(client, db):
    user = User.objects.create_user("social@example.com")
    client.force_login(user)
    # A session that nobody knows how old it is: there is no password to ask for, so a new sign-in is.
    answer = client.post(reverse("delete_account"))
    assert answer.url == f"{reverse('account_login')}?next={quote(reverse('delete_account'), safe='')}"
    assert User.objects.exists()
    assert client.get(reverse("profile")).status_code == 302
    client.force_login(user)
    session = client.session
    session[password_limits.SIGNED_IN_AT] = time.time()
    session.save()
    client.post(reverse("delete_account"))
    assert not User.objects.exists()


def test_guest_sees_name_usage_and_the_way_in(client, catalogue):
    submit(client)
    page = client.get(reverse("profile"))
    assert reverse("account_signup") in page.content.decode()
    assert "1 picture, without a limit." in text(page)
    for absent in ("account_email", "account_change_password", "mfa_index"):
        assert f'href="{reverse(absent)}"' not in page.content.decode()
    client.post(reverse("profile"), {"display_name": "Visitor", "locale": ""})
    assert User.objects.get().profile.display_name == "Visitor"


def test_guests_name_comes_along_and_an_own_name_stays(client, catalogue, alice):
    submit(client)
    client.post(reverse("profile"), {"display_name": "Visitor", "locale": ""})
    Profile.objects.filter(user=alice).update(display_name="Alice L.")
    client.post(reverse("account_login"), {"login": alice.email, "password": PASSWORD})
    assert Profile.objects.get(user=alice).display_name == "Alice L."
    client.logout()
    submit(client)
    client.post(reverse("profile"), {"display_name": "Visitor", "locale": ""})
    client.post(reverse("account_signup"), {"email": "new@example.com", "password1": PASSWORD})
    assert Profile.objects.get(user__email="new@example.com").display_name == "Visitor"


def test_social_accounts_are_offered_only_where_set(signed_in):
    page = signed_in.get(reverse("profile")).content.decode()
    assert reverse("socialaccount_connections") not in page
    assert reverse("account_email") in page
