"""Every preset on every sample, through the whole pipeline and back out in each format."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from conftest import small
from generation import photos, services
from generation.images import processing, provenance
from generation.models import Preset

pytestmark = pytest.mark.django_db


def test_catalogue_is_34_presets_and_three_moods(catalogue):
    assert (catalogue.looks().count(), catalogue.members("moodmorph").count()) == (34, 3)
    assert len(set(catalogue.values_list("category", flat=True))) == 15
    express = catalogue.get(slug="express_enhance")
    assert (express.name, express.tag, express.category, express.strength, express.prompt, express.negative_prompt) == (
        "Express Enhance",
        "Clarity",
        "minimalist",
        0.7,
        "Quickly enhance sharpness, remove haze, and boost clarity for a more polished look.",
        "blurry, hazy, soft, distorted",
    )
    assert all(entry.prompt and entry.description and entry.recipe for entry in catalogue)


@pytest.mark.parametrize("name", photos.SAMPLES)
def test_every_preset_makes_a_marked_picture_of_its_own(alice, catalogue, settings, work, name):
    settings.DAILY_RUN_LIMIT = settings.MAX_ACTIVE_RUNS = 0
    photo = photos.accept(alice, photos.Upload(small(name, 256)))
    with Image.open(io.BytesIO(photos.read(photo.file))) as image:
        pictures = {"the photo": np.asarray(image.convert("RGB")).astype(int)}
    runs = [services.start_run(user=alice, photo=photo, preset=preset) for preset in catalogue.looks()]
    assert work() == 34
    for run in runs:
        run.refresh_from_db()
        assert run.status == "succeeded", (run.preset_slug, run.error_message)
        for content_type in processing.FORMATS:
            data = photos.download(run, content_type)
            assert provenance.read(data) == "algorithmicallyEnhanced"
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                assert image.size == (photo.width, photo.height)
        pictures[run.preset_slug] = np.asarray(image.convert("RGB")).astype(int)
    alike = [
        (one, other)
        for one, other in itertools.combinations(pictures, 2)
        if np.abs(pictures[one] - pictures[other]).mean() < 2
    ]
    assert alike == []


def test_load_presets_leaves_the_owners_as_they_are(catalogue):
    from django.core.management import call_command

    Preset.objects.filter(slug="noir_classic").update(name="Mine")
    Preset.objects.filter(slug="duotone").delete()
    call_command("load_presets", verbosity=0)
    assert Preset.objects.get(slug="noir_classic").name == "Mine"
    assert Preset.objects.filter(slug="duotone").exists()
    call_command("load_presets", "--overwrite", verbosity=0)
    assert Preset.objects.get(slug="noir_classic").name == "Noir Classic"
