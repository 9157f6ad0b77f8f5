"""Photos in: whatever is sent as a photo, over HTTP, is a photo of ours afterwards or refused, and nothing is left."""

import contextlib
import gzip
import http.client
import io
import json
import random
import re
import socket
import struct
import time
import uuid
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import requests
from django.urls import reverse
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from playwright.sync_api import expect
from skimage.color import deltaE_ciede2000, rgb2lab

from conftest import small
from generation import photos
from generation.management.commands.load_presets import CATALOGUE
from generation.models import Photo, Preset, Run
from generation.tests import conftest as production
from stefna.tests.steps import arrive, choose, pick, picture

pytestmark = pytest.mark.django_db

standin, upstreams = production.standin, production.upstreams
HEIC = Path(__file__).with_name("phone.heic").read_bytes()
BOUNDARY = "----a-boundary-of-the-tests"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
SECRET = b"SECRET"
OUR_NAME = r"photos/[0-9a-z]{2}/[0-9a-z-]+\.(jpg|png)"


@pytest.fixture(autouse=True)
def static_files_left_alone(settings):
    """Every new client would look at all of them, which takes longer than what is tested here."""
    settings.WHITENOISE_USE_FINDERS = False


@pytest.fixture
def look(db):
    """The one look that is asked for."""
    entries = json.loads(CATALOGUE.read_text())
    return Preset.objects.create(**next(entry for entry in entries if entry["slug"] == "duotone"))


# -- Sending -------------------------------------------------------------------------------------------------


def part(name, value, filename=None):
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"\r\nContent-Type: image/jpeg'
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + value + b"\r\n"


def form(*parts):
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def file(data, name="photo.jpg"):
    return part("photo", data, name)


def wanted():
    """What the page sends beside the photo."""
    return part("key", uuid.uuid4().hex.encode()), part("look", b"duotone")


@pytest.fixture
def send(client, alice, look):
    """Post parts of a form to the API as Alice; a new run is asked for."""
    client.force_login(alice)

    def post(*parts, path="/api/v1/runs"):
        body = form(part("preset", b"duotone"), *parts)
        return client.post(path, body, content_type=FORM, headers={"Idempotency-Key": uuid.uuid4().hex})

    return post


@pytest.fixture
def send_page(client, alice, look):
    """Post parts of a form as the page's script does for Alice."""
    client.force_login(alice)
    ours = {"content_type": FORM, "headers": {"HX-Request": "true"}}
    return lambda *parts: client.post(reverse("create"), form(*wanted(), *parts), **ours)


@pytest.fixture
def accepted(send):
    """Send a photo that must be accepted; return its row, and what is stored of it as pictures."""

    def accept(data, name="photo.jpg"):
        answer = send(file(data, name))
        assert answer.status_code == 202, answer.content
        (photo,) = Photo.objects.all()
        shown = answer.json()["photo"]
        assert (shown["width"], shown["height"]) == (photo.width, photo.height)
        return photo, [Image.open(io.BytesIO(data)) for data in stored(photo)]

    return accept


def stored(photo):
    return [photos.read(photo.file), photos.read(photo.thumbnail)]


def nothing_left(settings):
    assert (Photo.objects.count(), Run.objects.count()) == (0, 0)
    for folder in (settings.MEDIA_ROOT, Path(settings.FILE_UPLOAD_TEMP_DIR)):
        assert [path for path in folder.rglob("*") if path.is_file()] == []


# -- Making --------------------------------------------------------------------------------------------------


def saved(image, image_format="JPEG", **options):
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def photograph(side=160):
    return Image.open(io.BytesIO(small("coffee", side))).convert("RGB")


def plain(colour, size=(96, 80)):
    return Image.new("RGB", size, colour)


def quarters():
    """A picture of which every corner says where it belongs: the one in phone.heic."""
    image = Image.new("RGB", (96, 128))
    for place, colour in zip([(0, 0), (48, 0), (0, 64), (48, 64)], QUARTERS, strict=True):
        image.paste(colour, (*place, place[0] + 48, place[1] + 64))
    return image


QUARTERS = [(200, 60, 50), (60, 160, 70), (60, 80, 190), (210, 190, 70)]


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(width, height, *chunks, kind=b"\x08\x02\0\0\0", pixels=b"\0" * 5000):
    """A PNG with parts of one's own between its header and its pixels."""
    header = chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + kind)
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )


def zipped(name="x.txt", content=SECRET, data=b""):
    """A ZIP, behind some bytes that are something else."""
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def frames(image_format, count=2, size=(96, 80)):
    """An animation: first red, then blue and green."""
    others = [plain(("blue", "green")[number % 2], size) for number in range(count - 1)]
    return saved(plain("red", size), image_format, save_all=True, append_images=others)


def flipped(data, place, bits=0xFF):
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


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
        connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
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


# -- F9, F10: colours ----------------------------------------------------------------------------------------


def differences(image, reference):
    """Return ΔE (CIEDE2000) of sixteen parts of two pictures, what is transparent on white."""
    parts = []
    for one in (image, reference):
        flat = Image.new("RGBA", one.size, "white")
        flat.alpha_composite(one.convert("RGBA"))
        parts.append(rgb2lab(np.asarray(flat.convert("RGB").resize((4, 4), Image.Resampling.BOX)) / 255))
    return deltaE_ciede2000(*parts)


def separated(image, *, ycck):
    """A JPEG as printers have it: four inks with as much black as there can be, as they are or as YCCK."""
    pixels = np.asarray(image).astype(float)
    light = pixels.max(axis=2, keepdims=True)
    inks = np.concatenate([255 * (1 - pixels / np.maximum(light, 1)), 255 - light], axis=2).round().astype("uint8")
    if not ycck:
        return saved(Image.fromarray(inks, "CMYK"), quality=95)
    # Pillow writes inks inverted and as they are: given Y, Cb and Cr, only the sign for that is missing.
    colours = Image.fromarray(inks[:, :, :3]).convert("YCbCr")
    inks[:, :, :3] = 255 - np.asarray(colours)
    data = bytearray(saved(Image.fromarray(inks, "CMYK"), quality=95))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def sixteen_bits(image):
    return saved(Image.fromarray(np.asarray(image.convert("L")).astype("uint16") * 257), "PNG")


def seen_through():
    image = photograph()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def with_palette():
    """A PNG of 64 colours, of which every other one is half transparent, and what it looks like."""
    image = photograph().quantize(64)
    alphas = bytes([255, 128] * 32)
    places = np.asarray(image)
    colours = np.array(image.getpalette(), "uint8").reshape(-1, 3)[places]
    reference = np.dstack([colours, np.frombuffer(alphas, "uint8")[places]])
    return saved(image, "PNG", transparency=alphas), Image.fromarray(reference, "RGBA")


COLOURS = {
    "CMYK": (separated(photograph(), ycck=False), photograph()),
    "YCCK": (separated(photograph(), ycck=True), photograph()),
    "16-bit grey": (sixteen_bits(photograph()), photograph().convert("L")),
    "1-bit": (saved(photograph().convert("1"), "PNG"), photograph().convert("L")),
    "palette and alpha": with_palette(),
    "LA": (saved(seen_through().convert("LA"), "PNG"), seen_through().convert("LA")),
    "RGBA WebP": (saved(seen_through(), "WEBP", lossless=True), seen_through()),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", COLOURS)
def test_every_kind_of_pixel_keeps_its_colours(accepted, kind):
    data, reference = COLOURS[kind]
    photo, images = accepted(data)
    for image in images:
        assert differences(image, reference).max() < 5
    assert photo.content_type == ("image/png" if "A" in reference.getbands() else "image/jpeg")


# Linear light to XYZ under D65 (CSS Color 4), and the colourants of the profile under D50 (ICC registry).
SRGB_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
P3_XYZ = np.array([[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0.0, 0.0451134, 1.0439444]])
P3_COLOURANTS = [(0.515102, 0.241182, -0.001050), (0.291965, 0.692236, 0.041882), (0.157153, 0.066582, 0.784378)]


def display_p3():
    """The colour profile that phones and screens of Apple give their photos."""

    def number(*values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"para\0\0\0\0\0\x03\0\0" + number(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + number(0.9642, 1, 0.8249)}
    for name, colourant in zip(b"rgb", P3_COLOURANTS, strict=True):
        tags[bytes([name]) + b"XYZ"] = b"XYZ \0\0\0\0" + number(*colourant)
        tags[bytes([name]) + b"TRC"] = curve
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value
    head = struct.pack(">I4xI4s4s4s12x4s28x", at + len(body), 0x04000000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head += number(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def in_p3(image):
    """Return the pixels that a picture has in Display P3."""
    light = np.asarray(image) / 255
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    light = np.clip(light @ (np.linalg.inv(P3_XYZ) @ SRGB_XYZ).T, 0, 1)
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return Image.fromarray((values * 255).round().astype("uint8"))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_display_p3_becomes_srgb(accepted, image_format):
    bright = np.array([(255, 40, 20), (20, 220, 40), (30, 60, 250), (250, 210, 0)], "uint8")
    image = Image.fromarray(np.tile(bright.repeat(24, axis=0), (80, 1, 1)))
    # Shown as it is, without its profile, it would be another picture.
    assert differences(in_p3(image), image).max() > 3
    _, images = accepted(saved(in_p3(image), image_format, icc_profile=display_p3(), quality=95))
    for one in images:
        assert differences(one, image).max() < 3
        assert "icc_profile" not in one.info


# -- F8, F11, F12: upright, and the first of several ---------------------------------------------------------

LYING = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def lying(orientation, image_format="JPEG"):
    """What a camera writes that was held another way and says so."""
    turn = LYING[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = quarters() if turn is None else quarters().transpose(turn)
    return saved(image, image_format, exif=exif, quality=95)


UPRIGHT = {
    **{f"{kind} {n}": lying(n, kind) for kind in ("JPEG", "PNG", "WEBP") for n in LYING},
    "HEIC": HEIC,
    "MPO": saved(quarters(), "MPO", save_all=True, append_images=[ImageOps.invert(quarters())]),
}


@pytest.mark.parametrize("kind", UPRIGHT)
def test_photo_is_upright_with_the_right_measures(accepted, kind):
    photo, images = accepted(UPRIGHT[kind])
    assert (photo.width, photo.height) == (96, 128)
    for image in images:
        assert image.size == (96, 128)
        assert differences(image, quarters()).max() < 5
        assert not image.getexif()


@pytest.mark.parametrize("image_format", ["WEBP", "PNG"])
def test_animation_is_its_first_frame(accepted, image_format):
    animation = frames(image_format, 3)
    with Image.open(io.BytesIO(animation)) as image:
        assert image.n_frames == 3
    _, images = accepted(animation)
    for image in images:
        assert differences(image, plain("red")).max() < 5
        assert getattr(image, "n_frames", 1) == 1


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


def test_forty_megapixels_are_accepted(accepted):
    photo, _ = accepted(saved(Image.new("L", (8000, 5000), 90)))
    assert (photo.width, photo.height) == (2048, 1280)


# -- F7, F16: what is not pixels is gone ---------------------------------------------------------------------

MARKUP = b"<script>/*SECRET*/</script><?php SECRET ?>"


def with_text(image, text):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    info.add_itxt("XML:com.adobe.xmp", text)
    return saved(image, "PNG", pnginfo=info)


POLYGLOTS = {
    "JPEG and ZIP": zipped(data=small("coffee")),
    "JPEG and PHP": small("coffee") + MARKUP,
    "JPEG with markup in its comment": saved(photograph(), comment=MARKUP),
    # The length of the first segment opens a comment of JavaScript, which the next segment's text ends.
    "JPEG and JavaScript": b"\xff\xd8\xff\xe0/*" + bytes(0x2F28) + saved(photograph(), comment=b"*/=1;SECRET()//")[2:],
    "PNG and ZIP": zipped(data=with_text(photograph(), MARKUP.decode())),
    "WebP and ZIP": zipped(data=WEBP),
}  # fmt: skip


@pytest.mark.parametrize("kind", POLYGLOTS)
def test_of_a_file_that_is_two_only_the_picture_is_kept(accepted, kind):
    photo, _ = accepted(POLYGLOTS[kind])
    for data in stored(photo):
        assert not zipfile.is_zipfile(io.BytesIO(data))
        for piece in (SECRET, b"script", b"php", b"PK\x03\x04", b"*/"):
            assert piece not in data


def telling(image_format):
    """A photo that says where it was taken, by whom and with what, and has a smaller one in it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "SECRET maker"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (59.0, 57.0, 12.0), 29: "SECRET"})
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"SECRET note"
    data = exif.tobytes()
    head, tiff = data[:6], bytearray(data[6:])
    inner = saved(plain("red", (32, 32)), comment=SECRET)
    # The first directory names the second one, which holds the small picture: how long, where, which kind.
    end = 10 + 12 * struct.unpack_from(">H", tiff, 8)[0]
    tiff[end : end + 4] = struct.pack(">I", len(tiff))
    entries = [(0x103, 3, 1, 6), (0x201, 4, 1, len(tiff) + 42), (0x202, 4, 1, len(inner))]
    tiff += struct.pack(">H", 3) + b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4) + inner
    options = {"exif": head + bytes(tiff)}
    if image_format == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>SECRET</x:xmpmeta>")
        return saved(photograph(), "PNG", pnginfo=info, **options)
    return saved(photograph(), image_format, xmp=b"<x:xmpmeta>SECRET</x:xmpmeta>", **options)


TELLING = {kind: telling(kind) for kind in ("JPEG", "PNG", "WEBP")} | {"HEIC": HEIC}


def tells_nothing(data):
    for piece in (SECRET, b"Exif", b"eXIf", b"EXIF", b"GPS", b"xmp", b"XMP", b"ICC"):
        assert piece not in data
    # The second one would be a picture in the picture.
    assert data.count(b"\xff\xd8\xff") == data.startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("kind", TELLING)
def test_what_a_photo_tells_is_neither_stored_nor_sent_on(accepted, upstreams, work, kind):
    data = TELLING[kind]
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)
        assert kind == "HEIC" or exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] == b"SECRET note"
        assert kind == "HEIC" or exif.get_ifd(ExifTags.IFD.IFD1)[0x202] > 600
    photo, _ = accepted(data, "SECRET name.jpg")
    for kept in stored(photo):
        tells_nothing(kept)
    assert work() == 1
    # What the service was given an address of is what it has fetched.
    (call,) = upstreams.calls("aiml")
    sent_on = requests.get(call["fields"]["image_url"], timeout=10)
    assert (sent_on.status_code, sent_on.content) == (200, photos.read(photo.file))
    for target in ("aiml", "upload"):
        assert "SECRET" not in json.dumps(upstreams.calls(target))


# -- F17: names ----------------------------------------------------------------------------------------------

NAMES = {
    "../../x": "x",
    "..\\..\\x.jpg": "x.jpg",
    "n" * 5000 + ".jpg": "n" * 200,
    "ä" * 5000: "ä" * 200,
    "nul\0l.jpg": "null.jpg",
    "\u202egpj.exe": "gpj.exe",
    "<img src=x onerror=alert(1)>.jpg": "<img src=x onerror=alert(1)>.jpg",
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_name_is_kept_as_text_and_nowhere_else(accepted, client, settings, name):
    photo, _ = accepted(small("coffee"), name)
    shown = photo.name
    assert shown.startswith(NAMES[name][:150])
    assert (len(shown) <= 200, shown.isprintable()) == (True, True)
    files = [str(path.relative_to(settings.MEDIA_ROOT)) for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([photo.file.name, photo.thumbnail.name])
    assert all(re.fullmatch(OUR_NAME, file) for file in files)
    page = client.get(reverse("studio")).content.decode()
    assert f'alt="Your photo {shown.replace("<", "&lt;").replace(">", "&gt;")}"' in page
    export = client.get("/api/v1/profile/export")
    with zipfile.ZipFile(io.BytesIO(b"".join(export.streaming_content))) as archive:
        (entry,) = json.loads(archive.read("manifest.json"))["photos"]
        assert (entry["name"], entry["file"]) == (shown, photo.file.name)
        assert all(re.fullmatch(OUR_NAME, one) for one in archive.namelist() if "/" in one)


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
