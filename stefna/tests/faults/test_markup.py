"""Names and sentences that are markup: shown as they are on every page, in mails and in JSON, and never run."""

import io
import json
import uuid
import zipfile

import pytest
from django.core import mail
from django.urls import reverse

from accounts.models import Profile
from conftest import small
from generation import exports, photos, services
from generation.models import Preset, Run
from notifications import emails
from notifications.models import Notification
from stefna.tests.stage import just_signed_in

MARKUP = """"'><script>document.title="run"</script><img src=x onerror=alert(1)>"""
SHOWN = "&lt;script&gt;document.title="


@pytest.fixture
def marked(alice, catalogue, work):
    """A preset, a name, a file, runs that ended well and badly, a batch and their news: all of them say the same."""
    Profile.objects.filter(user=alice).update(display_name=MARKUP)
    Preset.objects.filter(slug="duotone").update(name=MARKUP, description=MARKUP, tag="<script>")
    photo = photos.accept(alice, photos.Upload(small("portrait"), MARKUP))
    looks = [Preset.objects.get(slug=slug) for slug in ("duotone", "noir_classic")]
    runs = services.start_batch(user=alice, photo=photo, presets=looks, key=uuid.uuid4().hex)
    runs.append(services.start_run(user=alice, photo=photo, preset=looks[0], key=uuid.uuid4().hex))
    runs.append(services.start_run(user=alice, photo=photo, preset=looks[1], key=uuid.uuid4().hex))
    Run.objects.filter(preset_slug="noir_classic").update(preset_name=MARKUP, recipe=None, prompt=MARKUP)
    work()
    Run.objects.filter(status="failed").update(error_message=MARKUP, mode="custom")
    Notification.objects.filter(kind="run_failed").update(message=MARKUP)
    return runs


def pages(runs):
    batch, failed = runs[0].get_batch_url(), runs[3].get_absolute_url()
    return ["/", reverse("history"), batch, runs[2].get_absolute_url(), failed, "/notifications/", reverse("profile")]


@pytest.mark.django_db
@pytest.mark.parametrize("part", [{}, {"HX-Request": "true"}], ids=["page", "part"])
def test_pages_show_markup_as_it_is(client, alice, marked, part):
    client.force_login(alice)
    for address in pages(marked):
        answer = client.get(address, headers=part)
        text = answer.content.decode()
        assert (answer.status_code, "<script>document" in text, "<img src=x" in text) == (200, False, False), address
        assert SHOWN in text, address


@pytest.mark.django_db
def test_answers_of_the_api_are_no_pages(client, alice, marked):
    client.force_login(alice)
    said = ""
    for path in ("runs", f"batches/{marked[0].batch}", "presets", "notifications", "profile", "runs?status=<script>"):
        answer = client.get(f"/api/v1/{path}")
        assert answer["Content-Type"] in ("application/json", "application/problem+json")
        assert answer["X-Content-Type-Options"] == "nosniff"
        said += json.dumps(answer.json())
    # Unchanged: who shows it escapes it.
    assert said.count(json.dumps(MARKUP)) >= 10
    assert just_signed_in(alice).post("/api/v1/profile/export").status_code == 202
    assert exports.make_next()
    export = b"".join(client.get(client.get("/api/v1/profile/export").json()["url"]).streaming_content)
    with zipfile.ZipFile(io.BytesIO(export)) as archive:
        assert json.loads(archive.read("manifest.json"))["photos"][0]["name"] == MARKUP


@pytest.mark.django_db(transaction=True)
def test_mail_shows_markup_as_it_is(alice):
    for kind in ("run_succeeded", "run_failed", "batch_done"):
        emails.email_news(
            alice.pk, kind=kind, look=MARKUP + "\nBcc: all@example.com", url="/", language="en", reason=MARKUP
        )  # fmt: skip
    assert emails.finish(10)
    assert len(mail.outbox) == 3
    for message in mail.outbox:
        ((page, _),) = message.alternatives
        assert ("<script>document" in page, "<img src=x" in page, SHOWN in page) == (False, False, True)
        assert message.subject.startswith(MARKUP)
        assert message.recipients() == ["alice@example.com"]
        assert message.message()["Bcc"] is None


@pytest.mark.browser
def test_browser_runs_nothing_and_reports_nothing(still, open_page):
    member = still.call("member")
    paths = [still.call("run", email=member["email"], state=state) for state in ("succeeded", "failed", "queued")]
    paths.append(still.call("batch", email=member["email"], states=["failed", "queued", "queued"]))
    still.call("rename", email=member["email"], words=MARKUP)
    page = open_page(member=member)
    for path in ["/runs/", "/notifications/", "/account/profile/", *paths]:
        page.goto(still.url + path)
        assert "document.title=" in page.content(), path
        assert page.locator("img[src=x]").count() == 0
        assert page.title() != "run"
