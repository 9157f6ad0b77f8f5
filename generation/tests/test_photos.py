import io
import random
import zlib
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import OperationalError, connection, transaction
from PIL import Image, PngImagePlugin

from conftest import small
from generation import photos
from generation.engine import ingest
from generation.exceptions import (
    PhotoDimensions,
    PhotoEmpty,
    PhotoError,
    PhotoInvalid,
    PhotoTooLarge,
    PhotoTooManyPixels,
    PhotoTypeUnsupported,
)
from generation.images import processing, provenance
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


def valid_photos():
    """A small photo of every format that we read, and of the kinds with decoders of their own."""
    photo = Image.open(io.BytesIO(small("coffee", 128)))
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    kinds = {
        "JPEG": saved(photo, "JPEG"),
        "progressive JPEG": saved(photo, "JPEG", progressive=True),
        "CMYK JPEG": saved(photo.convert("CMYK"), "JPEG"),
        "phone JPEG": phone_photo(),
        "MPO": saved(photo, "MPO", save_all=True, append_images=[photo]),
        "PNG": saved(clear, "PNG"),
        "palette PNG": saved(photo.quantize(), "PNG"),
        "animated PNG": saved(photo, "PNG", save_all=True, append_images=[clear]),
        "WebP": saved(photo, "WEBP"),
        "lossless WebP": saved(clear, "WEBP", lossless=True),
        "animated WebP": saved(photo, "WEBP", save_all=True, append_images=[clear]),
    }
    if "HEIF" in ingest.FORMATS:
        kinds["HEIC"] = (Path(__file__).parent / "photos" / "two.heic").read_bytes()
    return kinds


VALID = valid_photos()


def mutated(data, chance):
    """Return the bytes with some flipped, the end cut off, or a piece laid over another place or file."""
    broken = bytearray(data)
    # Half of all changes are to the first bytes, where the sizes and the names of the parts are.
    start = chance.randrange(min(len(data), chance.choice([256, len(data)])))
    match chance.randrange(4):
        case 0:
            for _ in range(chance.randint(1, 8)):
                broken[min(len(data) - 1, start + chance.randrange(32))] ^= 1 << chance.randrange(8)
        case 1:
            broken[start : start + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
        case 2:
            del broken[start:]
        case 3:
            other = chance.choice([data, *VALID.values()])
            length = chance.randint(1, 400)
            taken = chance.randrange(len(other))
            broken[start : start + chance.choice([0, length])] = other[taken : taken + length]
    return bytes(broken)


def with_checksums(png):
    """Return a PNG whose checksums are right again: without, no change gets past them."""
    broken, place = bytearray(png), 8
    while (end := place + 8 + int.from_bytes(broken[place : place + 4], "big")) + 4 <= len(broken):
        broken[end : end + 4] = zlib.crc32(broken[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(broken)


# Pillow warns of what it reads nevertheless.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", VALID)
def test_mutated_photo_is_accepted_or_refused_and_nothing_else(alice, kind):
    assert photos.accept(alice, photos.Upload(VALID[kind]))
    chance = random.Random(kind)
    ends = Counter()
    for number in range(60):
        data = mutated(VALID[kind], chance)
        if "PNG" in kind and number % 2:
            data = with_checksums(data)
        try:
            photo = photos.accept(alice, photos.Upload(data))
            ends["accepted"] += 1
            assert photo.width * photo.height <= 40_000_000
        except PhotoError as error:
            ends[error.code] += 1
    # Neither all one nor all the other: the changes reach the decoder.
    assert ends["photo_invalid"] > 5


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


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_committed", [True, False])
def test_photo_whose_commit_is_not_confirmed_keeps_its_files_if_it_is_there(alice, upload, monkeypatch, is_committed):
    def save(photo, save=Photo.save, **options):
        if not is_committed:
            raise OperationalError("the server closed the connection")
        save(photo, **options)
        # What runs after a commit fails after it, as a lost confirmation does.
        transaction.on_commit(lambda: (_ for _ in ()).throw(OperationalError("the server closed the connection")))

    with monkeypatch.context() as cut:
        cut.setattr(Photo, "save", save)
        with pytest.raises(OperationalError):
            photos.accept(alice, upload)
    assert Photo.objects.count() == is_committed
    assert len([path for path in Path(default_storage.location).rglob("*") if path.is_file()]) == 2 * is_committed
    again = photos.accept(alice, upload)
    assert default_storage.exists(again.file.name)
    assert default_storage.exists(again.thumbnail.name)


def test_result_that_cannot_be_read_any_more_is_an_error_with_a_sentence(start, work, client, alice):
    run = start()
    work()
    run.refresh_from_db()
    with default_storage.open(run.result.name, "wb") as file:
        file.write(photos.read(run.photo.file)[:2000])
    client.force_login(alice)
    answer = client.get(f"/runs/{run.pk}/download?format=png")
    assert answer.status_code == 503
    assert answer["Retry-After"]
    assert "could not be read" in answer.content.decode()


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


@pytest.mark.parametrize("content_type", processing.FORMATS)
def test_every_download_format_carries_the_mark(start, work, content_type):
    run = start()
    work()
    run.refresh_from_db()
    data = photos.download(run, content_type)
    assert provenance.read(data) == "algorithmicallyEnhanced"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (processing.FORMATS[content_type], (run.width, run.height))


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
