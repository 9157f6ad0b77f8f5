"""A storage may be slow: whoever waits for it holds no connection to the database, or sixteen of them hold all."""

import uuid

import pytest
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.urls import reverse

from accounts.models import User
from conftest import small
from generation.models import Photo, Run

API = "/api/v1"


@pytest.fixture
def held(monkeypatch):
    """Note of each call of the storage whether its thread holds a connection."""
    noted = []

    def watch(name):
        original = getattr(FileSystemStorage, name)

        def watched(self, *arguments, **options):
            noted.append((name, connection.connection is not None))
            return original(self, *arguments, **options)

        monkeypatch.setattr(FileSystemStorage, name, watched)

    for name in ("save", "open", "delete"):
        watch(name)
    return noted


@pytest.mark.django_db(transaction=True)
def test_nobody_who_waits_for_the_storage_holds_a_connection(held, client, catalogue, settings, work):
    settings.ALLOW_GUESTS = True

    def picture():
        return SimpleUploadedFile("photo.jpg", small("coffee", 200 + len(held)), "image/jpeg")

    client.get(reverse("studio"))
    form = {"look": "duotone", "key": uuid.uuid4().hex, "photo": picture()}
    assert client.post(reverse("create"), form).status_code == 302
    assert work() == 1
    run = Run.objects.get()
    for address in (reverse("download", args=[run.pk]), f"{API}/runs/{run.pk}/download?format=webp"):
        assert client.get(address).status_code == 200
    assert client.get(reverse("result", args=[run.pk, "thumbnail"])).getvalue()
    for _ in range(2):
        assert client.post(reverse("change_picture"), {"picture": picture()}).status_code == 302
    asked = {"preset": "duotone", "photo": picture()}
    key = {"Idempotency-Key": uuid.uuid4().hex}
    assert client.post(f"{API}/runs", asked, headers=key).status_code == 202
    assert client.post(f"{API}/photos", {"photo": picture()}).status_code == 201
    assert client.delete(f"{API}/photos/{run.photo_id}").status_code == 204
    assert client.post(reverse("delete_account")).status_code == 302
    assert not User.objects.exists()
    assert not Photo.objects.exists()
    assert {name for name, _ in held} == {"save", "open", "delete"}
    assert [name for name, is_held in held if is_held] == []
