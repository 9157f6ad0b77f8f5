"""Odd pictures through decoding and every kind of recipe: whole, of the same size, in bounded memory."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from generation.engine import ingest
from generation.engine.render import render

ROOT = Path(__file__).parents[3]
CATALOGUE = {entry["slug"]: entry["recipe"] for entry in json.loads((ROOT / "generation/presets.json").read_text())}
KINDS = ["express_enhance", "cinematic_glow", "oil_painting", "watercolor", "pencil_sketch", "comic_ink", "duotone"]
MODES = {
    "1": ("PNG",),
    "L": ("PNG", "JPEG"),
    "LA": ("PNG",),
    "P": ("PNG",),
    "RGB": ("PNG", "JPEG", "WEBP"),
    "RGBA": ("PNG", "WEBP"),
    "CMYK": ("JPEG",),
    "I;16": ("PNG",),
}


def encoded(mode, image_format, width, height, seed=0):
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    else:
        colours = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        image = Image.fromarray(colours, "RGBA") if mode in ("RGBA", "LA") else Image.fromarray(colours[..., :3])
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, image_format)
    return out.getvalue()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from([(mode, form) for mode, forms in MODES.items() for form in forms]),
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    side=st.integers(1, 200),
    slug=st.sampled_from(KINDS),
)
def test_any_mode_and_size_comes_out_whole(kind, width, height, side, slug):
    image = ingest.decode(encoded(*kind, width, height), ingest.Limits(), max_side=side)
    assert image.mode in ("RGB", "RGBA")
    assert max(image.size) == min(side, max(width, height))
    assert not image.info
    made = render(np.asarray(image.convert("RGB")), CATALOGUE[slug], seed=1)
    assert made.shape == (image.height, image.width, 3)


@pytest.mark.parametrize("size", [(1, 1), (64, 12_000), (12_000, 64), (1, 3000)])
@pytest.mark.parametrize("slug", KINDS)
def test_extreme_shapes_keep_their_size(slug, size):
    image = ingest.decode(encoded("RGB", "PNG", *size), ingest.Limits())
    assert render(np.asarray(image), CATALOGUE[slug], seed=1).shape == (size[1], size[0], 3)


def test_narrow_jpeg_shrinks_to_a_pixel_at_least():
    image = ingest.decode(encoded("RGB", "JPEG", 1, 200), ingest.Limits(), max_side=20)
    assert image.size == (1, 20)


def test_sixteen_bits_keep_their_range():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, 0)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "PNG")
    decoded = np.asarray(ingest.decode(out.getvalue(), ingest.Limits()))[0, :, 0]
    assert np.abs(decoded.astype(int) - np.arange(256)).max() <= 1


def test_transparency_survives_shrinking_without_a_dark_fringe():
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((250, 40, 40, 255), (0, 0, 33, 64))
    out = io.BytesIO()
    image.save(out, "PNG")
    small = np.asarray(ingest.decode(out.getvalue(), ingest.Limits(), max_side=16)).astype(int)
    edge = small[8][(small[8, :, 3] > 20) & (small[8, :, 3] < 255)]
    assert len(edge)
    assert (edge[:, 0] > 200).all()


@pytest.mark.skipif("HEIF" not in ingest.FORMATS, reason="HEIC is not read here")
def test_heic_of_several_pictures_is_its_first_also_when_shrunk():
    data = (ROOT / "generation/tests/photos/two.heic").read_bytes()
    whole = ingest.decode(data, ingest.Limits())
    small = ingest.decode(data, ingest.Limits(), max_side=100)
    assert (whole.size, small.size) == ((160, 107), (100, 67))
    # Coffee, not the landscape that comes second.
    for image in (whole, small):
        red, _, blue = image.resize((1, 1)).getpixel((0, 0))
        assert red > blue + 20


def grown(setup, action):
    """Megabytes by which an action makes a new process grow at its largest."""
    script = f"""
import io, json, re
from pathlib import Path
import numpy as np
from PIL import Image
from generation.engine import ingest
from generation.engine.render import render
catalogue = {{e["slug"]: e["recipe"] for e in json.loads(Path("generation/presets.json").read_text())}}
render(np.zeros((900, 900, 3), np.uint8), catalogue["express_enhance"])
# Of this program alone: what getrusage says is inherited from the process that started it.
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
{setup}
before = peak()
{action}
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.fixture(scope="module")
def forty_megapixels(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    with Image.open(ROOT / "generation/tests/photos/landscape.jpg") as image:
        image.resize((8000, 5000)).save(path, quality=85)
    return path


def test_forty_megapixels_are_decoded_small_without_holding_them_all(forty_megapixels):
    setup = f"data = Path({str(forty_megapixels)!r}).read_bytes()"
    # The decoder itself halves or quarters a JPEG: 40 MP in RGB would be 120 MB.
    assert grown(setup, "ingest.decode(data, ingest.Limits(), max_side=2048)") < 60


@pytest.mark.parametrize(("slug", "megabytes"), [("express_enhance", 100), ("noir_classic", 100), ("watercolor", 320)])
def test_forty_megapixels_are_rendered_in_little_more_than_their_result(forty_megapixels, slug, megabytes):
    setup = f"picture = np.asarray(Image.open({str(forty_megapixels)!r}))"
    assert grown(setup, f"render(picture, catalogue[{slug!r}])") < 120 + megabytes


def test_steps_take_memory_by_the_proxy_and_not_by_the_picture():
    setup = "picture = np.random.default_rng(0).integers(0, 256, (2400, 3600, 3), dtype=np.uint8)"
    step = {"op": "local_tone", "clarity": 0.1}
    few, many = (grown(setup, f"render(picture, {{'version': 1, 'steps': [{step}] * {count}}})") for count in (2, 20))
    # Each step keeps two maps of 640 x 427 cells; one more copy of the picture as floats would be 104 MB.
    assert many < few + 18 * 2.5
