"""An account that is deleted is gone: its pictures at the storage, and its name wherever it was written."""

import os
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress, EmailConfirmation
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Profile, User
from conftest import small
from generation import photos, services, sweep
from generation.models import Photo, random_path

SECRET = "clara@secret.example"
NAME = "Clara of the secret name"


def stored(settings):
    return {str(path.relative_to(settings.MEDIA_ROOT)) for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()}


def fill(user, count=1):
    """Give an account photos, and a picture of itself."""
    names = [default_storage.save(random_path("photos", "jpg"), ContentFile(b"x")) for _ in range(2 * count)]
    for number in range(count):
        facts = {"width": 1, "height": 1, "bytes": 1, "content_type": "image/jpeg", "sha256": f"{user.pk}-{number}"}
        Photo.objects.create(user=user, file=names[2 * number], thumbnail=names[2 * number + 1], **facts)
    avatar = default_storage.save(random_path("avatars", "jpg"), ContentFile(b"x"))
    Profile.objects.filter(user=user).update(avatar=avatar, display_name=NAME)


@pytest.fixture
def clara(transactional_db):
    user = User.objects.create_user(SECRET, "a-password-of-clara")
    address = EmailAddress.objects.create(user=user, email=SECRET, primary=True)
    EmailConfirmation.objects.create(email_address=address, key="k")
    fill(user)
    return user


def by_service(clara, owner):
    services.delete_account(clara)


def by_page(clara, owner):
    browser = Client()
    browser.login(email=SECRET, password="a-password-of-clara")
    browser.post("/account/reauthenticate/", {"password": "a-password-of-clara"})
    assert browser.post("/account/profile/delete").status_code == 302


def by_api(clara, owner):
    browser = Client()
    browser.login(email=SECRET, password="a-password-of-clara")
    fields = {"password": "a-password-of-clara"}
    assert browser.delete("/api/v1/profile", fields, content_type="application/json").status_code == 204


def in_the_admin(clara, owner):
    assert owner.post(f"/admin/accounts/user/{clara.pk}/delete/", {"post": "yes"}).status_code == 302


def several_in_the_admin(clara, owner):
    fields = {"action": "delete_selected", "_selected_action": [clara.pk], "post": "yes"}
    assert owner.post("/admin/accounts/user/", fields).status_code == 302


WAYS = [by_service, by_page, by_api, in_the_admin, several_in_the_admin]


@pytest.mark.parametrize("delete", WAYS)
def test_deleted_account_leaves_no_picture_and_no_name(delete, clara, owner, settings):
    address = EmailAddress.objects.get(user=clara)
    owner.post(f"/admin/account/emailaddress/{address.pk}/change/", {"primary": "on", "verified": "on"})
    owner.post("/admin/accounts/user/", {"action": "deactivate", "_selected_action": [clara.pk]})
    owner.post("/admin/accounts/user/", {"action": "activate", "_selected_action": [clara.pk]})
    said = [entry.object_repr + entry.change_message for entry in LogEntry.objects.all()]
    assert [words for words in said if SECRET in words or NAME in words]
    assert len(stored(settings)) == 3
    delete(clara, owner)
    assert not User.objects.filter(pk=clara.pk).exists()
    assert not stored(settings)
    for entry in LogEntry.objects.all():
        assert NAME not in entry.object_repr + entry.change_message
        assert SECRET not in entry.object_repr + entry.change_message
    # That something was done stays.
    assert LogEntry.objects.filter(object_repr="deleted account").count() >= 2
    assert not EmailAddress.objects.filter(email=SECRET).exists()
    assert not EmailConfirmation.objects.exists()


def test_other_accounts_stay_in_the_log(clara, owner):
    other = User.objects.create_user("dora@example.com")
    fields = {"action": "deactivate", "_selected_action": [other.pk]}
    owner.post("/admin/accounts/user/", fields)
    before = LogEntry.objects.get(object_id=str(other.pk))
    services.delete_account(clara)
    after = LogEntry.objects.get(object_id=str(other.pk))
    assert (after.object_repr, after.change_message) == (before.object_repr, before.change_message)


@pytest.mark.django_db(transaction=True)
def test_expired_guests_take_their_pictures_along_however_many(settings):
    guest = User.objects.guest("old")
    fill(guest, count=30)
    User.objects.update(last_login=timezone.now() - timedelta(days=40))
    member = User.objects.create_user("dora@example.com")
    fill(member)
    kept = 3
    assert len(stored(settings)) == 61 + kept
    cleaned_up = sweep.clean_up()
    assert (cleaned_up["expired_guests"], cleaned_up["orphaned_files"]) == (1, 0)
    assert len(stored(settings)) == kept


@pytest.mark.django_db(transaction=True)
def test_guest_that_signs_in_leaves_no_picture_of_theirs_behind(settings):
    guest, member = User.objects.guest("key"), User.objects.create_user("dora@example.com")
    fill(guest)
    services.adopt_guest(guest=guest, user=member)
    assert len(stored(settings)) == 2
    assert Photo.objects.for_user(member).count() == 1


def age(settings):
    for name in stored(settings):
        os.utime(settings.MEDIA_ROOT / name, (0, 0))


@pytest.mark.parametrize("broken_after", [0, 1, 2])
def test_storage_that_fails_in_the_middle_loses_nothing(clara, settings, monkeypatch, broken_after):
    delete, calls = FileSystemStorage.delete, []

    def fail(self, name):
        calls.append(name)
        if len(calls) > broken_after:
            raise OSError("away")
        delete(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(FileSystemStorage, "delete", fail)
        services.delete_account(clara)
    assert len(calls) == 3
    assert len(stored(settings)) == 3 - broken_after
    age(settings)
    assert sweep.clean_up()["orphaned_files"] == 3 - broken_after
    assert not stored(settings)


def orphans(settings, folder, count):
    for _ in range(count):
        default_storage.save(random_path(folder, "jpg"), ContentFile(b"x"))
    age(settings)


@pytest.mark.parametrize("folder", sweep.FOLDERS)
def test_sweep_finds_orphans_of_every_folder(clara, settings, folder):
    kept = stored(settings)
    orphans(settings, folder, 20)
    assert sweep.clean_up()["orphaned_files"] == 20
    assert stored(settings) == kept


@pytest.mark.parametrize("folder", sweep.FOLDERS)
def test_many_orphans_are_listed_and_deleted_when_the_owner_says_so(clara, settings, folder, capsys, caplog, client):
    kept = stored(settings)
    orphans(settings, folder, 30)
    everything = stored(settings)
    assert sweep.clean_up()["orphaned_files"] == 0
    assert "orphans_not_deleted" in caplog.text
    settings.METRICS_TOKEN = "t"
    metrics = client.get("/metrics", headers={"Authorization": "Bearer t"}).content.decode()
    assert f'stefna_orphans_held_back{{folder="{folder}"}} 30.0' in metrics

    call_command("sweep", "--orphans")
    said = capsys.readouterr().out.splitlines()
    assert {line for line in said if line in everything} == everything - kept
    assert stored(settings) == everything

    call_command("sweep", "--orphans", "--confirm")
    assert "deleted: 30" in capsys.readouterr().out
    assert stored(settings) == kept
    metrics = client.get("/metrics", headers={"Authorization": "Bearer t"}).content.decode()
    assert f'stefna_orphans_held_back{{folder="{folder}"}} 0.0' in metrics


def test_confirming_nothing_is_a_mistake(db):
    with pytest.raises(CommandError):
        call_command("sweep", "--confirm")


def test_sessions_of_a_deleted_account_end(clara, alice):
    for user in (clara, alice):
        user.set_password("a-password-of-both")
        user.save()
        EmailAddress.objects.update_or_create(user=user, email=user.email, defaults={"verified": True, "primary": True})
        fields = {"login": user.email, "password": "a-password-of-both"}
        assert Client().post(reverse("account_login"), fields).status_code == 302
    services.delete_account(clara)
    assert Session.objects.get().get_decoded()["_auth_user_id"] == str(alice.pk)


def test_photo_that_is_deleted_takes_its_files_along(alice, settings, django_capture_on_commit_callbacks):
    photo = photos.accept(alice, photos.Upload(small("coffee")))
    assert len(stored(settings)) == 2
    with django_capture_on_commit_callbacks(execute=True):
        services.delete_photo(photo)
    assert not stored(settings)
