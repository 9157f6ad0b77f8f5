"""Lists of 20,000 entries, in every field that takes a list: refused before anything is looked for."""

import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from generation.models import Preset, Run
from generation.views_history import MAX_SELECTED
from stefna.tests.app import code

pytestmark = pytest.mark.django_db
MANY = 20_000


def queries(table, call):
    """Call, and return the answer and how many queries read or wrote a table."""
    with CaptureQueriesContext(
        connection,
    ) as captured:
        answer = call()
    return answer, sum(table in query["sql"] for query in captured)


def batch(app, presets):
    asked = {"photo_id": str(uuid.uuid4()), "presets": presets}
    return app("post", "batches", asked, **{"Idempotency-Key": "b"})


def test_batch_of_many_presets_is_refused_without_a_query(alices, catalogue):
    slugs = [f"preset_{number}" for number in range(MANY)]
    answer, count = queries("generation_", lambda: batch(alices, slugs))
    assert (code(answer), count) == ((400, "invalid"), 0)
    assert set(answer.json()["errors"]) == {"presets"}
    assert len(answer.content) < 1000


def test_presets_of_a_batch_are_found_by_one_query(alices, catalogue):
    known = list(Preset.objects.looks().values_list("slug", flat=True)[:10])
    answer, count = queries("generation_preset", lambda: batch(alices, [*known, "nothing", "nothing_else"]))
    assert (code(answer), count) == ((400, "invalid"), 1)
    assert [sentence.split("=")[1].split()[0] for sentence in answer.json()["errors"]["presets"]] == [
        "nothing",
        "nothing_else",
    ]


@pytest.mark.parametrize("preset", [["duotone"] * MANY, "x" * MANY, {"slug": "duotone"}, 7])
def test_preset_that_is_no_slug_is_refused_without_a_query(alices, catalogue, preset):
    asked = {"photo_id": str(uuid.uuid4()), "preset": preset}
    for path in ("runs", "batches"):
        answer, count = queries(
            "generation_", lambda path=path: alices("post", path, asked, **{"Idempotency-Key": "b"})
        )
        assert (code(answer), count) == ((400, "invalid"), 0)
        assert len(answer.content) < 1000


def test_many_notifications_are_refused_without_a_query(alices):
    ids = [str(uuid.uuid4()) for _ in range(MANY)]
    answer, count = queries("notifications_", lambda: alices("post", "notifications/read", {"ids": ids}))
    assert (code(answer), count) == ((400, "invalid"), 0)
    assert set(answer.json()["errors"]) == {"ids"}


@pytest.mark.parametrize(("number", "status"), [(MANY, 400), (MAX_SELECTED + 1, 302)])
def test_many_selected_runs_are_refused_without_a_query(client, alice, number, status):
    client.force_login(alice)
    fields = {"run": [str(uuid.uuid4()) for _ in range(number)], "delete": ""}
    answer, count = queries("generation_", lambda: client.post(reverse("change_selected"), fields))
    assert (answer.status_code, count) == (status, 0)
    page = client.get(reverse("history"))
    assert (f"Select up to {MAX_SELECTED} pictures at once" in page.content.decode()) == (status == 302)


def test_selected_runs_are_deleted_by_a_fixed_number_of_queries(client, alice, start, work):
    client.force_login(alice)
    runs = [start().pk for _ in range(6)]
    work()
    counts = []
    for some in (runs[:1], runs[1:]):
        fields = {"run": some, "delete": ""}
        answer, count = queries("", lambda fields=fields: client.post(reverse("change_selected"), fields))
        assert answer.status_code == 302
        counts.append(count)
    assert counts[0] == counts[1]
    assert not Run.objects.filter(deleted_at=None).exists()


@pytest.mark.parametrize(("number", "looked_for"), [(MANY, 0), (900, 0), (13, 0), (12, 1)])
def test_many_looks_are_refused_before_they_are_looked_for(client, alice, catalogue, number, looked_for):
    client.force_login(alice)
    fields = {"look": [f"look_{at}" for at in range(number)], "sample": "portrait", "key": "k"}
    answer, count = queries("IN ('look_0'", lambda: client.post(reverse("create"), fields))
    assert (answer.status_code, count) == (400, looked_for)
    assert not Run.objects.exists()
    # The page that says so has chosen no more of them than it may.
    assert len(answer.content) < 300_000


@pytest.mark.parametrize("number", [MANY, 900])
def test_many_looks_of_a_visitor_make_no_long_address(client, catalogue, settings, number):
    settings.ALLOW_GUESTS = False
    answer = client.post(reverse("create"), {"look": [f"look_{at}" for at in range(number)], "photo_id": "x" * MANY})
    assert answer.status_code in (302, 400)
    assert len(answer.headers.get("Location", "")) < 2000


@pytest.mark.parametrize("path", ["/api/v1/runs", "/api/v1/presets", "/", "/runs/"])
def test_many_filters_are_a_wrong_request(client, alice, catalogue, path):
    client.force_login(alice)
    address = f"{path}?{'&'.join(f'look=a{at}&preset=a{at}' for at in range(MANY // 2))}"
    assert client.get(address).status_code == 400
