"""What the tests of photos share: senders of forms, and a web server as production has it."""

import io
import json
import uuid

import pytest
from django.urls import reverse
from PIL import Image

from generation.management.commands.load_presets import CATALOGUE
from generation.models import Photo, Preset
from stefna.tests.faults.files import FORM, file, form, part, stored, wanted
from stefna.tests.faults.web import Web


@pytest.fixture(scope="session")
def web(install, tmp_path_factory):
    made = Web(install, tmp_path_factory.mktemp("web"))
    yield made
    made.end()


@pytest.fixture
def look(db):
    """The one look that is asked for."""
    entries = json.loads(CATALOGUE.read_text())
    return Preset.objects.create(**next(entry for entry in entries if entry["slug"] == "duotone"))


@pytest.fixture
def send(client, alice, look):
    """Post parts of a form to the API as Alice; a new run is asked for."""
    client.force_login(alice)

    def post(*parts, path="/api/v1/runs"):
        body = form(part("preset", b"duotone"), *parts)
        return client.post(path, body, content_type=FORM, headers={"Idempotency-Key": uuid.uuid4().hex})

    return post


@pytest.fixture
def send_page(client, alice, look):
    """Post parts of a form as the page's script does for Alice."""
    client.force_login(alice)
    ours = {"content_type": FORM, "headers": {"HX-Request": "true"}}
    return lambda *parts: client.post(reverse("create"), form(*wanted(), *parts), **ours)


@pytest.fixture
def accepted(send):
    """Send a photo that must be accepted; return its row, and what is stored of it as pictures."""

    def accept(data, name="photo.jpg"):
        answer = send(file(data, name))
        assert answer.status_code == 202, answer.content
        (photo,) = Photo.objects.all()
        shown = answer.json()["photo"]
        assert (shown["width"], shown["height"]) == (photo.width, photo.height)
        return photo, [Image.open(io.BytesIO(data)) for data in stored(photo)]

    return accept
