"""The header that is read without a decoder: it agrees with the decoders, and no bytes cost or raise anything."""

import io
import random
import time

import pytest
from PIL import Image

from generation.engine.exceptions import DamagedImage, TooCostly, TooManyPixels, UnsupportedType
from generation.engine.headers import MAX_SCANS, read_header
from generation.engine.ingest import Limits, decode
from generation.tests.images.files import HEIC, lossless_webp, many_scans, progressive_jpeg
from generation.tests.images.mutations import mutations
from stefna.tests.waiting import WAIT_SECONDS


def saved(mode, image_format, size=(321, 123), **options):
    out = io.BytesIO()
    Image.new(mode, size, "teal" if mode == "RGB" else 0).save(out, image_format, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved("RGB", "JPEG"),
        saved("L", "JPEG", progressive=True),
        saved("CMYK", "JPEG", comment=b"\xff\xda\xff\xc0" * 50),
        saved("RGB", "PNG"),
        saved("RGBA", "PNG"),
        saved("P", "PNG"),
        saved("I;16", "PNG"),
        saved("RGB", "WEBP"),
        saved("RGBA", "WEBP"),
        saved("RGB", "WEBP", lossless=True),
        saved("RGB", "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    ],
)
def test_size_is_what_the_decoder_reads(data):
    header = read_header(data)
    assert (header.width, header.height) == (321, 123)


def test_size_of_a_heic_is_that_of_its_largest_item():
    header, image = read_header(HEIC), decode(HEIC, Limits())
    assert {header.width, header.height} == {image.width, image.height}


def test_scans_are_counted_and_too_many_refused():
    assert read_header(progressive_jpeg()).scans == 10
    assert read_header(saved("RGB", "JPEG")).scans == 1
    with pytest.raises(TooCostly):
        decode(many_scans(MAX_SCANS + 1), Limits())
    assert decode(many_scans(MAX_SCANS), Limits()).size == (64, 48)


def test_scans_do_not_hide_behind_segments():
    data = many_scans(3000)
    hidden = data.replace(b"\xff\xda", b"\xff\xfe\x00\x02" * 10_000 + b"\xff\xda", 1)
    with pytest.raises(DamagedImage):
        decode(hidden, Limits())


def test_large_picture_is_refused_before_its_decoder_is_made():
    with pytest.raises(TooManyPixels):
        decode(lossless_webp((7000, 7000)), Limits(pixels=40_000_000))


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x18ftypheic"])
def test_bytes_without_a_header_are_damaged_and_no_decoder_sees_them(start):
    noise = random.Random(7).randbytes(3000)
    for data in (start, start + bytes(3000), start + b"\xff" * 3000):
        assert read_header(data) is None
        with pytest.raises(DamagedImage):
            decode(data, Limits())
    with pytest.raises(UnsupportedType):
        decode(noise, Limits())


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 15_000_000,
        b"\xff\xd8" + b"\xff\x00" * 7_500_000,
        b"\xff\xd8" + b"\xff\xda\x00\x02" * 3_750_000,
        b"\0\0\0\x18ftypheic" + bytes(12) + b"\0\0\0\x08meta" * 1_800_000,
        b"\0\0\0\x18ftypheic" + bytes(15_000_000),
    ],
    ids=["fill bytes", "stuffed bytes", "scans", "boxes", "zeros"],
)
def test_no_bytes_take_more_than_a_pass(data):
    """Quadratic work on 15 MB would end this test by its bound; a pass takes some 20 ms."""
    started = time.process_time()
    read_header(data)
    assert time.process_time() - started < WAIT_SECONDS


def test_no_mutation_raises_anything():
    for name, data in mutations(2000, seed=3):
        header = read_header(data)
        assert header is None or header.pixels >= 0, name
