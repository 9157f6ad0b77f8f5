import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from generation.engine.render import render

ROOT = Path(__file__).parents[3]
CATALOGUE = {entry["slug"]: entry["recipe"] for entry in json.loads((ROOT / "generation/presets.json").read_text())}
RED = np.full((16, 16, 3), (200, 30, 20), np.uint8)


@pytest.mark.parametrize("op", ["saturation", "vibrance"])
def test_vivid_red_made_more_vivid_stays_red(op):
    red, green, blue = render(RED, {"version": 1, "steps": [{"op": op, "amount": 1.5}]})[8, 8].astype(int)
    assert red >= 200
    assert max(green, blue) < 60


def test_grey_stays_grey_under_ops_of_chroma_and_hue():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(8, 0)
    steps = [
        {"op": "saturation", "amount": 1},
        {"op": "vibrance", "amount": 1},
        {"op": "hue_pull", "amount": 1, "chroma": 1},
        {"op": "hue_shift", "bands": [[30, 60, 40, 1, 0.2]]},
    ]
    for step in steps:
        out = render(ramp, {"version": 1, "steps": [step]})
        # Between the nodes of the table, vivid neighbours tint a grey by up to three levels.
        assert np.abs(out.astype(int) - ramp).max() <= 3, step


@pytest.mark.parametrize("slug", ["express_enhance", "golden_hour_magic", "oil_painting", "comic_ink", "pencil_sketch"])
def test_look_at_512_and_at_1024_is_the_same_from_afar(slug):
    with Image.open(ROOT / "static/img/samples/landscape.jpg") as image:
        large = np.asarray(image.convert("RGB").resize((1024, 682)))
    small = cv2.resize(large, (512, 341), interpolation=cv2.INTER_AREA)
    shrunk = cv2.resize(render(large, CATALOGUE[slug]), (512, 341), interpolation=cv2.INTER_AREA)
    apart = cv2.blur(render(small, CATALOGUE[slug]), (33, 33)).astype(int) - cv2.blur(shrunk, (33, 33))
    assert np.abs(apart).mean() < 4
