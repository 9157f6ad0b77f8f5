"""Requests of a shape that nobody of ours sends: each is answered, and none by an error of the server.

What is made up comes from a seed, so a failure can be had again.
"""

import json
import random
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml
from allauth.mfa.models import Authenticator
from django.db import transaction
from django.test import Client
from django.urls import get_resolver

from accounts import parsers
from stefna.tests.app import App
from stefna.tests.stage import just_signed_in

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[3]
APP = "/_allauth/app/v1"
SEED = 20
MADE_UP = 12

DEEP = b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}"
MALFORMED = {
    "deep": DEEP,
    "deep objects": b'{"a": ' * 51 + b"1" + b"}" * 51,
    "never closed": b"[" * 100_000,
    "many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "21 digits": b'{"a": -' + b"9" * 21 + b"}",
    "infinite": b'{"a": 1e999}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [-Infinity]}',
    "surrogate in escapes": b'{"email": "a@b.example", "password": "\\ud800"}',
    "surrogate in a key": b'{"\\udfff": 1}',
    "surrogate in bytes": b'{"a": "\xed\xa0\x80"}',
    "NUL": b'{"email": "a\\u0000@b.example"}',
    "NUL in a key": b'{"\\u0000": 1}',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "list": b"[]",
    "number": b"1",
    "null": b"null",
    "text": b'"x"',
    "cut off": b'{"a": "',
    "nothing of JSON": b"a=1",
    "twice": b"{}{}",
    "too large": b'{"a": "' + b"x" * 3_000_000 + b'"}',
}
FINE = {
    "50 deep": b'{"a": ' + b"[" * 49 + b"]" * 49 + b"}",
    "20 digits": b'{"a": -' + b"9" * 20 + b"}",
    "duplicates": b'{"a": 1, "a": 2}',
    "brackets in a text": b'{"a": "' + b"[" * 200 + b'\\""}',
    "pair of surrogates": b'{"a": "\\ud83d\\ude00"}',
}
ODD = [
    None, True, False, 0, -1, 1.5, 1e308, -(10**19), 10**19, "", " ", "x", "1", "true", "nan", "0x10", "1_000",
    "é" * 300,
    "\u202e", "\U0001f600", "\ufffd", "[" * 5000, '{"id": "x"}', "x" * 5000, "\u0665", [], {}, [None], [[]], [{}],
    ["x"] * 30, {"id": "x"}, {"id": 1, "rawId": [], "response": {}, "type": "public-key"}, {"x": {"y": []}},
    {"id": "AA", "rawId": "AA", "type": "public-key", "response": {"clientDataJSON": "AA", "attestationObject": "AA"}},
    {"id": "AA", "rawId": "AA", "type": "public-key", "clientExtensionResults": {}, "response": {
        "clientDataJSON": "e30", "authenticatorData": "AA", "signature": "AA", "userHandle": "AA"}},
]  # fmt: skip
HEADERS = [
    {"Prefer": "wait=" + "9" * 400},
    {"Prefer": "wait=\u0663, respond-async; \x80"},
    {"If-None-Match": '"' + "x" * 5000 + '", W/, "\xff'},
    {"Range": "bytes=9-1,-,x-" + "9" * 500},
    {"Accept-Language": "x" * 5000},
    {"Accept-Language": "de-\x80;q=nan, *;q=1e999, \xff\xfe"},
    {"Accept": "\x80/*; q=\x00"},
    {"Authorization": "Bearer \xff\xfe"},
    {"Authorization": "Bearer " + "x" * 5000},
    {"X-Session-Token": "'\x00"},
    {"X-App-Key": "\xff"},
    {"X-Request-ID": "\x80" * 30},
    {"X-Forwarded-For": "x, [::1, 999.1.1.1"},
    {"X-Forwarded-Proto": "\x80"},
    {"HX-Request": "true", "HX-Current-URL": "http://[x"},
    {"HX-Request": "true", "HX-Current-URL": "\xff%ff", "HX-Current-URL-URI-AutoEncoded": "true"},
    {"Referer": "http://[::1"},
    {"Origin": "http://["},
    {"Content-Type": "text/plain; charset=rot13"},
    {"Content-Type": 'multipart/form-data; boundary="\xff"; charset=zip'},
    {"Cookie": 'sessionid="\\000"; csrftoken="\\377\\000"; guest="\\000:x:y"; django_language="\\000"; messages="x"'},
    {"Cookie": "sessionid=" + "x" * 4000 + "; guest=" + ":" * 500 + "; messages=W10:x; sessionid"},
    {"Idempotency-Key": "\xff" * 10},
]
QUERIES = [
    "%00", "page=%00", "cursor=%ff%fe", "cursor=\xff", "cursor=cD1ub3doZXJl", "cursor=bz05OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
    "cursor=cD0wMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjU5", "cursor=cD05OTk5LTEyLTMxVDIzOjU5OjU5LTIzOjU5", "cursor=cj14",
    "cursor=====",
    "cursor=cD0%3D&page_size=99999999999999999999", "page=" + "9" * 5000, "page=-1", "page=nan", "page_size=1e9",
    "status=x&favourite=maybe&batch=x&preset=%ED%A0%80", "batch=" + "9" * 50, "q=" + "%25" * 400, "q=[" * 300,
    "look=" + "x" * 2000, "photo_id=x", "photo_id=%ED%A0%80", "next=http://[x", "next=//\\evil.example", "format=%ff",
    "signature=%ff:%ff", "unread=%ff", "e=1", "o=9.x.-1", "p=99999999999999999999", "id__exact=99999999999999999999999",
    "id__exact=x", "q=%ff", "all=&_changelist_filters=%ff", "date_joined__gte=x", "created_at__year=999999999",
    "user__id__exact=nan", "user__id__exact=" + "9" * 40, "pk__in=x,y", "_to_field=x", "_popup=1", "days=nan",
    "from=x&to=9",
    "since=" + "9" * 60, "day=0001-01-01", "day=9999-12-31", "period=%00", "kind=x",
    "&".join(f"f{number}=x" for number in range(1500)),
]  # fmt: skip


def operations():
    described = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "post", "put", "patch", "delete"):
                yield method, path, fields_of(operation, described)


def fields_of(operation, described):
    """Return the names of what an operation takes."""
    found, todo = set(), [operation.get("requestBody", {}), *operation.get("parameters", [])]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if "$ref" in node:
                target = described
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
                todo.append(target)
            found |= set(node.get("properties", {}))
            todo += [value for name, value in node.items() if name not in ("example", "examples")]
        elif isinstance(node, list):
            todo += node
    return sorted(found)


OPERATIONS = sorted(operations())
BODIES = [one for one in OPERATIONS if one[0] != "get"]


def name_of(operation):
    return f"{operation[0]} {operation[1]}"


def address_of(path, chance):
    for name in ("id", "slug", "pk", "provider", "client"):
        value = chance.choice(["00000000-0000-0000-0000-000000000000", "x", "9" * 40, "%00", "%ed%a0%80", "duotone"])
        path = path.replace(f"{{{name}}}", value)
    return path


@pytest.fixture
def ask(app, alice, settings, photo):
    """Send a request as Alice's app or as a stranger; nothing of it stays."""
    settings.ACCOUNT_EMAIL_VERIFICATION = "none"
    client = Client(raise_request_exception=False)
    signed_in = App(client)
    assert signed_in.sign("login", "alice@example.com", "a-password-of-alice").status_code == 200
    stranger = App(client)

    def send(method, path, body=None, *, member=False, content_type="application/json", **headers):
        who = signed_in if member else stranger
        ours = {"X-App-Key": "dev", "Idempotency-Key": "k"} | headers
        if who.token:
            ours.setdefault("Authorization", f"Bearer {who.token}")
        client.cookies.clear()
        with transaction.atomic():
            answer = client.generic(method.upper(), path, body or b"", content_type, headers=ours)
            if answer.streaming:
                b"".join(answer.streaming_content)
            transaction.set_rollback(True)
        return answer

    return send


def is_ours(answer):
    """See that a refusal is in our words, whoever refused."""
    problem = answer.json()
    assert answer["Content-Type"] == "application/problem+json", answer.content
    assert (answer.status_code, problem["code"]) == (400, "invalid")
    assert problem["errors"]
    assert problem["detail"] == problem["errors"]["non_field_errors"][0]


@pytest.mark.parametrize("body", FINE.values(), ids=FINE)
def test_what_json_may_be(body):
    assert isinstance(parsers.load_object(body), dict)


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize(
    "path",
    ["/api/v1/runs", "/api/v1/batches", "/api/v1/notifications/read", "/_allauth/app/v1/auth/login"],
)
def test_body_that_is_no_json_of_ours_is_refused_in_our_words(ask, path, body):
    is_ours(ask("post", path, body, member=path.startswith("/api")))


@pytest.mark.parametrize("operation", BODIES, ids=name_of)
def test_no_body_is_an_error_of_the_server(ask, operation):
    method, path, _ = operation
    chance = random.Random(f"{SEED} {method} {path}")
    for member in (False, True):
        for body in [*MALFORMED.values(), *FINE.values()]:
            answer = ask(method, address_of(path, chance), body, member=member)
            assert answer.status_code < 500, (member, body[:80])


@pytest.mark.parametrize("operation", BODIES, ids=name_of)
def test_no_value_of_a_field_is_an_error_of_the_server(ask, operation):
    method, path, fields = operation
    chance = random.Random(f"{SEED} {method} {path}")
    made_up = [{name: value} for name in fields for value in ODD]
    made_up += [{name: chance.choice(ODD) for name in fields} for _ in range(MADE_UP)]
    for fields in made_up:
        for place in [path, path.replace("/app/", "/browser/")]:
            body = json.dumps(fields).encode()
            answer = ask(method, address_of(place, chance), body, member=chance.random() < 0.6)
            assert answer.status_code < 500, (place, fields)
            if answer.status_code == 400 and place.startswith("/api/"):
                assert answer.json()["errors"], fields


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_no_address_or_header_is_an_error_of_the_server(ask, operation):
    method, path, _ = operation
    chance = random.Random(f"{SEED} {method} {path}")
    for query in QUERIES:
        answer = ask(method, f"{address_of(path, chance)}?{query}", member=True)
        assert answer.status_code < 500, query
    for headers in HEADERS:
        answer = ask(method, address_of(path, chance), b"{}", member="Authorization" not in headers, **headers)
        assert answer.status_code < 500, headers


# -- Pages and the admin site ------------------------------------------------------------------------------------


def places(patterns=None, prefix=""):
    """Yield every address of the pages and the admin site, with its parameters in angle brackets."""
    for one in patterns or get_resolver().url_patterns:
        text = prefix + str(one.pattern).lstrip("^").rstrip("$")
        if hasattr(one, "url_patterns"):
            yield from places(one.url_patterns, text)
        elif not text.startswith(("api/", "_allauth/")):
            yield "/" + text


PLACES = sorted(set(places()))
VALUES = ["\0", "\ud800", "9" * 5000, "-1", "nan", "1e999", "x" * 5000, "0_1", "\u0665", "{}", DEEP.decode(),
          "[" * 5000, '{"id": "x"}', "\u202e", "http://[x", "//\\evil.example", "true",
          "9999-12-31T23:59:59-23:59"]  # fmt: skip
NAMES = [
    "photo_id", "look", "prompt", "strength", "seed", "key", "sample", "run", "filters", "moment", "change",
    "page", "next",
    "login", "email", "password", "password1", "code", "credential", "display_name", "locale", "action",
    "select_across", "_selected_action", "index", "form-TOTAL_FORMS", "profile-TOTAL_FORMS", "email_notifications",
    "delete", "favourite",
]  # fmt: skip


def fill(place, chance):
    """Put something odd, or something that may be there, into the parameters of an address."""
    for start, kind in (("<uuid", "00000000-0000-0000-0000-000000000000"), ("<int", "1"), ("<size", "picture")):
        place = re.sub(rf"{start}:\w+>", kind, place)
    place = re.sub(r"\(\?P<\w+>[^)]*\)+", "x-y", place).replace("\\", "").replace("?", "")
    return re.sub(
        r"<[^>]+>", lambda _: chance.choice(["x", "1", "9" * 40, "%ED%A0%80", "%00", "x" * 600, "%2e%2e"]), place
    )


def visitor_of(place, chance):
    """Choose who comes: to the admin site mostly who is let in."""
    return chance.choice(["owner"] * 5 + ["stranger"] if place.startswith("/admin") else ["member", "stranger"])


@pytest.fixture
def open_page(owner, client, alice, photo):
    """Open a page as the owner, as Alice or as a stranger; nothing of it stays."""
    client.force_login(alice)
    who = {"owner": owner, "member": client, "stranger": Client()}
    for one in who.values():
        one.raise_request_exception = False

    def send(visitor, method, path, body=b"", **options):
        with transaction.atomic():
            answer = who[visitor].generic(method, path, body, **options)
            if answer.streaming:
                b"".join(answer.streaming_content)
            transaction.set_rollback(True)
        return answer

    return send


@pytest.mark.parametrize("place", PLACES)
def test_no_address_of_a_page_is_an_error_of_the_server(open_page, place):
    chance = random.Random(f"{SEED} {place}")
    # Whether a service is there is what the health checks say.
    for query in QUERIES:
        visitor = visitor_of(place, chance)
        answer = open_page(visitor, "GET", f"{fill(place, chance)}?{query}")
        assert answer.status_code < 500 or "healthz" in place, (visitor, query)
    for headers in HEADERS:
        visitor = visitor_of(place, chance)
        answer = open_page(visitor, "GET", fill(place, chance), headers=headers)
        assert answer.status_code < 500 or "healthz" in place, (visitor, headers)


@pytest.mark.parametrize("place", PLACES)
def test_no_form_of_a_page_is_an_error_of_the_server(open_page, place, settings):
    settings.ACCOUNT_RATE_LIMITS = False
    chance = random.Random(f"{SEED} {place}")
    sent = [dict.fromkeys(NAMES, value) for value in VALUES]
    sent += [{name: chance.choice(VALUES) for name in chance.sample(NAMES, 12)} for _ in range(6)]
    sent += [{"login": "alice@example.com", "password": "\0"}, {f"x{number}": "1" for number in range(1200)}]
    for fields in sent:
        body = urlencode(fields, errors="surrogatepass").encode()
        visitor = visitor_of(place, chance)
        kind = "application/x-www-form-urlencoded"
        answer = open_page(visitor, "POST", fill(place, chance), body, content_type=kind)
        assert answer.status_code < 500 or "healthz" in place, (visitor, str(fields)[:300])


PART = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\nx\r\n--b--\r\n'
FORMS = {
    "no boundary": ("multipart/form-data", PART),
    "empty boundary": ("multipart/form-data; boundary=", PART),
    "boundary that is no text": ("multipart/form-data; boundary=\xff", PART),
    "long boundary": ("multipart/form-data; boundary=" + "b" * 5000, PART),
    "another boundary": ("multipart/form-data; boundary=c", PART),
    "codec that is no encoding": ("multipart/form-data; boundary=b; charset=rot13", PART),
    "codec that packs": ("multipart/form-data; boundary=b; charset=zip", PART),
    "unknown encoding": ("multipart/form-data; boundary=b; charset=x", PART),
    "wide encoding": ("multipart/form-data; boundary=b; charset=utf-16", PART),
    "form in another codec": ("application/x-www-form-urlencoded; charset=rot13", b"a=1"),
    "cut off": ("multipart/form-data; boundary=b", PART[:60]),
    "name in an unknown encoding": ("multipart/form-data; boundary=b", PART.replace(b'name="photo"', b"name*=x''%ff")),
    "file's name in a codec": (
        "multipart/form-data; boundary=b",
        PART.replace(b'filename="a', b"filename*=rot13''\"a"),
    ),
    "name that is no text": ("multipart/form-data; boundary=b", PART.replace(b"photo", b"\xff\x00")),
    "file's name with NUL": ("multipart/form-data; boundary=b", PART.replace(b"a.jpg", b"a\x00../\xff.jpg")),
    "bad base64": (
        "multipart/form-data; boundary=b",
        PART.replace(b"\r\n\r\nx", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n\xff=x"),
    ),
    "odd transfer": (
        "multipart/form-data; boundary=b",
        PART.replace(b"\r\n\r\nx", b"\r\nContent-Type: \xff/\xff; charset=rot13\r\n\r\nx"),
    ),
    "thousands of fields": (
        "multipart/form-data; boundary=b",
        b"".join(b'--b\r\nContent-Disposition: form-data; name="x%d"\r\n\r\n1\r\n' % n for n in range(3000))
        + b"--b--\r\n",
    ),
    "several files": ("multipart/form-data; boundary=b", PART[:-6] + b"\r\n" + PART),
}


@pytest.mark.parametrize(("content_type", "body"), FORMS.values(), ids=FORMS)
def test_no_form_with_a_file_is_an_error_of_the_server(ask, open_page, content_type, body):
    for path in ("/api/v1/photos", "/api/v1/runs", "/api/v1/batches", "/api/v1/profile"):
        method = "patch" if path.endswith("profile") else "post"
        answer = ask(method, path, body, member=True, content_type=content_type)
        assert 400 <= answer.status_code < 500 or method == "patch", (path, answer.status_code)
        if answer.status_code == 400:
            assert answer.json()["errors"]
    for path in ("/runs/new", "/sketches", "/account/profile/picture", "/account/login/", "/admin/login/"):
        for visitor in ("member", "stranger"):
            answer = open_page(visitor, "POST", path, body, content_type=content_type)
            assert answer.status_code < 500, (path, visitor)


@pytest.mark.parametrize("credential", ["false", "0", "[]", "{}", "null", "1", '"x"', "[1]"])
def test_what_is_no_answer_of_a_passkey_is_never_kept_as_one(app, alice, credential):
    token = app.sign("login", "alice@example.com", "a-password-of-alice").json()["meta"]["session_token"]
    app.token = token
    begun = app("get", f"{APP}/account/authenticators/webauthn")
    assert begun.status_code == 200
    sent = app("post", f"{APP}/account/authenticators/webauthn", {"credential": json.loads(credential)})
    assert sent.status_code == 400
    browser = just_signed_in(alice)
    assert browser.get("/account/2fa/webauthn/add/").status_code == 200
    assert browser.post("/account/2fa/webauthn/add/", {"credential": credential}).status_code in (200, 400)
    assert not Authenticator.objects.exists()


BODIES_OF_NO_FORM = {
    "no boundary": ("multipart/form-data", b"x"),
    "long boundary": (f"multipart/form-data; boundary={'b' * 5000}", b"x"),
    "many fields": ("application/x-www-form-urlencoded", b"&".join(b"f%d=1" % number for number in range(1500))),
    "latin": ("application/x-www-form-urlencoded; charset=iso-8859-1", b"login=%e4"),
}


@pytest.mark.parametrize("kind", BODIES_OF_NO_FORM)
@pytest.mark.parametrize("path", ["/nothing", "/runs/new", "/account/login/", "/admin/login/", "/sketches", "/"])
def test_page_of_an_error_does_not_read_the_form_again(db, kind, path):
    content_type, body = BODIES_OF_NO_FORM[kind]
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "c" * 32
    answer = client.generic("POST", path, body, content_type, headers={"X-CSRFToken": "c" * 32})
    assert 400 <= answer.status_code < 500


def test_documentation_answers_no_options(client):
    assert client.options("/api/docs/").status_code == 405
