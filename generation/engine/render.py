"""A recipe applied to a picture: prepared on a small proxy, then done band by band.

1. The proxy (one pixel for each cell of k×k) goes through the steps; a step that must know the whole picture (levels,
   air light, guided coefficients, glow, painted layers) finds it out there, once.
2. The full picture follows in bands of rows, each through all steps while it is in the cache, a few at a time on a
   pool of threads. So memory is the picture, the result and a few bands, however many steps there are.
3. Consecutive colour ops are fused into one table.
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFilter

from generation.engine import colour, light, paint, recipes, tone
from generation.engine.raster import Band, Bytes, Floats, as_bytes, as_floats, luma, within
from generation.engine.scene import Scene, Step

PROXY_SIDE, PAINTED_PROXY_SIDE = 640, 1280
BAND_PIXELS = 200_000
TABLE_NODES = 33
# What a table accepts after steps that overshoot; beyond 0..1 it bends softly instead of clipping.
TABLE_LOW, TABLE_HIGH = -0.094, 1.161

Colours = Callable[[Floats], Floats]
Change = Callable[[Floats | Bytes, Band], Floats | Bytes]

POINTWISE: dict[str, Callable[..., Floats]] = {name: getattr(colour, name) for name in recipes.POINTWISE}
MEASURED: dict[str, Callable[..., Colours]] = {"auto_levels": tone.auto_levels}
STEPS: dict[str, Callable[..., Step]] = {
    name: next(getattr(module, name) for module in (tone, light, paint) if hasattr(module, name))
    for name in recipes.SPATIAL | recipes.PAINTED
}


def render(rgb: Bytes, recipe: Mapping[str, Any], *, strength: float = 1.0, seed: int = 0, threads: int = 2) -> Bytes:
    """Apply a valid recipe to a picture (h×w×3, sRGB bytes) and give a new one of the same size.

    `strength` 0 is the picture itself, 1 the full look, and between them lies the straight line. The same seed gives
    the same bytes, whatever the number of threads.
    """
    if strength <= 0:
        return rgb.copy()
    height, width = rgb.shape[:2]
    is_painted = any(step["op"] in recipes.PAINTED for step in recipe["steps"])
    scale = max(1, math.ceil(max(height, width) / (PAINTED_PROXY_SIDE if is_painted else PROXY_SIDE)))
    changes, reach = _prepare(_proxy(rgb, scale), _noise(rgb), recipe, seed)
    halo = math.ceil(reach * max(height, width)) + 3
    rows = max(1, BAND_PIXELS // width)
    out = np.empty_like(rgb)

    def do(top: int) -> None:
        bottom = min(height, top + rows)
        first, last = max(0, top - halo), min(height, bottom + halo)
        band = Band(width, height, first, last, scale)
        picture: Floats | Bytes = rgb[first:last]
        for change in changes:
            picture = change(picture, band)
        look = picture if picture.dtype == np.uint8 else as_bytes(as_floats(picture))
        mine = look[top - first : bottom - first]
        out[top:bottom] = mine if strength >= 1 else cv2.addWeighted(mine, strength, rgb[top:bottom], 1 - strength, 0)

    tops = range(0, height, rows)
    if threads > 1 and len(tops) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(do, tops))
    else:
        for top in tops:
            do(top)
    return out


def _proxy(rgb: Bytes, scale: int) -> Bytes:
    """Average cells of scale×scale pixels; the last cells are filled up with the border."""
    if scale == 1:
        return rgb
    height, width = rgb.shape[:2]
    padded = cv2.copyMakeBorder(rgb, 0, -height % scale, 0, -width % scale, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // scale, padded.shape[0] // scale)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.uint8)


def _noise(rgb: Bytes) -> float:
    """Estimate the picture's noise (deviation, 0..1) from the calmest of 25 tiles (Immerkær, 1996)."""
    height, width = rgb.shape[:2]
    if min(height, width) < 16:
        return 0.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    found = []
    for top in np.linspace(0, max(0, height - 96), 5).astype(int):
        for left in np.linspace(0, max(0, width - 96), 5).astype(int):
            tile = luma(as_floats(rgb[top : top + 96, left : left + 96]))
            if 0.05 < float(tile.mean()) < 0.95:
                found.append(
                    float(np.abs(cv2.filter2D(tile, -1, kernel)[1:-1, 1:-1]).mean()) * math.sqrt(math.pi / 2) / 6
                )
    return float(np.quantile(found, 0.2)) if found else 0.0


def _prepare(proxy: Bytes, noise: float, recipe: Mapping[str, Any], seed: int) -> tuple[list[Change], float]:
    """Return the changes to make to each band, and how far they look around (fraction of the long side)."""
    scene = Scene(proxy, noise)
    changes: list[Change] = []
    colours: list[Colours] = []
    reach = 0.0

    def fuse() -> None:
        if colours:
            change = _table(list(colours), overshoots=bool(changes))
            scene.add(change)
            changes.append(change)
            colours.clear()

    for number, entry in enumerate(recipe["steps"]):
        name = entry["op"]
        scene.rng = np.random.default_rng((seed, number))
        settings = recipes.settings(entry, lambda: float(scene.rng.uniform(-1, 1)))
        if name in POINTWISE:
            colours.append(lambda rgb, op=POINTWISE[name], settings=settings: op(rgb, **settings))
        elif name in MEASURED:
            sample = np.clip(within(scene.picture, 400), 0, 1)
            for change in colours:
                sample = np.clip(change(sample), 0, 1)
            colours.append(MEASURED[name](sample, **settings))
        else:
            fuse()
            step = STEPS[name](scene, **settings)
            change = _on_floats(step)
            scene.add(change)
            if step.covers:
                changes.clear()
                reach = 0.0
            changes.append(change)
            reach += step.reach
    fuse()
    return changes, reach


def _on_floats(step: Step) -> Change:
    return lambda picture, band: step.change(as_floats(picture), band)


def _table(colours: list[Colours], *, overshoots: bool) -> Change:
    """Fuse colour ops into one 3-D table, looked up with trilinear interpolation."""
    nodes = np.linspace(0, 1, TABLE_NODES, dtype=np.float32)
    if overshoots:
        nodes = _softened(nodes * np.float32(TABLE_HIGH - TABLE_LOW) + np.float32(TABLE_LOW))
    blue, green, red = np.meshgrid(nodes, nodes, nodes, indexing="ij")
    # Three dimensions, because OpenCV's colour conversions take pictures.
    cube = np.stack([red, green, blue], -1).reshape(TABLE_NODES, -1, 3)
    for change in colours:
        cube = np.clip(np.nan_to_num(change(cube)), 0, 1).astype(np.float32)
    table = ImageFilter.Color3DLUT(TABLE_NODES, cube.ravel().tolist(), _copy_table=False)

    def change(picture: Floats | Bytes, band: Band) -> Bytes:
        if overshoots:
            gain = 255 / (TABLE_HIGH - TABLE_LOW)
            floats = as_floats(picture)
            picture = cv2.addWeighted(floats, gain, floats, 0, -TABLE_LOW * gain, dtype=cv2.CV_8U)
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).filter(table))

    return change


def _softened(values: Floats) -> Floats:
    """Bend what lies below 0.02 and above 0.98 into 0..1."""
    low = np.float32(0.02) * np.exp(np.minimum(0, (values - np.float32(0.02)) / np.float32(0.02)))
    high = np.float32(0.98) + np.float32(0.02) * (
        1 - np.exp(-np.maximum(0, values - np.float32(0.98)) / np.float32(0.02))
    )
    return np.asarray(np.where(values < 0.02, low, np.where(values > 0.98, high, values)), np.float32)
