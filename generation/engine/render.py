"""Render a recipe: once over a small proxy to measure and to paint, then over the full picture in bands.

Runs of point-wise colour ops become one table each. A picture that is no larger than its proxy is done with the first
pass. Memory is the picture, the result and a few bands, however many steps there are.
"""

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from generation.engine import colour, light, paint, tone
from generation.engine.raster import Band, Bytes, Floats, as_bytes, as_floats, within
from generation.engine.recipes import MEASURED, PAINTED, POINTWISE, SPATIAL, settings
from generation.engine.scene import Scene, Step

Colouring = Callable[[Floats], Floats]
Change = Callable[[Floats | Bytes, Band], Floats | Bytes]

OPS: dict[str, Callable[..., Any]] = {
    name: next(getattr(module, name) for module in (colour, tone, light, paint) if hasattr(module, name))
    for name in POINTWISE | MEASURED | SPATIAL | PAINTED
}

_SEPARABLE = {"gamma", "exposure", "contrast", "curve", "auto_levels"}
"""Ops that do not mix the channels; alone among themselves they need three short tables, not a cube."""

_PROXY_SIDE = 640
_PAINTED_SIDE = 1600
_BAND_PIXELS = 200_000
_CUBE = 33
_SAMPLE_SIDE = 160
# What the tables accept after float steps: overshoots get a soft toe and shoulder instead of a clip.
_LOWEST, _HIGHEST = -0.094, 1.16


def render(
    rgb: NDArray[np.uint8],
    recipe: Mapping[str, Any],
    *,
    strength: float = 1.0,
    seed: int = 0,
    parallel: bool = True,
) -> NDArray[np.uint8]:
    """Change a picture by a valid recipe.

    Takes and gives H×W×3 uint8 sRGB of the same size. Strength 0 gives the same bytes, 1 the full look, between them
    a straight mixture. The same seed gives the same bytes, `parallel` (on all cores) or not and wherever in memory the
    picture lies; another kind of processor may round otherwise.
    """
    height, width = rgb.shape[:2]
    strength = min(1.0, max(0.0, strength))
    if strength == 0 or not recipe["steps"]:
        return rgb.copy()
    painted = any(step["op"] in PAINTED for step in recipe["steps"])
    scale = math.ceil(max(height, width) / (_PAINTED_SIDE if painted else _PROXY_SIDE))
    least = max(8, scale)
    source = np.ascontiguousarray(rgb)
    if min(height, width) < least:
        missing = max(0, least - height), max(0, least - width)
        source = np.asarray(cv2.copyMakeBorder(source, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE), np.uint8)
    scene = Scene(_proxy(source, scale), _noise(source))
    steps = _prepare(scene, recipe["steps"], seed)
    if scale == 1:
        full = _mixture(source, scene.pixels, strength)
    else:
        full = _in_bands(source, steps, scale, strength, parallel)
    return full if full.shape == rgb.shape else full[:height, :width].copy()


def _prepare(scene: Scene, steps: list[Mapping[str, Any]], seed: int) -> list["_Prepared"]:
    """Prepare each step on the scene; what a covering layer hides is left out of the full picture's steps."""
    prepared: list[_Prepared] = []
    colourings: list[tuple[Colouring, bool]] = []

    def fuse() -> None:
        if colourings:
            table = _table(colourings, after_floats=bool(prepared))
            prepared.append((table, 0.0))
            scene.add(table)
            colourings.clear()

    for number, step in enumerate(steps):
        name, op = step["op"], OPS[step["op"]]
        scene.rng = np.random.default_rng((seed & 0xFFFFFFFF, number))
        arguments = settings(step, lambda: float(scene.rng.uniform(-1, 1)))
        if name in POINTWISE:
            colourings.append((partial(op, **arguments), name in _SEPARABLE))
        elif name in MEASURED:
            # Measured behind the colourings that wait, so that all of them still fuse into one table.
            sample = within(scene.picture, _SAMPLE_SIDE)
            for colouring, _ in colourings:
                sample = np.clip(colouring(sample), 0, 1)
            colourings.append((op(sample, **arguments), name in _SEPARABLE))
        else:
            fuse()
            spatial: Step = op(scene, **arguments)
            change = _on_floats(spatial)
            if spatial.covers:
                prepared.clear()
            prepared.append((change, spatial.reach))
            scene.add(change)
    fuse()
    return prepared


_Prepared = tuple[Change, float]


def _in_bands(source: Bytes, steps: list[_Prepared], scale: int, strength: float, parallel: bool) -> Bytes:
    height, width = source.shape[:2]
    # Filters of small radius have a least size in pixels: six more cover it.
    halo = sum(math.ceil(reach * max(height, width)) + 6 for _, reach in steps if reach)
    rows = max(32, _BAND_PIXELS // width, 2 * halo)
    out = np.empty_like(source)

    def work(top: int) -> None:
        bottom = min(height, top + rows)
        first, last = max(0, top - halo), min(height, bottom + halo)
        band = Band(width, height, first, last, scale)
        pixels: Floats | Bytes = source[first:last]
        for change, _ in steps:
            pixels = change(pixels, band)
        out[top:bottom] = _mixture(source[top:bottom], pixels[top - first : bottom - first], strength)

    tops = range(0, height, rows)
    # One pool for all renders of the process: with pools of their own, many at once would only get in each other's way.
    list(_pool().map(work, tops) if parallel else map(work, tops))
    return out


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="bands")


# A forked process has none of the threads of its parent.
os.register_at_fork(after_in_child=_pool.cache_clear)


def _mixture(source: Bytes, pixels: Floats | Bytes, strength: float) -> Bytes:
    changed = pixels if pixels.dtype == np.uint8 else as_bytes(as_floats(pixels))
    if strength == 1:
        return np.asarray(changed, np.uint8)
    return np.asarray(cv2.addWeighted(source, 1 - strength, changed, strength, 0), np.uint8)


def _on_floats(step: Step) -> Change:
    return lambda pixels, band: step.change(as_floats(pixels), band)


def _proxy(source: Bytes, scale: int) -> Bytes:
    """Average scale×scale pixels to a cell; a last row or column that is not full repeats its neighbour."""
    if scale == 1:
        return source
    height, width = source.shape[:2]
    rows, columns = height // scale, width // scale
    whole = source[: rows * scale, : columns * scale]
    proxy = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    more = int(rows * scale < height), int(columns * scale < width)
    return np.asarray(cv2.copyMakeBorder(proxy, 0, more[0], 0, more[1], cv2.BORDER_REPLICATE), np.uint8)


def _noise(source: Bytes) -> float:
    """Estimate the deviation of the noise, 0..1, in the quietest tiles of 25 (Immerkær, 1996)."""
    height, width = source.shape[:2]
    side = 96
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    found = []
    for y in np.linspace(0, max(0, height - side), 5).astype(int):
        for x in np.linspace(0, max(0, width - side), 5).astype(int):
            tile = cv2.cvtColor(np.ascontiguousarray(source[y : y + side, x : x + side]), cv2.COLOR_RGB2GRAY)
            if 12 < tile.mean() < 243:
                ripple = np.abs(cv2.filter2D(tile, cv2.CV_32F, mask)[1:-1, 1:-1]).mean()
                found.append(float(ripple) * math.sqrt(math.pi / 2) / 6 / 255)
    return float(np.quantile(found, 0.2)) if found else 0.0


def _table(colourings: list[tuple[Colouring, bool]], *, after_floats: bool) -> Change:
    """Fuse colourings into one table: exact for single channels, else a cube of 33³ (trilinear, by Pillow)."""
    functions = [colouring for colouring, _ in colourings]
    if all(separable for _, separable in colourings):
        ramp = np.linspace(0, 1, 256, dtype=np.float32)
        entries = _coloured(functions, np.repeat(ramp[:, None, None], 3, 2), after_floats)
        short = as_bytes(entries).reshape(1, 256, 3)
        return lambda pixels, band: np.asarray(cv2.LUT(_quantised(pixels, after_floats), short), np.uint8)
    ramp = np.linspace(0, 1, _CUBE, dtype=np.float32)
    blue, green, red = np.meshgrid(ramp, ramp, ramp, indexing="ij")
    corners = np.stack([red, green, blue], -1).reshape(_CUBE * _CUBE, _CUBE, 3)
    entries = _coloured(functions, corners, after_floats)
    cube = ImageFilter.Color3DLUT(_CUBE, entries.reshape(-1))

    def change(pixels: Floats | Bytes, band: Band) -> Bytes:
        return np.asarray(Image.fromarray(_quantised(pixels, after_floats)).filter(cube))

    return change


def _coloured(functions: list[Colouring], colours: Floats, after_floats: bool) -> Floats:
    if after_floats:
        values = _LOWEST + colours * (_HIGHEST - _LOWEST)
        values = np.where(values < 0.02, 0.02 * np.exp(np.minimum(0, values / 0.02 - 1)), values)
        bent = 0.98 + 0.02 * (1 - np.exp(-(values - 0.98) / 0.02))
        colours = np.where(values > 0.98, bent, values).astype(np.float32)
    for function in functions:
        colours = np.ascontiguousarray(np.clip(np.nan_to_num(function(colours)), 0, 1), np.float32)
    return colours


def _quantised(pixels: Floats | Bytes, after_floats: bool) -> Bytes:
    """The table's index: bytes as they are, floats from the wider range that tables take after float steps."""
    if not after_floats:
        return np.ascontiguousarray(pixels, np.uint8)
    gain = 255 / (_HIGHEST - _LOWEST)
    return np.asarray(cv2.addWeighted(pixels, gain, pixels, 0, -_LOWEST * gain, dtype=cv2.CV_8U), np.uint8)
