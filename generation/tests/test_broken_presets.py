"""A preset's row that somebody broke by hand: left out wherever users look, logged, and no worker's trouble."""

import io
import json
import uuid

import pytest
from django.core.management import call_command
from django.urls import reverse
from PIL import Image

from generation import services, showing, tasks
from generation.exceptions import PresetUnavailable
from generation.models import Preset, Run

pytestmark = pytest.mark.django_db

LOOK, MOOD = "express_enhance", "moodmorph"


@pytest.fixture(params=[{"steps": [{"op": "explode"}]}, "a text", [], {"version": 1}, 7])
def broken(request, catalogue):
    """Break a look, and the first mood."""
    mood = catalogue.members(MOOD)[0].slug
    Preset.objects.filter(slug__in=[LOOK, mood]).update(recipe=request.param)
    return {LOOK, mood}


def test_problems_are_said_in_words(preset):
    assert preset.problems == []
    preset.recipe, preset.strength, preset.mode, preset.prompt = {"version": 2, "steps": [1]}, 7, "party", ""
    assert [problem.partition(": ")[0] for problem in preset.problems] == ["mode", "prompt", "strength", "recipe"]
    assert "version must be 1, not 2" in preset.problems[3]


def test_lists_of_users_leave_it_out(client, alice, broken, caplog):
    client.force_login(alice)
    api = client.get("/api/v1/presets").json()
    modes = client.get("/api/v1/modes").json()
    sketches = client.post(reverse("sketch"), {"sample": "coffee"}).getvalue().decode().splitlines()
    studio = client.get(reverse("studio"))
    seen = [
        {preset["slug"] for preset in api},
        {member["slug"] for mode in modes for member in mode["members"]},
        {json.loads(line)["look"] for line in sketches},
        {preset.slug for preset, _ in [*studio.context["looks"], *studio.context["moods"]]},
    ]
    assert [len(slugs) for slugs in seen] == [33, 2, 35, 35]
    assert not any(slugs & broken for slugs in seen)
    with Image.open(io.BytesIO(client.get(reverse("preset_sheet")).content)) as sheet:
        assert sheet.height == 35 * showing.TILE_SIDE
    assert client.get(f"/api/v1/presets/{LOOK}").status_code == 404
    # Once in a while, however often somebody looks.
    assert caplog.text.count("preset_skipped") == 2


def test_it_is_refused_when_asked_for_and_a_mode_goes_on_without(client, alice, photo, broken):
    with pytest.raises(PresetUnavailable):
        services.start_run(user=alice, photo=photo, preset=Preset.objects.get(slug=LOOK))
    with pytest.raises(PresetUnavailable):
        services.start_batch(user=alice, photo=photo, presets=list(Preset.objects.filter(slug__in=[LOOK, "duotone"])))
    runs = services.start_batch(user=alice, photo=photo, mode=MOOD)
    assert len(runs) == 2
    client.force_login(alice)
    sent = {"key": uuid.uuid4().hex, "look": LOOK, "photo_id": photo.pk}
    assert client.post(reverse("create"), sent).status_code == PresetUnavailable.status


def test_runs_that_were_accepted_before_are_made_from_their_snapshot(start, work, preset):
    run = start()
    Preset.objects.update(recipe="a text")
    assert work() == 1
    run.refresh_from_db()
    assert run.status == "succeeded"


def test_worker_goes_on_after_a_run_that_cannot_be_made(start, preset):
    bad, good = start(), start()
    Run.objects.filter(pk=bad.pk).update(recipe={"steps": [{"op": "explode"}]})
    for run in (bad, good):
        tasks.process(run.pk)
        run.refresh_from_db()
    assert [bad.status, good.status] == ["failed", "succeeded"]


def test_without_any_preset_the_page_says_so(client):
    assert "There are no looks yet." in client.get(reverse("studio")).content.decode()


def test_loading_the_catalogue_leaves_the_owners_broken_row_and_overwriting_mends_it(broken):
    call_command("load_presets", verbosity=0)
    assert Preset.objects.get(slug=LOOK).problems
    call_command("load_presets", "--overwrite", verbosity=0)
    assert Preset.objects.get(slug=LOOK).problems == []
