import inspect
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from generation.engine import recipes
from generation.engine.raster import as_floats
from generation.engine.render import OPS, render

ROOT = Path(__file__).parents[3]
CATALOGUE = {entry["slug"]: entry for entry in json.loads((ROOT / "generation" / "presets.json").read_text())}
MONOCHROME = ["mono_drama", "noir_classic"]


def photo(name, side=200):
    with Image.open(ROOT / "static" / "img" / "samples" / f"{name}.jpg") as image:
        image.thumbnail((side, side))
        return np.asarray(image.convert("RGB"))


def real_photo(name, side):
    with Image.open(ROOT / "generation" / "tests" / "photos" / f"{name}.jpg") as image:
        image.thumbnail((side, side))
        return np.asarray(image.convert("RGB"))


def recipe(*ops):
    return {"version": 1, "steps": [{"op": op} if isinstance(op, str) else op for op in ops]}


def difference(one, other):
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("slug", CATALOGUE)
def test_recipe_is_valid_and_its_strength_rises_from_the_photo_to_the_look(slug):
    look = CATALOGUE[slug]["recipe"]
    assert recipes.problems(look) == []
    source = photo("coffee", 120)
    kept = source.copy()
    distances = [difference(render(source, look, strength=s, seed=1), source) for s in (0, 0.25, 0.5, 0.75, 1)]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[-1] > 3
    assert np.array_equal(source, kept)


def test_no_two_looks_are_alike():
    sources = [
        real_photo(name, 160) for name in ("portrait-light", "group", "landscape", "city-night", "food", "forest")
    ]

    def lab(picture):
        return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

    looks = {"photo": [lab(source) for source in sources]}
    for slug, entry in CATALOGUE.items():
        strength = recipes.blend(entry["recipe"], entry["strength"])
        looks[slug] = [lab(render(source, entry["recipe"], strength=strength, seed=1)) for source in sources]
    close = []
    for one, other in itertools.combinations(looks, 2):
        apart = [np.linalg.norm(a - b, axis=2).mean() for a, b in zip(looks[one], looks[other], strict=True)]
        if np.mean(apart) < 7:
            close.append((one, other, round(float(np.mean(apart)), 1)))
    assert close == []


@pytest.mark.parametrize("slug", MONOCHROME)
def test_black_and_white_is_without_colour_at_its_own_strength(slug):
    entry = CATALOGUE[slug]
    out = render(photo("portrait"), entry["recipe"], strength=recipes.blend(entry["recipe"], entry["strength"]))
    assert int(np.ptp(out, axis=2).max()) <= 2


@pytest.mark.parametrize("slug", CATALOGUE)
def test_same_seed_gives_the_same_bytes_wherever_the_picture_lies_and_in_parallel_or_not(slug):
    source = photo("landscape", 900)
    look = CATALOGUE[slug]["recipe"]
    once = render(source, look, seed=5, parallel=False)
    room = np.empty(source.size + 64, np.uint8)
    for shift, parallel in ((0, True), (1, False), (7, True), (33, True)):
        elsewhere = room[shift : shift + source.size].reshape(source.shape)
        elsewhere[:] = source
        assert np.array_equal(once, render(elsewhere, look, seed=5, parallel=parallel)), shift


def test_opencv_rounds_alike_wherever_in_memory_its_answer_goes():
    plane = as_floats(np.random.default_rng(0).integers(0, 256, (500, 501), dtype=np.uint8))
    room = np.empty(plane.nbytes + 128, np.uint8)
    aligned = -room.ctypes.data % 64
    lengths = set()
    for start in (aligned, aligned + 16):
        answer = room[start : start + plane.nbytes].view(np.float32).reshape(plane.shape)
        lengths.add(cv2.magnitude(plane, np.ascontiguousarray(plane[:, ::-1]), answer).tobytes())
    assert len(lengths) == 1


def test_pictures_rendered_side_by_side_are_those_rendered_one_by_one():
    source = photo("landscape", 900)
    looks = [CATALOGUE[slug]["recipe"] for slug in ("express_enhance", "watercolor", "pencil_sketch", "pop_art")]
    alone = [render(source, look, seed=5) for look in looks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda look: render(source, look, seed=5), looks * 2))
    assert all(np.array_equal(one, other) for one, other in zip(alone * 2, together, strict=True))


def test_another_seed_gives_another_picture():
    source = photo("portrait")
    look = CATALOGUE["vintage_film_35mm"]["recipe"]
    assert difference(render(source, look, seed=1), render(source, look, seed=2)) > 1


@pytest.mark.parametrize("op", recipes.OPS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (64, 3000), (7, 5)])
def test_every_op_takes_every_size(op, shape):
    source = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    out = render(source, recipe(op), seed=1)
    assert (out.shape, out.dtype) == (source.shape, np.uint8)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), width=st.integers(1, 90), height=st.integers(1, 90), strength=st.floats(0, 1))
def test_every_valid_number_renders(data, width, height, strength):
    op = data.draw(st.sampled_from(sorted(recipes.OPS)))
    step = {"op": op}
    for name, parameter in recipes.OPS[op].items():
        if isinstance(parameter, recipes.Number):
            whole = st.integers(int(parameter.low), int(parameter.high))
            step[name] = data.draw(whole if parameter.whole else st.floats(parameter.low, parameter.high))
    assert recipes.problems(recipe(step)) == []
    source = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert render(source, recipe(step), strength=strength).shape == source.shape


def test_language_and_implementation_agree():
    assert set(OPS) == set(recipes.OPS)
    for name, parameters in recipes.OPS.items():
        signature = inspect.signature(OPS[name])
        keywords = {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
        assert keywords == {key: parameter.default for key, parameter in parameters.items()}, name


def test_look_is_the_same_at_another_size():
    look = CATALOGUE["cinematic_glow"]["recipe"]
    large = photo("landscape", 1200)
    small = cv2.resize(large, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    shrunk = cv2.resize(render(large, look), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert difference(cv2.blur(render(small, look), (25, 25)), cv2.blur(shrunk, (25, 25))) < 2
