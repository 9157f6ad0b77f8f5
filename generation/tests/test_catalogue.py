"""The catalogue as a file: out, in again, and what is wrong with one that somebody made by hand."""

import json

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from generation import catalogue as files
from generation.models import Preset

pytestmark = pytest.mark.django_db

EXPORT = reverse("admin:generation_preset_export")
IMPORT = reverse("admin:generation_preset_import")
MARKUP = "<script>alert('x')</script>"
RECIPE = {"version": 1, "steps": [{"op": "bw"}]}
ENTRY = {
    "slug": "mine",
    "name": "Mine",
    "tag": "Mine",
    "category": "soft",
    "prompt": "a soft one",
    "strength": 0.5,
    "recipe": RECIPE,
}


def rows():
    return list(Preset.objects.values(*files.FIELDS))


def send(owner, entries):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return owner.post(IMPORT, {"file": SimpleUploadedFile("presets.json", text, "application/json")})


def told(page):
    return [(entry.slug, entry.kind, entry.problems) for entry, _ in page.context["rows"]]


# -- Out and in again ----------------------------------------------------------------------------------------


def test_what_is_exported_can_be_loaded_and_is_the_same(catalogue, tmp_path):
    Preset.objects.filter(slug="noir_classic").update(is_active=False, position=99, default_seed=7, name='"Noir" \\ é')
    before, file = rows(), tmp_path / "presets.json"
    call_command("export_presets", file)
    Preset.objects.all().delete()
    call_command("load_presets", file, verbosity=0)
    assert rows() == before
    Preset.objects.update(name="Changed", is_active=True)
    call_command("load_presets", file, "--overwrite", verbosity=0)
    assert rows() == before


def test_export_of_the_page_is_that_of_the_command(owner, catalogue, capsys):
    capsys.readouterr()
    call_command("export_presets")
    answer = owner.get(EXPORT)
    assert answer.content.decode() == capsys.readouterr().out
    assert "attachment" in answer["Content-Disposition"]
    assert [entry["slug"] for entry in answer.json()] == list(Preset.objects.values_list("slug", flat=True))
    chosen = Preset.objects.get(slug="duotone")
    sent = {"action": "export_selected", "_selected_action": [chosen.pk]}
    selected = owner.post(reverse("admin:generation_preset_changelist"), sent)
    assert [entry["slug"] for entry in selected.json()] == ["duotone"]


def test_own_catalogue_is_one_that_can_be_read(catalogue):
    assert {entry.kind for entry in files.read(files.write(catalogue))} == {"same"}
    recipe = catalogue[0].recipe
    assert json.loads(files.recipe_text(recipe)) == recipe


# -- Dry run and confirmation --------------------------------------------------------------------------------


def test_import_is_shown_first_and_written_when_confirmed(owner, preset):
    before = rows()
    entries = [{"slug": preset.slug, "strength": 0.5, "name": MARKUP}, ENTRY, {"slug": "noir_classic", "position": 999}]
    Preset.objects.filter(slug="noir_classic").update(position=999)
    before = rows()
    page = send(owner, entries)
    assert told(page) == [(preset.slug, "changed", []), ("mine", "new", []), ("noir_classic", "same", [])]
    assert "<del>0.7</del><ins>0.5</ins>" in page.content.decode()
    assert "<script>alert" not in page.content.decode()
    assert rows() == before
    assert owner.post(IMPORT, {"text": page.context["text"], "confirm": "Import"}).status_code == 302
    preset.refresh_from_db()
    assert (preset.strength, preset.name, preset.tag) == (0.5, MARKUP, "Clarity")
    mine = Preset.objects.get(slug="mine")
    assert (mine.recipe, mine.mode, mine.is_active, mine.position) == (RECIPE, "preset", True, 1)
    logged = {entry.object_id: json.loads(entry.change_message) for entry in LogEntry.objects.all()}
    assert logged == {
        str(mine.pk): [{"added": {}}],
        str(preset.pk): [
            {
                "changed": {
                    "fields": ["strength", "name"],
                    "values": {"strength": [0.7, 0.5], "name": ["Express Enhance", MARKUP]},
                }
            }
        ],
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "This field is required"),
        (b"{", "This is not JSON"),
        (b"[NaN]", "NaN is no number"),
        (b"\xff\xfe", "not a text in UTF-8"),
        (b'["\\u0000"]', "code 0"),
        (b'["\\ud800"]', "This is not JSON"),
        (b"{}", "A catalogue is a list"),
        (b"[" * 200_000, "This is not JSON"),
        (b"[" + b"1," * 1000 + b"1]", "A catalogue is a list"),
        (b" " * 1_000_001, "A catalogue has up to 1000 kB"),
    ],
)
def test_what_is_no_catalogue_is_said(owner, catalogue, text, sentence):
    page = send(owner, text)
    said = " ".join(error for found in page.context["form"].errors.values() for error in found)
    assert sentence in said or (not text and "empty" in said)
    assert page.context["rows"] == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"slug": None}, "slug: it is missing"),
        ({"slug": "Not A Slug"}, "slug: "),
        ({"name": ""}, "name: "),
        ({"name": None}, "name: "),
        ({"name": ["x"]}, "name: it cannot be an object or a list."),
        ({"colour": "red"}, "colour: a preset has no such field."),
        ({"id": 1}, "id: a preset has no such field."),
        ({"strength": 3}, "strength: "),
        ({"strength": "much"}, "strength: "),
        ({"default_seed": 0}, "default_seed: "),
        ({"position": 10**30}, "position: "),
        ({"is_active": "perhaps"}, "is_active: "),
        ({"mode": "party"}, "mode: "),
        ({"recipe": {"version": 1, "steps": [{"op": "explode"}]}}, "recipe: "),
        ({"recipe": None}, "recipe: "),
    ],
)
def test_wrong_entry_is_said_and_nothing_is_written(owner, catalogue, tmp_path, changes, problem):
    before = rows()
    fine = ENTRY | {"slug": "fine"}
    page = send(owner, [fine, ENTRY | changes])
    assert [kind for _, kind, _ in told(page)] == ["new", "wrong"]
    assert told(page)[1][2][0].startswith(problem)
    assert not page.context["may_confirm"]
    owner.post(IMPORT, {"text": json.dumps([fine, ENTRY | changes]), "confirm": "Import"})
    assert rows() == before
    file = tmp_path / "presets.json"
    file.write_text(json.dumps([fine, ENTRY | changes]))
    with pytest.raises(CommandError, match="Entry 2"):
        call_command("load_presets", file)
    assert rows() == before


def test_entries_that_are_no_presets_or_come_twice_are_wrong(owner, catalogue):
    assert [kind for _, kind, _ in told(send(owner, [ENTRY, ENTRY, 1, "x", None, []]))] == ["new", *["wrong"] * 5]


# -- Who may -------------------------------------------------------------------------------------------------


def test_import_and_export_are_for_staff_who_may(client, alice, staff, catalogue):
    for url, too_little, enough in (
        (EXPORT, ["view_run"], ["view_preset"]),
        (IMPORT, ["view_preset", "add_preset"], ["add_preset", "change_preset"]),
    ):
        client.logout()
        assert reverse("account_login") in client.get(url).url
        client.force_login(alice)
        assert client.get(url, follow=True).status_code == 403
        assert staff(*too_little).get(url).status_code == 403
        assert staff(*enough).get(url).status_code == 200


def test_import_asks_no_more_for_a_larger_file(owner, catalogue):
    asked = []
    for text in (files.write(catalogue[:1]), files.write(catalogue)):
        with CaptureQueriesContext(connection) as queries:
            send(owner, text.encode())
        asked.append(len(queries))
    assert asked[0] == asked[1] < 8
