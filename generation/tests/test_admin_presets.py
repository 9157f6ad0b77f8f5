"""The owner's presets: seen, ordered, copied, tried before they are saved, and what was changed."""

import io
import json

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.urls import reverse
from PIL import Image

from conftest import asked_for
from generation import tryout
from generation.admin_history import differences
from generation.images import provenance
from generation.models import Preset, Run
from generation.providers import aiml

pytestmark = pytest.mark.django_db

LIST = reverse("admin:generation_preset_changelist")
ADD = reverse("admin:generation_preset_add")
TRY_OUT = reverse("admin:generation_preset_try_out")
MARKUP = "<script>alert('x')</script>"


def address(preset):
    return reverse("admin:generation_preset_change", args=[preset.pk])


def fields(page, **changes):
    """What a browser would send back of a form that it was shown."""
    form = page.context["adminform"].form
    values = {field.name: field.value() for field in form}
    return {name: value for name, value in values.items() if value is not None and value is not False} | changes


def break_by_hand(preset, **values):
    Preset.objects.filter(pk=preset.pk).update(**values or {"recipe": {"version": 1, "steps": [{"op": "explode"}]}})


# -- The list ------------------------------------------------------------------------------------------------


def test_list_has_a_picture_of_every_preset_inactive_ones_too(owner, preset):
    break_by_hand(preset, is_active=False)
    page = owner.get(LIST).content.decode()
    picture = reverse("admin:generation_preset_preview", args=[preset.pk])
    assert f'src="{picture}?v=' in page
    answer = owner.get(picture)
    assert (answer.status_code, answer["Content-Type"]) == (200, "image/webp")
    assert Client().get(picture).status_code == 302


def test_list_asks_the_same_for_one_three_and_all(owner, catalogue):
    all_of_them = asked_for(owner, LIST)
    for number in (3, 1):
        kept = list(Preset.objects.values_list("pk", flat=True)[:number])
        Preset.objects.exclude(pk__in=kept).delete()
        assert asked_for(owner, LIST) == all_of_them
    assert all_of_them < 15


def test_list_says_what_a_mode_needs_and_has(owner, catalogue):
    Preset.objects.members("moodmorph").update(is_active=False)
    page = owner.get(LIST)
    assert [(mode["mode"], mode["active"], mode["all"]) for mode in page.context["modes"]] == [
        ("preset", 34, 34),
        ("moodmorph", 0, 3),
    ]
    assert "It needs at least one." in page.content.decode()
    assert [preset.mode for preset in owner.get(LIST + "?mode__exact=moodmorph").context["cl"].result_list] == [
        "moodmorph"
    ] * 3


def test_order_is_changed_in_the_list_and_remembered(owner, catalogue):
    first, second = list(catalogue[:2])
    Preset.objects.exclude(pk__in=[first.pk, second.pk]).delete()
    sent = {"form-TOTAL_FORMS": 2, "form-INITIAL_FORMS": 2, "_save": "Save"}
    for number, (preset, position) in enumerate([(first, 7), (second, 3)]):
        sent |= {f"form-{number}-id": preset.pk, f"form-{number}-position": position, f"form-{number}-is_active": "on"}
    assert owner.post(LIST, sent).status_code == 302
    assert list(Preset.objects.values_list("slug", "position")) == [(second.slug, 3), (first.slug, 7)]
    assert "position" in LogEntry.objects.get(object_id=first.pk).change_message


def test_presets_are_switched_on_and_off_together_and_broken_ones_stay_off(owner, preset, catalogue):
    other = catalogue.get(slug="noir_classic")
    chosen = {"_selected_action": [preset.pk, other.pk]}
    owner.post(LIST, chosen | {"action": "deactivate"})
    assert not Preset.objects.active().filter(pk__in=[preset.pk, other.pk]).exists()
    break_by_hand(other)
    page = owner.post(LIST, chosen | {"action": "activate"}, follow=True).content.decode()
    assert [Preset.objects.get(pk=one.pk).is_active for one in (preset, other)] == [True, False]
    assert "unknown op" in page or "explode" in page
    entries = LogEntry.objects.filter(object_id=preset.pk).order_by("pk")
    assert [json.loads(entry.change_message)[0]["changed"]["values"] for entry in entries] == [
        {"is_active": [True, False]},
        {"is_active": [False, True]},
    ]


def test_markup_in_a_preset_is_shown_as_it_is(owner, preset):
    break_by_hand(preset, name=MARKUP, description=MARKUP, prompt=MARKUP, tag=MARKUP[:40])
    for url in (LIST, address(preset), f"{ADD}?copy_of={preset.pk}"):
        page = owner.get(url).content.decode()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


# -- Who may -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [LIST, ADD])
def test_pages_are_for_staff_who_may(url, client, alice, staff, catalogue):
    assert reverse("account_login") in client.get(url).url
    client.force_login(alice)
    assert client.get(url, follow=True).status_code == 403
    assert staff().get(url).status_code == 403
    assert staff("view_preset", "add_preset").get(url).status_code == 200


def test_try_out_is_for_staff_who_may_change_or_add(client, alice, staff, catalogue):
    assert client.post(TRY_OUT).status_code == 302
    client.force_login(alice)
    assert client.post(TRY_OUT, follow=True).status_code == 403
    assert staff("view_preset").post(TRY_OUT).status_code == 403
    for permission in ("change_preset", "add_preset"):
        assert staff(permission).post(TRY_OUT).status_code == 422
    assert Client(enforce_csrf_checks=True).post(TRY_OUT).status_code in (302, 403)


# -- Trying before saving ------------------------------------------------------------------------------------


def look(preset, **changes):
    values = {name: getattr(preset, name) for name in ("prompt", "negative_prompt", "strength")}
    return values | {"recipe": json.dumps(preset.recipe), "sample": "coffee"} | changes


def mean(answer):
    with Image.open(io.BytesIO(answer.content)) as image:
        return image.size, image.convert("RGB").resize((1, 1)).getpixel((0, 0))


def test_try_out_shows_what_the_form_says_and_nothing_is_kept(owner, preset):
    recipe = {"version": 1, "steps": [{"op": "bw"}]}
    answer = owner.post(TRY_OUT, look(preset, recipe=json.dumps(recipe), strength=1))
    assert (answer.status_code, answer["Content-Type"]) == (200, "image/webp")
    size, (red, green, blue) = mean(answer)
    assert size == (600, 400)
    assert max(red, green, blue) - min(red, green, blue) < 4
    assert provenance.read(answer.content) == "algorithmicallyEnhanced"
    assert Run.objects.count() == 0
    preset.refresh_from_db()
    assert preset.recipe != recipe


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"strength": "2"}, "strength"),
        ({"strength": ""}, "strength"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"default_seed": "0"}, "default_seed"),
        ({"recipe": "{"}, "recipe"),
        ({"recipe": '{"version": 1, "steps": [{"op": "explode"}]}'}, "recipe"),
        ({"recipe": "[]"}, "recipe"),
        ({"sample": "../secret"}, "sample"),
    ],
)
def test_try_out_says_what_is_wrong_as_the_form_does(owner, preset, changes, wrong):
    answer = owner.post(TRY_OUT, look(preset, **changes))
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [wrong])
    if wrong != "sample":
        page = owner.post(address(preset), fields(owner.get(address(preset)), **look(preset, **changes)))
        assert list(page.context["adminform"].form.errors) == [wrong]


# -- A preset that was broken by hand ------------------------------------------------------------------------


def test_broken_row_is_left_out_and_logged_and_its_owner_can_mend_it(owner, client, preset, catalogue, caplog):
    break_by_hand(preset)
    studio = client.get(reverse("studio")).content.decode()
    assert preset.slug not in studio.replace("picked", "")
    assert "noir_classic" in studio
    assert [line for line in caplog.text.splitlines() if "preset_skipped" in line and preset.slug in line]
    assert client.get(reverse("preview", args=[preset.slug])).status_code == 404
    listed = owner.get(LIST).content.decode()
    assert "explode" in listed
    page = owner.get(address(preset))
    assert "Users do not see this preset" in page.content.decode()
    mended = json.dumps({"version": 1, "steps": [{"op": "bw"}]})
    assert owner.post(address(preset), fields(page, recipe=mended)).status_code == 302
    preset.refresh_from_db()
    assert preset.problems == []


# -- Copies, slugs, history ----------------------------------------------------------------------------------


def test_history_tells_numbers_from_yes_and_no_and_takes_any_message(owner, preset):
    values = {"position": [0, 1], "is_active": [True, False], "recipe": [[], {}]}
    values |= {"default_seed": [None, 7], "tag": ["", "x"]}
    entry = LogEntry(change_message=json.dumps([{"changed": {"values": values}}, {"added": {}}, "odd", 1]))
    assert differences(entry) == [
        ("position", [("-", "0"), ("+", "1")]),
        ("is active", [("-", "yes"), ("+", "no")]),
        ("recipe", [("-", "[]"), ("+", "{}")]),
        ("default seed", [("-", "none"), ("+", "7")]),
        ("tag", [("-", "(empty)"), ("+", "x")]),
    ]
    for said in ("", "Deactivated.", "7", '"text"', "{}", "null", '[{"changed": {}}]'):
        assert differences(LogEntry(change_message=said)) == []


def test_who_may_only_look_sees_no_try_out(staff, preset):
    assert 'id="try-out"' not in staff("view_preset", "add_preset").get(address(preset)).content.decode()
    assert 'id="try-out"' in staff("view_preset", "add_preset").get(ADD).content.decode()


def test_copy_is_a_form_with_another_slug_and_not_active(owner, preset):
    page = owner.get(f"{ADD}?copy_of={preset.pk}")
    assert Preset.objects.filter(slug__startswith="express_enhance").count() == 1
    assert owner.post(ADD, fields(page)).status_code == 302
    copy = Preset.objects.get(slug="express_enhance_copy")
    same = ("tag", "category", "mode", "description", "prompt", "negative_prompt", "strength", "recipe", "position")
    assert [getattr(copy, name) for name in same] == [getattr(preset, name) for name in same]
    assert (copy.name, copy.is_active) == ("Express Enhance (copy)", False)
    assert owner.get(f"{ADD}?copy_of={preset.pk}").context["adminform"].form["slug"].value() == "express_enhance_copy2"
    for nothing in ("", "x", "999999", "²"):
        assert owner.get(ADD, {"copy_of": nothing}).status_code == 200


def test_slug_never_changes(owner, preset):
    page = owner.get(address(preset))
    owner.post(address(preset), fields(page, slug="another", name="Renamed"))
    preset.refresh_from_db()
    assert (preset.slug, preset.name) == ("express_enhance", "Renamed")


def test_history_shows_old_and_new_values(owner, preset):
    recipe = preset.recipe | {"full_at": 0.9}
    page = owner.get(address(preset))
    owner.post(address(preset), fields(page, name=MARKUP, strength="0.5", recipe=json.dumps(recipe)))
    answer = owner.get(reverse("admin:generation_preset_history", args=[preset.pk]))
    (entry,) = answer.context["action_list"]
    assert entry.differences == [
        ("name", [("-", "Express Enhance"), ("+", MARKUP)]),
        ("strength", [("-", "0.7"), ("+", "0.5")]),
        ("recipe", [("-", '  "full_at": 0.7,'), ("+", '  "full_at": 0.9,')]),
    ]
    text = answer.content.decode()
    assert "<del>0.7</del>" in text
    assert "<script>alert" not in text


# -- By the picture service ----------------------------------------------------------------------------------


def test_each_try_is_one_call_with_what_the_form_says(owner, preset, upstreams):
    answer = owner.post(TRY_OUT, look(preset, prompt="as a woodcut", strength=0.4, default_seed=7))
    assert (answer.status_code, provenance.read(answer.content)) == (200, "compositeWithTrainedAlgorithmicMedia")
    (call,) = upstreams.calls("aiml")
    sent = {name: call["fields"][name] for name in ("prompt", "strength", "seed")}
    assert sent == {"prompt": f"as a woodcut, without {preset.negative_prompt}.", "strength": 0.4, "seed": 7}
    assert [stored["public_id"] for stored in upstreams.stored()] == ["samples/coffee"]
    owner.post(TRY_OUT, look(preset))
    assert (len(upstreams.calls("upload")), len(upstreams.calls("aiml"))) == (1, 2)
    page = owner.get(address(preset)).content.decode()
    assert "is billed" in page
    assert "Try on Coffee (1 paid call)" in page


@pytest.mark.parametrize(
    ("target", "step", "status", "code"),
    [
        ("aiml", {"status": 401}, 503, "upstream_auth"),
        ("aiml", {"status": 400}, 503, "upstream_rejected"),
        ("aiml", {"status": 503}, 503, "upstream_unavailable"),
        ("aiml", {"body": "<html>"}, 503, "upstream_malformed"),
        ("result", {"status": 404}, 503, "result_unavailable"),
        ("upload", {"status": 500}, 503, "storage_unavailable"),
    ],
)
def test_trouble_of_a_service_is_said_and_is_no_crash(owner, preset, upstreams, target, step, status, code):
    upstreams.script(target, step, repeat_last=True)
    answer = owner.post(TRY_OUT, look(preset))
    assert answer.status_code == status
    assert f"({code}" in answer.json()["message"]


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_held_while_a_service_works(owner, preset, upstreams, monkeypatch):
    held, payload = [], aiml.payload

    def look_and_go_on(request):
        held.append(connection.connection)
        return payload(request)

    monkeypatch.setattr(aiml, "payload", look_and_go_on)
    assert owner.post(TRY_OUT, look(preset)).status_code == 200
    assert held == [None]


def test_crash_of_ours_is_no_page_of_ours(owner, preset, monkeypatch):
    monkeypatch.setattr(tryout.photos, "rendition", lambda *made: 1 / 0)
    answer = owner.post(TRY_OUT, look(preset))
    assert (answer.status_code, "(internal_error" in answer.json()["message"]) == (500, True)
