import re
from datetime import timedelta
from html import unescape

import pytest
from django.core.files.storage import default_storage
from django.urls import reverse
from django.utils import timezone

from generation import services, sweep
from generation.models import Run
from notifications.models import Notification

pytestmark = pytest.mark.django_db


@pytest.fixture
def alices(client, alice):
    client.force_login(alice)
    return client


@pytest.fixture
def made(start, work):
    runs = [start(), start(), start()]
    work()
    return runs


def shown(client, **query):
    return {run.pk for run in client.get(reverse("history"), query).context["page"]}


def moment(answer):
    return answer.content.decode().partition('name="moment" value="')[2].partition('"')[0]


# What is brought back comes without its news.
@pytest.mark.rows_by_hand
def test_deleted_picture_is_gone_and_undo_brings_it_back(alices, made):
    run = made[0]
    page = alices.post(reverse("delete", args=[run.pk]), follow=True)
    assert run.pk not in shown(alices)
    assert [alices.get(run.get_absolute_url()).status_code, alices.get(f"/runs/{run.pk}/picture").status_code] == [
        404
    ] * 2
    assert not Notification.objects.filter(subject=run.pk).exists()
    alices.post(reverse("restore"), {"moment": moment(page)})
    assert run.pk in shown(alices)
    assert alices.get(f"/runs/{run.pk}/picture").status_code == 200


def test_undo_after_the_sweep_is_too_late_and_says_so(alices, made, django_capture_on_commit_callbacks):
    run = Run.objects.get(pk=made[0].pk)
    page = alices.post(reverse("delete", args=[run.pk]), follow=True)
    long_ago = timezone.now() - timedelta(seconds=services.UNDO_SECONDS + 1)
    assert services.empty_bin() == 0
    assert default_storage.exists(run.result.name)
    Run.objects.filter(pk=run.pk).update(deleted_at=long_ago)
    with django_capture_on_commit_callbacks(execute=True):
        assert sweep.clean_up()["binned_runs"] == 1
    assert not default_storage.exists(run.result.name)
    answer = alices.post(reverse("restore"), {"moment": moment(page)}, follow=True)
    assert "too late" in answer.content.decode()
    assert run.pk not in shown(alices)


def test_undo_of_another_brings_nothing_back(alices, made, bob, client):
    page = alices.post(reverse("delete", args=[made[0].pk]), follow=True)
    client.force_login(bob)
    client.post(reverse("restore"), {"moment": moment(page)})
    assert Run.objects.get(pk=made[0].pk).deleted_at


@pytest.mark.parametrize("value", ["", "yesterday", "9999-99-99", "2026-01-01", "0001-01-01T00:00:00+14:00"])
def test_nonsense_to_undo_is_no_500(alices, value):
    assert alices.post(reverse("restore"), {"moment": value}).status_code in (302, 404)


# What is brought back comes without its news.
@pytest.mark.rows_by_hand
def test_selection_is_deleted_and_brought_back_as_one(alices, made):
    two = [str(run.pk) for run in made[:2]]
    page = alices.post(reverse("change_selected"), {"run": two, "delete": ""}, follow=True)
    assert "2 pictures were deleted." in page.content.decode()
    assert shown(alices) == {made[2].pk}
    alices.post(reverse("restore"), {"moment": moment(page)})
    assert shown(alices) == {run.pk for run in made}


def test_selection_becomes_favourites(alices, made):
    alices.post(reverse("change_selected"), {"run": [str(made[1].pk)], "favourite": ""})
    assert shown(alices, status="favourite") == {made[1].pk}


@pytest.mark.parametrize("run", ["x", "7a6dfb0e-2c1c-4f0e-8f43-0d1a2b3c4d5e"])
def test_selection_of_what_is_not_there_is_404(alices, run):
    assert alices.post(reverse("change_selected"), {"run": [run], "delete": ""}).status_code == 404


def test_selection_of_another_is_404(made, bob, client):
    client.force_login(bob)
    assert client.post(reverse("change_selected"), {"run": [str(made[0].pk)], "delete": ""}).status_code == 404
    assert Run.objects.filter(deleted_at=None).count() == 3


def test_filters_and_nonsense_as_filters(alices, made, start, catalogue):
    other = start(preset=catalogue.get(slug="noir_classic"))
    assert shown(alices, preset="noir_classic") == {other.pk}
    assert shown(alices, status="queued") == {other.pk}
    assert shown(alices, status="queued", preset="express_enhance") == set()
    assert shown(alices, status="nonsense") == {other.pk, *(run.pk for run in made)}


def test_more_is_loaded_as_a_part_of_the_page(alices, made, start, monkeypatch):
    monkeypatch.setattr("generation.views_history.PAGE_SIZE", 2)
    # In a test all are made at one time, and a list of them is ordered by their ids.
    newest, second, oldest = Run.objects.all()
    first = alices.get(reverse("history")).content.decode()
    assert shown(alices) == {newest.pk, second.pk}
    (more,) = re.findall(r'hx-get="\?([^"]+)"', first)
    # What was made in the meanwhile moves nothing, nor does what was taken away.
    Run.objects.filter(pk=start().pk).update(created_at=timezone.now() + timedelta(minutes=1))
    services.bin_runs(Run.objects.filter(pk=second.pk))
    part = alices.get(f"{reverse('history')}?{unescape(more)}", headers={"HX-Request": "true"}).content.decode()
    assert re.findall(r'name="run" value="([^"]+)"', part) == [str(oldest.pk)]
    assert "<html" not in part
    assert "before=" not in part


@pytest.mark.parametrize("before", ["x", "7a6dfb0e-2c1c-4f0e-8f43-0d1a2b3c4d5e"])
def test_more_than_what_is_not_there_is_404(alices, made, before):
    assert alices.get(reverse("history"), {"before": before}).status_code == 404


def test_dot_shows_while_something_is_made(alices, start, work):
    start()
    waiting = alices.get(reverse("activity")).content.decode()
    assert 'class="dot"' in waiting
    assert "hx-trigger" in waiting
    work()
    after = alices.get(reverse("activity")).content.decode()
    assert 'class="dot"' not in after
    assert "hx-trigger" not in after
