"""Photos in: what is accepted, over HTTP, is afterwards a photo of ours and nothing else."""

import io
import json
import re
import struct
import zipfile

import numpy as np
import pytest
import requests
from django.urls import reverse
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from skimage.color import deltaE_ciede2000, rgb2lab

from conftest import small
from generation import exports, photos
from generation.engine import ingest  # noqa: F401  (Pillow opens HEIC in this process only with it)
from generation.tests import conftest as production
from stefna.tests.faults.files import HEIC, SECRET, frames, photograph, plain, quarters, saved, stored, zipped
from stefna.tests.stage import just_signed_in
from stefna.tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.django_db
standin, upstreams = production.standin, production.upstreams
OUR_NAME = r"photos/[0-9a-z]{2}/[0-9a-z-]+\.(jpg|png)"


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
    "WebP and ZIP": zipped(data=saved(photograph(), "WEBP")),
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
    sent_on = requests.get(call["fields"]["image_url"], timeout=WAIT_SECONDS)
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
    assert just_signed_in(photo.user).post("/api/v1/profile/export").status_code == 202
    assert exports.make_next()
    export = client.get(client.get("/api/v1/profile/export").json()["url"])
    with zipfile.ZipFile(io.BytesIO(b"".join(export.streaming_content))) as archive:
        (entry,) = json.loads(archive.read("manifest.json"))["photos"]
        assert (entry["name"], entry["file"]) == (shown, photo.file.name)
        assert all(re.fullmatch(OUR_NAME, one) for one in archive.namelist() if "/" in one)
