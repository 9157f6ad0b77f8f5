import base64
import io
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from conftest import small
from generation import photos, showing
from generation.images import processing, provenance
from generation.models import Photo, Preset, Run

pytestmark = pytest.mark.django_db


def sent(answer):
    return {line["look"]: line["picture"] for line in map(json.loads, answer.getvalue().decode().splitlines())}


def file(data):
    return SimpleUploadedFile("photo.jpg", data, "image/jpeg")


def test_every_look_is_sketched_on_the_photo_that_was_sent_and_nothing_is_kept(client, catalogue):
    answer = client.post(reverse("sketch"), {"photo": file(small("coffee"))})
    pictures = sent(answer)
    assert list(pictures) == list(Preset.objects.active().values_list("slug", flat=True))
    data = base64.b64decode(pictures["noir_classic"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, max(image.size)) == ("WEBP", showing.SKETCH_SIDE)
        red, green, _ = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert abs(red - green) < 12
    assert provenance.read(data) == "algorithmicallyEnhanced"
    assert [Photo.objects.count(), Run.objects.count()] == [0, 0]


def test_second_time_comes_from_the_cache_and_hidden_looks_stay_out(client, catalogue, monkeypatch):
    first = sent(client.post(reverse("sketch"), {"sample": "coffee"}))
    monkeypatch.setattr(processing, "previews", lambda *_, **__: pytest.fail("rendered again"))
    Preset.objects.filter(slug="noir_classic").update(is_active=False)
    second = sent(client.post(reverse("sketch"), {"sample": "coffee"}))
    assert second == {look: picture for look, picture in first.items() if look != "noir_classic"}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"sample": "nothing"}, 400),
        ({"photo": b"<svg/>"}, 415),
        ({"photo": b""}, 422),
        ({"photo": small("coffee")[:999]}, 422),
        ({"photo_id": "x"}, 400),
    ],
)
def test_bad_photo_is_said_before_the_first_sketch(client, catalogue, fields, status):
    fields = {name: file(value) if isinstance(value, bytes) else value for name, value in fields.items()}
    assert client.post(reverse("sketch"), fields).status_code == status


def test_photo_of_another_is_no_photo(client, bob, photo, catalogue):
    client.force_login(bob)
    assert client.post(reverse("sketch"), {"photo_id": photo.pk}).status_code == 400


def test_visitors_get_none_where_guests_are_not_allowed(client, catalogue, settings):
    settings.ALLOW_GUESTS = False
    assert client.post(reverse("sketch"), {"sample": "coffee"}).status_code == 403


def test_own_photo_is_sketched_by_its_number(client, alice, photo, catalogue):
    client.force_login(alice)
    assert len(sent(client.post(reverse("sketch"), {"photo_id": photo.pk}))) == Preset.objects.active().count()


def test_sheet_has_a_tile_for_each_look_in_the_order_of_the_cards(client, catalogue):
    answer = client.get(reverse("preset_sheet"))
    with Image.open(io.BytesIO(answer.content)) as sheet:
        assert sheet.size == (showing.TILE_SIDE, showing.TILE_SIDE * Preset.objects.active().count())
        number = list(Preset.objects.active().values_list("slug", flat=True)).index("noir_classic")
        tile = sheet.crop((0, number * showing.TILE_SIDE, showing.TILE_SIDE, (number + 1) * showing.TILE_SIDE))
        red, green, blue = tile.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert max(red, green, blue) - min(red, green, blue) < 12
    assert "public" in answer["Cache-Control"]


def test_sheet_has_another_name_when_a_look_is_changed(catalogue):
    before = showing.sheet_version(list(Preset.objects.active()))
    preset = Preset.objects.get(slug="noir_classic")
    preset.strength = 0.5
    preset.save(update_fields=["strength"])
    assert showing.sheet_version(list(Preset.objects.active())) != before


def test_small_picture_has_passed_the_door():
    with Image.open(io.BytesIO(photos.small(photos.Upload.sample("landscape")))) as image:
        assert max(image.size) == photos.THUMBNAIL_SIDE
