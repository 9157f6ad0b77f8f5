import contextlib
import io
import zlib
from typing import ClassVar

import pytest
from django.core.files.storage import FileSystemStorage
from django.db import connection
from PIL import Image, PngImagePlugin

from conftest import small
from generation import photos, provenance
from generation.exceptions import (
    PhotoDimensions,
    PhotoEmpty,
    PhotoInvalid,
    PhotoTooLarge,
    PhotoTooManyPixels,
    PhotoTypeUnsupported,
)
from generation.models import Photo


def saved(image, image_format, **options):
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def phone_photo(orientation=6):
    """The landscape as a phone would write it: lying on its side, with EXIF, GPS, a comment and a maker's note."""
    image = Image.open(io.BytesIO(small("landscape")))
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    if orientation in turn:
        image = image.transpose(turn[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "SecretPhoneMaker"
    exif.get_ifd(0x8825).update({1: "N", 2: (59.0, 57.0, 12.0), 3: "E", 4: (10.0, 45.0, 7.0)})
    return saved(image, "JPEG", exif=exif, comment=b"secret comment", quality=92)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_phone_photo_is_upright_and_keeps_no_secret(alice, orientation):
    photo = photos.accept(alice, photos.Upload(phone_photo(orientation), "../../IMG\x00_1.jpg"))
    upright = Image.open(io.BytesIO(small("landscape")))
    assert (photo.width, photo.height) == upright.size
    assert photo.name == "../../IMG_1.jpg"
    stored = photos.read(photo.file)
    for secret in (b"Secret", b"secret", b"Exif", b"GPS"):
        assert secret not in stored
    with Image.open(io.BytesIO(stored)) as image:
        assert not image.getexif()
        red = [one.convert("RGB").resize((4, 4)).getpixel((0, 3)) for one in (image, upright)]
    assert max(abs(a - b) for a, b in zip(*red, strict=True)) < 12


def huge_png():
    """A few hundred bytes that promise 50,000 × 50,000 pixels."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (50_000).to_bytes(4, "big") * 2 + b"\x01\x00\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 5000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", PhotoEmpty),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", PhotoTypeUnsupported),
        (b"<?php echo 1;", PhotoTypeUnsupported),
        (b"%PDF-1.7", PhotoTypeUnsupported),
        (saved(Image.new("P", (100, 100)), "GIF"), PhotoTypeUnsupported),
        (small("coffee")[:3000], PhotoInvalid),
        (b"\xff\xd8\xff\xe0 not a photo", PhotoInvalid),
        (huge_png(), PhotoTooManyPixels),
        (saved(Image.new("RGB", (30_000, 64)), "PNG"), PhotoDimensions),
        (saved(Image.new("RGB", (10, 10)), "PNG"), PhotoDimensions),
        (b"\xff" * 15_000_001, PhotoTooLarge),
    ],
)
def test_bad_photo_is_refused_and_leaves_nothing(alice, settings, data, error):
    with pytest.raises(error):
        photos.accept(alice, photos.Upload(data))
    assert Photo.objects.count() == 0
    assert [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()] == []


def test_flipped_bits_are_refused_or_read_but_never_crash(alice):
    good = bytearray(small("coffee", 160))
    for position in range(0, len(good), 211):
        data = bytearray(good)
        data[position] ^= 0xFF
        with contextlib.suppress(PhotoInvalid, PhotoTypeUnsupported, PhotoDimensions, PhotoTooManyPixels):
            photos.accept(alice, photos.Upload(bytes(data)))


@pytest.mark.parametrize(
    ("mode", "image_format", "expected"),
    [
        ("L", "PNG", "image/jpeg"),
        ("1", "PNG", "image/jpeg"),
        ("I;16", "PNG", "image/jpeg"),
        ("CMYK", "JPEG", "image/jpeg"),
        ("LA", "PNG", "image/png"),
        ("RGBA", "WEBP", "image/png"),
    ],
)
def test_every_kind_of_pixel_keeps_its_tone(alice, mode, image_format, expected):
    grey = Image.new("L", (80, 80), 128)
    if mode == "I;16":
        image = Image.new("I;16", (80, 80), 128 * 257)
    elif mode in ("LA", "RGBA"):
        image = grey.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize((80, 80)))
    else:
        image = grey.convert(mode)
    photo = photos.accept(alice, photos.Upload(saved(image, image_format, lossless=True)))
    with Image.open(io.BytesIO(photos.read(photo.file))) as stored:
        mean = sum(stored.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))) / 3
    assert photo.content_type == expected
    assert abs(mean - 128) < 4


def test_broken_colour_profile_is_ignored_and_none_is_kept(alice):
    image = Image.open(io.BytesIO(small("portrait")))
    photo = photos.accept(alice, photos.Upload(saved(image, "PNG", icc_profile=b"not a profile")))
    with Image.open(io.BytesIO(photos.read(photo.file))) as stored:
        assert "icc_profile" not in stored.info


def test_text_hidden_in_a_picture_is_dropped(alice):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "<script>alert(1)</script>")
    data = saved(Image.open(io.BytesIO(small("coffee"))), "PNG", pnginfo=info) + b"<?php evil(); PK\x03\x04"
    stored = photos.read(photos.accept(alice, photos.Upload(data)).file)
    assert b"script" not in stored
    assert b"php" not in stored


def test_same_bytes_are_one_photo_and_large_ones_are_shrunk(alice, bob, settings, upload):
    settings.MAX_PHOTO_SIDE = 100
    photo = photos.accept(alice, upload)
    assert photos.accept(alice, upload) == photo
    assert photos.accept(bob, upload) != photo
    assert max(photo.width, photo.height) == 100


def test_full_disk_is_said_and_leaves_no_partial_file(alice, upload, settings, monkeypatch):
    from django.core.files.storage import FileSystemStorage

    from generation.exceptions import StorageUnavailable

    real = FileSystemStorage._save
    calls = []

    def fills_up(self, name, content):
        calls.append(name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(self, name, content)

    monkeypatch.setattr(FileSystemStorage, "_save", fills_up)
    with pytest.raises(StorageUnavailable):
        photos.accept(alice, upload)
    assert [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("content_type", photos.FORMATS)
def test_every_download_format_carries_the_mark(start, work, content_type):
    run = start()
    work()
    run.refresh_from_db()
    data = photos.download(run, content_type)
    assert provenance.read(data) == "algorithmicallyEnhanced"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (photos.FORMATS[content_type], (run.width, run.height))


class StorageThatLooks(FileSystemStorage):
    """Remembers whether a connection to the database was held while a picture was stored."""

    held: ClassVar[list[bool]] = []

    def _save(self, name, content):
        self.held.append(connection.connection is not None)
        return super()._save(name, content)


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_held_while_a_photo_is_stored(alice, upload, settings):
    settings.STORAGES = settings.STORAGES | {"default": {"BACKEND": f"{__name__}.StorageThatLooks"}}
    StorageThatLooks.held.clear()
    photos.accept(alice, upload)
    assert StorageThatLooks.held == [False, False]
