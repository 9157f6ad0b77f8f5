"""Sketches: what looks do to a photo, small and at once, for cards that show them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from generation.engine import ingest
from generation.engine.recipes import Look, blend
from generation.engine.render import render

SIDE = 320


def sketches(photo: bytes, looks: Sequence[Look], *, side: int = SIDE, threads: int = 2) -> list[Image.Image]:
    """Render every look on one photo with a long side of `side` pixels; RGB, in the order of the looks.

    The photo is decoded once, at about the size of a sketch. Raises ingest.Refused.
    """
    pixels = np.asarray(ingest.decode(photo, ingest.Limits(), max_side=side).convert("RGB"))

    def sketch(look: Look) -> Image.Image:
        return Image.fromarray(
            render(pixels, look.recipe, strength=blend(look.recipe, look.strength), seed=look.seed, parallel=False)
        )

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(sketch, looks))
