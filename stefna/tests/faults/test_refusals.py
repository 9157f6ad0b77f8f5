"""How the API refuses: numbers that are none, too many requests of one kind, and what the database does not take."""

import uuid

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DataError, IntegrityError, InterfaceError, OperationalError, connection, transaction
from rest_framework.test import APIRequestFactory
from rest_framework.throttling import SimpleRateThrottle

from accounts.models import Profile, User
from conftest import small
from generation.models import Run
from stefna import problems
from stefna.tests.app import code

pytestmark = pytest.mark.django_db
NO_NUMBERS = [
    True,
    False,
    "nan",
    "inf",
    "-Infinity",
    "1_0",
    " 1",
    "1 ",
    "1\n",
    "+1",
    "0x1",
    "1e0",
    "\u0661",
    "",
    None,
    [],
    {},
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("field", ["strength", "seed"])
def test_what_is_no_number_is_refused(alices, sent, field, value):
    answer = alices.run(photo_id=sent["id"], preset="duotone", **{field: value})
    assert code(answer) == (400, "invalid")
    assert list(answer.json()["errors"]) == [field]
    assert not Run.objects.exists()


@pytest.mark.parametrize("value", [True, "\u0663", "3_0", 2.5, "2.0"])
def test_what_is_no_number_of_variations_is_refused(alices, sent, value):
    fields = {"photo_id": sent["id"], "preset": "duotone", "variations": value}
    answer = alices("post", "batches", fields, **{"Idempotency-Key": "k"})
    assert (code(answer), list(answer.json()["errors"])) == ((400, "invalid"), ["variations"])


@pytest.mark.parametrize(("strength", "seed"), [(0.7, 7), ("0.7", "7"), (1, 7.0)])
def test_numbers_of_json_and_of_forms_are_taken(alices, sent, strength, seed):
    answer = alices.run(photo_id=sent["id"], preset="duotone", strength=strength, seed=seed)
    assert answer.status_code == 202
    assert (answer.json()["strength"], answer.json()["seed"]) == (float(strength), 7)


def alices_headers(alices):
    return {"Authorization": f"Bearer {alices.token}", "X-App-Key": alices.key}


def refusals(alices, client):
    """Yield a refusal of each kind that a library of ours would have words for."""
    yield client.get("/api/v1/profile")
    yield alices("put", "profile", {})
    yield alices("post", "photos", {})
    yield alices("get", "runs?cursor=x")
    yield alices("get", "runs?status=x")
    yield client.post("/api/v1/photos", b"<x/>", content_type="text/xml", headers=alices_headers(alices))
    yield alices("post", "notifications/read", {})
    yield alices("get", "runs/" + str(uuid.uuid4()))
    yield alices.run()
    yield alices("post", "runs", {})


def test_every_refusal_is_in_our_words_and_says_of_which_field(alices, client):
    libraries = ["credentials", "Method", "media type", "cursor.", "throttled", "query", "parse error"]
    for answer in refusals(alices, client):
        problem = answer.json()
        assert 400 <= answer.status_code < 500
        assert not [words for words in libraries if words in problem["detail"]], problem
        assert ("errors" in problem) == (answer.status_code == 400), problem


def test_each_kind_of_request_has_a_limit_of_its_own(alices, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"upload": "2/min", "change": "2/min", "poll": "5/min"})
    photo = {"photo": SimpleUploadedFile("a.jpg", small("coffee"))}
    looked = [alices("get", path).status_code for path in ("photos", "runs", "profile", "photos", "runs", "profile")]
    assert looked == [200] * 5 + [429]
    assert alices("post", "photos", files=photo).status_code == 201
    assert code(alices.run())[0] == 400
    assert code(alices.run()) == (429, "throttled")
    changed = [alices("patch", "profile", {"display_name": "A"}).status_code for _ in range(3)]
    assert changed == [200, 200, 429]


# -- What the database does not take -----------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch):
    """Let the database raise an error where a profile is read."""

    def fail(error):
        def refuse(*arguments, **options):
            raise error

        monkeypatch.setattr(Profile.objects, "upsert", refuse)

    return fail


CASES = [(IntegrityError, 409), (DataError, 400), (OperationalError, 503), (InterfaceError, 503)]


@pytest.mark.parametrize(("error", "status"), CASES)
def test_only_a_database_that_is_away_is_unavailable(alices, client, alice, failing, error, status):
    client.force_login(alice)
    client.raise_request_exception = False
    failing(error("x"))
    answer = alices("get", "profile")
    assert answer.status_code == status
    assert ("Retry-After" in answer) == (status in (409, 503))
    page = client.get("/account/profile/")
    assert page.status_code == status
    assert "<html" in page.content.decode()


def test_conflict_of_the_database_is_answered_as_one(alice):
    """With the error that the database itself raises."""
    with pytest.raises(IntegrityError) as found, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO accounts_profile (user_id) SELECT user_id FROM accounts_profile")
    request = APIRequestFactory().get("/api/v1/profile")
    answer = problems.handle_exception(found.value, {"request": request})
    assert (answer.status_code, answer.data["code"]) == (409, "conflict")


@pytest.mark.parametrize("value", ["\0", "a\0b"])
def test_text_that_the_database_does_not_take_is_a_wrong_request(client, alice, value):
    client.force_login(alice)
    client.raise_request_exception = False
    assert User.objects.count() == 1
    for path, fields in (("/runs/selected", {"run": value}), ("/runs/new", {"look": value, "key": value})):
        assert client.post(path, fields).status_code in (302, 400, 404)
