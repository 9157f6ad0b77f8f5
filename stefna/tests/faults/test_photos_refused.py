"""Photos in: whatever is sent that is no photo is refused with a code, over HTTP, and nothing is left."""

import contextlib
import gzip
import http.client
import random
import re
import socket
import struct
import time
import zlib
from pathlib import Path

import pytest
from django.urls import reverse
from PIL import Image
from playwright.sync_api import expect

from conftest import small
from generation.models import Photo, Run
from generation.tests import conftest as production
from stefna.tests.faults.files import (
    FORM,
    HEIC,
    chunk,
    file,
    flipped,
    form,
    frames,
    part,
    photograph,
    plain,
    png,
    saved,
    wanted,
    zipped,
)
from stefna.tests.steps import arrive, choose, pick, picture
from stefna.tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.django_db
standin, upstreams = production.standin, production.upstreams


def nothing_left(settings):
    assert (Photo.objects.count(), Run.objects.count()) == (0, 0)
    for folder in (settings.MEDIA_ROOT, Path(settings.FILE_UPLOAD_TEMP_DIR)):
        assert [path for path in folder.rglob("*") if path.is_file()] == []


# -- F1, F2, F5, F6, F8, F13, F15: refused, with a code ------------------------------------------------------

EMPTY, TOO_LARGE, UNSUPPORTED = (422, "photo_empty"), (413, "photo_too_large"), (415, "photo_type_unsupported")
INVALID, DIMENSIONS, PIXELS = (422, "photo_invalid"), (422, "photo_dimensions"), (422, "photo_too_many_pixels")
PNG, WEBP = saved(photograph(), "PNG"), saved(photograph(), "WEBP")
REFUSED = {
    "nothing": (b"", EMPTY),
    # Little enough to pass for a form with a photo of 15 MB, and more than a photo may have.
    "15 MB and a byte": (small("coffee") + b"\0" * (15_000_001 - len(small("coffee"))), TOO_LARGE),
    "HTML": (b"<!DOCTYPE html><html><script>alert(1)</script></html>", UNSUPPORTED),
    "PHP": (b"<?php system($_GET['x']); ?>", UNSUPPORTED),
    "EXE": (b"MZ\x90\0\x03\0\0\0" + b"\0" * 52 + b"\x80\0\0\0" + b"\0" * 64 + b"PE\0\0\x64\x86", UNSUPPORTED),
    "PDF": (saved(photograph(), "PDF"), UNSUPPORTED),
    "EPS": (saved(photograph(), "EPS"), UNSUPPORTED),
    "PSD": (b"8BPS\0\x01" + b"\0" * 6 + struct.pack(">HIIHH", 3, 80, 80, 8, 3) + b"\0" * 20_000, UNSUPPORTED),
    "ZIP": (zipped("photo.jpg", small("coffee")), UNSUPPORTED),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", UNSUPPORTED),
    "SVGZ": (gzip.compress(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), UNSUPPORTED),
    "TIFF": (saved(photograph(), "TIFF"), UNSUPPORTED),
    "animated GIF": (frames("GIF"), UNSUPPORTED),
    "half a JPEG": (small("coffee")[: len(small("coffee")) // 2], INVALID),
    "half a PNG": (PNG[: len(PNG) // 2], INVALID),
    "half a WebP": (WEBP[: len(WEBP) // 2], INVALID),
    "half a HEIC": (HEIC[: len(HEIC) - 100], INVALID),
    "JPEG with flipped bits in its frame": (flipped(small("coffee"), small("coffee").index(b"\xff\xc0") + 4), INVALID),
    "PNG with flipped bits in its header": (flipped(PNG, 18), INVALID),
    "PNG with flipped bits in its pixels": (flipped(PNG, PNG.index(b"IDAT") + len(PNG) // 2), INVALID),
    "WebP with a corrupt chunk": (flipped(WEBP, WEBP.index(b"VP8 ") + 11), INVALID),
    "HEIC with a corrupt box": (flipped(HEIC, HEIC.index(b"iloc") + 8), INVALID),
    "40 MP and a row": (saved(Image.new("L", (8000, 5001))), PIXELS),
    "1 × 30,000": (saved(Image.new("L", (1, 30_000)), "PNG"), DIMENSIONS),
    "10 × 10": (saved(plain("red", (10, 10))), DIMENSIONS),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_good_photo_is_refused_by_api_and_page_and_leaves_nothing(send, send_page, settings, what):
    data, expected = REFUSED[what]
    answer = send(file(data))
    assert (answer.status_code, answer.json()["code"]) == expected
    assert send_page(file(data)).status_code == expected[0]
    nothing_left(settings)


# Pillow warns of what it reads nevertheless.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data", [small("coffee", 128), PNG, WEBP, HEIC], ids=["JPEG", "PNG", "WebP", "HEIC"])
def test_flipped_bits_are_refused_or_read_and_never_a_500(send, data):
    chance = random.Random(7)
    ends = set()
    for _ in range(25):
        broken = data
        for _ in range(3):
            broken = flipped(broken, chance.choice([chance.randrange(200), chance.randrange(len(data))]))
        answer = send(file(broken), path="/api/v1/photos")
        ends.add((answer.status_code, answer.json().get("code")))
    assert INVALID in ends
    assert ends <= {INVALID, UNSUPPORTED, DIMENSIONS, PIXELS, (201, None), (200, None)}


# -- F2, F3: bodies over a socket ----------------------------------------------------------------------------


@pytest.fixture
def talk(live_server, client, alice, look, settings):
    """Open a connection to a server as Alice, send what is given, and return the answer."""
    client.force_login(alice)
    token = "a" * 32
    cookies = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}; csrftoken={token}"

    def say(path, headers, body=b""):
        server = live_server.thread
        connection = http.client.HTTPConnection(server.host, server.port, timeout=WAIT_SECONDS)
        with contextlib.closing(connection):
            connection.putrequest("POST", path)
            ours = {"Cookie": cookies, "X-CSRFToken": token, "Idempotency-Key": "k", "Content-Type": FORM}
            for name, value in (ours | headers).items():
                connection.putheader(name, value)
            connection.endheaders()
            # Whoever refuses a body need not take it.
            with contextlib.suppress(ConnectionError):
                connection.send(body)
            answer = connection.getresponse()
            # Not to its end: a server may wait for the body before it closes.
            return answer.status, answer.read1(100_000)

    return say


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/api/v1/runs", "/create"])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Length": "15200001"}, 413, b"photo_too_large"),
        ({"Transfer-Encoding": "chunked"}, 411, b"length_required"),
    ],
)
def test_body_is_refused_before_a_byte_of_it_was_sent(talk, settings, path, headers, status, code):
    # Nothing is sent: a server that read first would wait for it.
    path = reverse("create") if path == "/create" else path
    answered, body = talk(path, headers)
    assert answered == status
    assert (code in body) is path.startswith("/api/")
    nothing_left(settings)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/api/v1/runs", "/create"])
def test_body_longer_than_it_says_is_cut_there_and_refused(talk, settings, path):
    path = reverse("create") if path == "/create" else path
    body = form(*wanted(), part("preset", b"duotone"), file(small("coffee") + b"\0" * 16_000_000))
    answered, _ = talk(path, {"Content-Length": "5000"}, body)
    assert answered == 400
    nothing_left(settings)


# -- F4, F18: no file, several, an address -------------------------------------------------------------------


@pytest.mark.parametrize("door", ["/api/v1/runs", "/api/v1/photos", "page"])
@pytest.mark.parametrize(
    "parts",
    [
        [],
        [part("photo", b"")],
        [file(small("coffee")), file(small("portrait"))],
        [file(small("coffee")), part("other", small("portrait"), "other.jpg")],
        [file(small("coffee")), *(part(f"field-{number}", b"x") for number in range(1100))],
    ],
    ids=["no file", "an empty field", "two files", "another file", "too many fields"],
)
def test_form_of_another_shape_is_400(send, send_page, settings, door, parts):
    answer = send_page(*parts) if door == "page" else send(*parts, path=door)
    assert answer.status_code == 400
    if door != "page":
        assert answer.json()["code"] in ("photo_required", "invalid")
    nothing_left(settings)


@pytest.mark.parametrize("door", ["form", "photos", "JSON", "page"])
def test_address_instead_of_a_file_is_400_and_is_not_asked(client, send, send_page, settings, door):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/photo.jpg"
        field = part("photo", address.encode())
        if door == "page":
            answer = send_page(field)
        elif door == "JSON":
            asked, headers = {"photo": address, "preset": "duotone"}, {"Idempotency-Key": "k"}
            answer = client.post("/api/v1/runs", asked, content_type="application/json", headers=headers)
        else:
            answer = send(field, path="/api/v1/photos" if door == "photos" else "/api/v1/runs")
        assert answer.status_code == 400
        assert door == "page" or answer.json()["code"] in ("photo_required", "invalid")
        with pytest.raises(TimeoutError):
            listening.accept()
    nothing_left(settings)


# -- F14, F15: bombs, and the largest ------------------------------------------------------------------------


def text_bomb(kind, before):
    """A small PNG with 100 MB in one of its texts."""
    return png(80, 80, chunk(kind, before + zlib.compress(bytes(100_000_000), 1)))


def many_texts():
    """A small PNG with 60 texts of 1 MB each."""
    text = zlib.compress(b"x" * 1_000_000)
    return png(80, 80, *(chunk(b"zTXt", b"%d\0\0" % number + text) for number in range(60)), pixels=bytes(80 * 241))


BOMBS = {
    "PNG of 50,000²": (lambda: png(50_000, 50_000, kind=b"\x01\0\0\0\0"), PIXELS),
    "JPEG of 65,500²": (
        lambda: re.sub(rb"(\xff\xc0..\x08)....", b"\\1\xff\xdc\xff\xdc", small("coffee"), flags=re.S), PIXELS,
    ),
    "WebP of 16,384²": (lambda: b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0" + WEBP[12:], PIXELS),
    "HEIC of 50,000²": (lambda: re.sub(rb"(ispe....)........", b"\\1\0\0\xc3\x50\0\0\xc3\x50", HEIC, flags=re.S), None),
    "zTXt": (lambda: text_bomb(b"zTXt", b"x\0\0"), INVALID),
    "iTXt": (lambda: text_bomb(b"iTXt", b"x\0\x01\0\0\0"), INVALID),
    "iCCP": (lambda: text_bomb(b"iCCP", b"x\0\0"), INVALID),
    "many texts": (many_texts, INVALID),
    "GIF of many frames": (lambda: frames("GIF", 300), UNSUPPORTED),
    # Of an animation the first frame is read, however many there are.
    "WebP of many frames": (lambda: frames("WEBP", 300), (202, None)),
    "APNG of many frames": (lambda: frames("PNG", 300), (202, None)),
    "APNG that says it had 4 billion frames": (
        lambda: png(80, 80, chunk(b"acTL", b"\xff\xff\xff\xff\0\0\0\0"), pixels=bytes(80 * 241)), (202, None),
    ),
}  # fmt: skip


def largest_megabytes():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


# Pillow says so where it doubts an animation.
@pytest.mark.filterwarnings("ignore:Invalid APNG")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it")
@pytest.mark.parametrize("what", BOMBS)
def test_bomb_costs_neither_time_nor_memory(send, what):
    make, expected = BOMBS[what]
    data = make()
    send(file(b"no photo"))
    # From now on the largest size is that of what follows.
    Path("/proc/self/clear_refs").write_text("5")
    before, started = megabytes(), time.process_time()
    answer = send(file(data))
    seconds, grown = time.process_time() - started, largest_megabytes() - before
    end = answer.status_code, answer.json().get("code")
    assert end == expected if expected else end in (INVALID, PIXELS)
    assert seconds < 1
    assert grown < 50


# -- U12: the storage is down or slow while a photo comes ----------------------------------------------------


@pytest.mark.parametrize("trouble", [{"status": 503}, {"hang": True}], ids=["down", "slow"])
def test_storage_that_does_not_take_the_photo_is_503_with_another_try(send, send_page, settings, upstreams, trouble):
    settings.UPLOAD_TIMEOUT_SECONDS = 0.3
    upstreams.script("upload", trouble, repeat_last=True)
    answer = send(file(small("coffee")))
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "storage_unavailable", True)
    assert int(answer["Retry-After"]) > 0
    page = send_page(file(small("coffee")))
    assert (page.status_code, b"You were not charged." in page.content) == (503, True)
    assert b'<button type="submit">Try again</button>' in page.content
    nothing_left(settings)
    # What cannot be helped by trying again does not offer it.
    assert b"<button" not in send_page(file(b"no photo")).content


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_page_keeps_the_photo_while_the_storage_is_down_and_tries_again(live_server, look, upstreams, open_page):
    upstreams.down("upload", 503)
    # The policy of a test's server knows nothing of where the stand-in shows pictures.
    page = open_page(expected="status of 503|Status Error Code 503|Content Security Policy")
    page.goto(live_server.url)
    choose(page, picture(333, 222))
    pick(page, look.name)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("We cannot store pictures at the moment.")
    expect(page.locator("#chosen")).to_be_visible()
    expect(page.locator("#chosen")).to_have_js_property("naturalWidth", 333)
    assert not Run.objects.exists()
    upstreams.down("upload", None)
    page.get_by_role("button", name="Try again").click()
    arrive(page)
    assert Run.objects.get().photo.width == 333
