"""The circuits at the owner's desk."""

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from generation.providers import endpoints
from generation.providers.endpoints import Outcome, call, configured

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:circuits")


@pytest.fixture
def two(settings):
    settings.AIML_ENDPOINTS = [("https://one.example", "secret-1", 1.0), ("https://two.example/", "secret-2", 2.0)]
    return configured()


def make_calls(endpoint, *outcomes):
    for outcome in outcomes:
        with call([endpoint]) as made:
            made.outcome = outcome


def described(page):
    return [(one["state"], one["calls"], one["failed"], bool(one["since"])) for one in page.context["circuits"]]


def test_page_shows_every_endpoint_and_no_key(owner, two):
    make_calls(two[0], *[Outcome.GOOD] * 5, *[Outcome.FAILED] * 5)
    make_calls(two[1], Outcome.GOOD)
    page = owner.get(PAGE)
    assert described(page) == [("open", 10, 5, True), ("closed", 1, 0, False)]
    text = page.content.decode()
    assert "one.example" in text
    assert "two.example" in text
    assert "secret" not in text
    assert text.count("Close it now") == 1


def test_circuit_whose_time_is_up_is_half_open(owner, two, settings):
    make_calls(two[0], Outcome.REFUSED)
    endpoints.cache.delete(endpoints._key(two[0], "until"))
    assert described(owner.get(PAGE))[0] == ("half_open", 0, 0, True)


def test_without_a_service_the_page_says_so(owner):
    assert "There is no endpoint" in owner.get(PAGE).content.decode()


def test_superuser_closes_a_circuit_and_it_is_written_down(owner, two, caplog):
    make_calls(two[0], Outcome.REFUSED)
    assert owner.post(PAGE, {"endpoint": two[0].name}).url == PAGE
    assert described(owner.get(PAGE)) == [("closed", 0, 0, False), ("closed", 0, 0, False)]
    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.change_message) == (f"Circuit of {two[0].name}", "Closed by hand.")
    assert "circuit_reset" in caplog.text
    assert owner.post(PAGE, {"endpoint": "nobody"}).status_code == 404
    assert owner.get(reverse("admin:index")).status_code == 200


def test_page_is_for_staff_who_see_runs_and_closing_for_superusers(client, alice, staff, two):
    make_calls(two[0], Outcome.REFUSED)
    closing = {"endpoint": two[0].name}
    assert reverse("account_login") in client.get(PAGE).url
    client.force_login(alice)
    assert client.get(PAGE, follow=True).status_code == 403
    assert staff("view_preset").get(PAGE).status_code == 403
    looking = staff("view_run", "change_run")
    page = looking.get(PAGE)
    assert (page.status_code, "Close it now" in page.content.decode()) == (200, False)
    assert looking.post(PAGE, closing).status_code == 403
    assert endpoints.circuit(two[0]).state == "open"


def test_index_leads_to_the_pages_that_somebody_may_see(owner, staff):
    assert PAGE in owner.get(reverse("admin:index")).content.decode()
    assert PAGE not in staff("view_preset").get(reverse("admin:index")).content.decode()
