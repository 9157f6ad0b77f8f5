"""What somebody sees when something goes wrong: a sentence that says what to do, whatever else is broken."""

import html
import re

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from stefna import problems


class Nothing:
    """A request that knows its path and nothing more: whoever asks it for a user or a session fails."""

    path_info = "/"


def words(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (RuntimeError(), 500, "It is our fault, and it was logged."),
        (OperationalError(), 503, "Wait a minute, then reload this page."),
    ],
)
def test_page_of_a_broken_server_asks_nobody_anything(error, status, sentence):
    # There is no database for this test: asking it anything is an error of its own.
    try:
        raise error
    except type(error):
        answer = problems.server_error(Nothing())
    assert (answer.status_code, answer.get("Retry-After")) == (status, "5" if status == 503 else None)
    assert sentence in words(answer.content.decode())


def test_page_of_a_broken_server_needs_no_static_files(settings, tmp_path):
    settings.STATIC_ROOT = tmp_path
    manifest = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": manifest}
    answer = problems.server_error(Nothing())
    assert (answer.status_code, answer.content) == (500, b"Something went wrong on our side.")


@pytest.fixture
def fail(monkeypatch):
    """Make the front page raise something."""

    def with_error(error):
        def view(*arguments, **options):
            raise error

        monkeypatch.setattr("generation.views.guests.offer", view)

    return with_error


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (SuspiciousOperation(), 400, "Go back, reload the page and try again."),
        (PermissionDenied(), 403, "If you have another one, sign in with it."),
        (RuntimeError(), 500, "tell us the number below. To the studio Number of this request: 0123456789abcdef"),
        (OperationalError(), 503, "then reload this page. To the studio Number of this request: 0123456789abcdef"),
    ],
)
def test_error_is_answered_with_what_to_do(fail, error, status, sentence):
    fail(error)
    client = Client(raise_request_exception=False)
    answer = client.get("/", headers={"X-Request-ID": "0123456789abcdef"})
    assert answer.status_code == status
    assert sentence in words(answer.content.decode())
    assert '<a href="/" role="button">' in answer.content.decode()


@pytest.mark.django_db
def test_nothing_at_an_address_leads_to_the_history(client):
    answer = client.get("/runs/of-nobody")
    assert answer.status_code == 404
    assert "Your own pictures are in the history." in words(answer.content.decode())
    assert reverse("history") in answer.content.decode()


@pytest.mark.django_db
def test_form_of_an_old_page_is_refused_with_what_to_do(alice):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    answer = client.post(reverse("notifications_read"))
    assert answer.status_code == 403
    assert "Nothing was sent. Go back, reload the page and send it again." in words(answer.content.decode())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError(), 500), (OperationalError(), 503), (PermissionDenied(), 403)]
)
def test_error_pages_are_in_the_visitors_language(fail, error, status):
    fail(error)
    answer = Client(raise_request_exception=False).get("/", headers={"Accept-Language": "de"})
    assert (answer.status_code, '<html lang="de">' in answer.content.decode()) == (status, True)
