"""Runs at the owner's desk: to look at, to find, and to try again."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from conftest import asked_for
from generation import attempts, services
from generation.models import Run
from generation.timeline import bar, timeline

pytestmark = pytest.mark.django_db

LIST = reverse("admin:generation_run_changelist")
MARKUP = "<script>alert('x')</script>"


def address(run):
    return reverse("admin:generation_run_change", args=[run.pk])


def again(run):
    return reverse("admin:generation_run_retry", args=[run.pk])


def shown(page):
    return [run.pk for run in page.context["cl"].result_list]


@pytest.fixture
def failed(start):
    run = start()
    attempts.fail_run(run, code="upstream_timeout", message="The picture service took too long.", possible_cost=True)
    run.refresh_from_db()
    return run


def copies(run, number):
    for _ in range(number):
        copy = Run.objects.get(pk=run.pk)
        copy.pk = uuid.uuid4()
        yield copy


# -- Who may -------------------------------------------------------------------------------------------------


def test_pages_are_for_staff_who_may_look(client, alice, staff, failed):
    for url in (LIST, address(failed), reverse("admin:generation_run_thumbnail", args=[failed.pk, "photo"])):
        client.logout()
        assert reverse("account_login") in client.get(url).url
        client.force_login(alice)
        assert client.get(url, follow=True).status_code == 403
        assert staff("view_preset").get(url).status_code == 403
        assert staff("view_run").get(url).status_code == 200


def test_staff_see_small_pictures_until_their_user_deletes_them(staff, start, work):
    run = start()
    work()
    looking = staff("view_run")
    for which, status in (("photo", 200), ("result", 200), ("avatar", 404)):
        answer = looking.get(reverse("admin:generation_run_thumbnail", args=[run.pk, which]))
        assert (answer.status_code, answer["Cache-Control"][:7]) == (status, "private")
    # The pages of users know nothing of staff.
    assert looking.get(reverse("photo", args=[run.photo.pk, "thumbnail"])).status_code == 404
    services.bin_runs([run])
    for which in ("photo", "result"):
        assert looking.get(reverse("admin:generation_run_thumbnail", args=[run.pk, which])).status_code == 404
    assert "/photo" not in looking.get(address(run)).content.decode().split('id="content"')[1]


def test_nothing_can_be_changed_here(owner, failed):
    for part in ("change", "delete"):
        page = reverse(f"admin:generation_run_{part}", args=[failed.pk])
        assert owner.post(page, {"status": "queued"}).status_code == 403
    assert owner.get(reverse("admin:generation_run_add")).status_code == 403
    failed.refresh_from_db()
    assert failed.status == "failed"


# -- Finding one ---------------------------------------------------------------------------------------------


@pytest.mark.rows_by_hand
def test_list_asks_the_same_for_one_three_and_a_hundred_runs(owner, failed):
    one = asked_for(owner, LIST)
    for number in (2, 97):
        Run.objects.bulk_create(copies(failed, number))
        assert asked_for(owner, LIST) == one
    assert Run.objects.count() == 100
    assert one < 15


def test_runs_are_found_by_what_they_are(owner, failed, start, bob):
    other = start()
    yesterday = timezone.now() - timedelta(days=1)
    Run.objects.filter(pk=other.pk).update(user=bob, created_at=yesterday, preset_slug="noir_classic")
    searches = {
        f"q={failed.pk}": [failed.pk],
        f"q={uuid.uuid4()}": [],
        "q=alice@example": [failed.pk],
        "q=bob@example.com": [other.pk],
        "status__exact=failed": [failed.pk],
        "error_code=upstream_timeout": [failed.pk],
        "error_code=upstream_auth": [],
        "preset_slug=noir_classic": [other.pk],
        "provider=embedded": [failed.pk, other.pk],
        f"user__id__exact={bob.pk}": [other.pk],
        f"day={yesterday:%Y-%m-%d}": [other.pk],
        "day=2001-02-03": [],
        "day=yesterday": [],
    }
    assert {words: shown(owner.get(f"{LIST}?{words}")) for words in searches} == searches


# -- What happened -------------------------------------------------------------------------------------------


def test_timeline_tells_what_the_row_knows(owner, failed):
    start = timezone.now() - timedelta(minutes=1)
    facts = {
        "upload_ms": 40,
        "created_at": start,
        "started_at": start + timedelta(milliseconds=250),
        "queue_ms": 250,
        "model_ms": 4200,
        "store_ms": 300,
        "total_ms": 5000,
        "finished_at": start + timedelta(seconds=5),
        "attempts": 2,
        "worker": "host:1:ab",
        "endpoint": "api.example.com#0123ab",
        "upstream_request_id": "req-1",
    }
    Run.objects.filter(pk=failed.pk).update(**facts)
    failed.refresh_from_db()
    moments = timeline(failed)
    assert [(one.title, one.facts) for one in moments] == [
        ("Photo stored", [("upload", "40 ms")]),
        ("Created", [("mode", "Preset"), ("provider", "embedded")]),
        ("Claimed by a worker", [("queue", "250 ms"), ("attempts", 2), ("worker", "host:1:ab")]),
        (
            "Made",
            [
                ("model", "4.2 s"),
                ("endpoint", "api.example.com#0123ab"),
                ("upstream request id", "req-1"),
                ("calls sent and never answered, perhaps billed", 1),
            ],
        ),
        ("Stored", [("store", "300 ms")]),
        (
            "Failed",
            [("total", "5.0 s"), ("error", "upstream_timeout"), ("message", "The picture service took too long.")],
        ),
    ]
    assert bar(failed) == [
        ("queue", "250 ms", 0, 50),
        ("model", "4.2 s", 50, 840),
        ("store", "300 ms", 890, 60),
        ("other", "250 ms", 950, 50),
    ]
    page = owner.get(address(failed)).content.decode()
    for said in ("upstream_timeout", "req-1", "api.example.com#0123ab", "4.2 s"):
        assert said in page


def test_run_in_every_state_has_a_page(owner, start, work):
    done = start(seed=7)
    work()
    earlier = start(seed=7)
    waiting = start(seed=7, fresh=True)
    pages = {one.pk: owner.get(address(one)) for one in (done, earlier, waiting)}
    titles = {pk: [moment.title for moment in page.context["timeline"]] for pk, page in pages.items()}
    assert titles[done.pk][-2:] == ["Stored", "Done"]
    assert "Answered with an earlier result" in titles[earlier.pk]
    assert titles[waiting.pk][-1] == "Created"
    assert [page.context["may_retry"] for page in pages.values()] == [False] * 3
    for page in pages.values():
        assert page.status_code == 200


def test_markup_in_a_run_is_shown_as_it_is(owner, failed):
    values = dict.fromkeys(("preset_name", "error_message", "endpoint", "upstream_request_id", "prompt"), MARKUP)
    Run.objects.filter(pk=failed.pk).update(**values, recipe={"op": MARKUP})
    for url in (LIST, address(failed)):
        page = owner.get(url).content.decode()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


# -- Once more -----------------------------------------------------------------------------------------------


def test_failed_run_is_tried_again_for_its_user(owner, failed, work):
    Run.objects.filter(pk=failed.pk).update(language="de")
    assert again(failed) in owner.get(address(failed)).content.decode()
    answer = owner.post(again(failed))
    new = Run.objects.get(retry_of=failed)
    assert answer.url == address(new)
    assert (new.user, new.photo, new.preset_slug, new.language) == (failed.user, failed.photo, failed.preset_slug, "de")
    assert LogEntry.objects.get().change_message == f"Tried again as {new.pk}."
    page = owner.get(address(failed)).content.decode()
    assert again(failed) not in page
    assert address(new) in page
    # Whoever presses twice gets the same.
    assert owner.post(again(failed)).url == address(new)
    assert Run.objects.filter(retry_of=failed).count() == 1
    work()
    new.refresh_from_db()
    assert new.status == "succeeded"


def test_retry_is_a_post_of_staff_who_may(owner, client, alice, staff, failed):
    assert owner.get(again(failed)).status_code == 405
    client.force_login(alice)
    assert client.post(again(failed), follow=True).status_code == 403
    looking = staff("view_run")
    assert looking.post(again(failed)).status_code == 403
    assert again(failed) not in looking.get(address(failed)).content.decode()
    assert Run.objects.count() == 1
    assert staff("view_run", "change_run").post(again(failed)).status_code == 302
    assert Run.objects.count() == 2


def refused(owner, run):
    return [str(message) for message in owner.post(again(run), follow=True).context["messages"]]


def test_retry_says_why_not(owner, failed, start, settings):
    assert refused(owner, start()) == ["Only a run that failed or was cancelled can be tried again."]
    settings.DAILY_RUN_LIMIT = 1
    assert refused(owner, failed)[0].startswith("It was not tried again: ")
    settings.DAILY_RUN_LIMIT = 0
    Run.objects.filter(pk=failed.pk).update(error_retryable=False)
    assert refused(owner, failed) == ["The same photo with the same look would be refused again."]
    Run.objects.filter(pk=failed.pk).update(error_retryable=True)
    type(failed.user).objects.filter(pk=failed.user.pk).update(is_active=False)
    assert refused(owner, failed) == ["Its user's account is switched off."]
    services.delete_run(failed)
    assert refused(owner, failed) == ["Its user has deleted it or its photo."]
    assert Run.objects.filter(retry_of=failed).count() == 0
