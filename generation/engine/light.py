"""Light and lens: glow, mist, leaks, lamps, vignette, grain, rain.

Every op is prepared on the scene's proxy and gives a step that changes the full picture band by band.
"""

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from generation.engine.raster import (
    Band,
    Floats,
    as_colour,
    blurred,
    cloud,
    filled,
    grey,
    guided,
    luma,
    mixed,
    noise_tile,
    resized,
    scaled,
    screened,
    seamless,
    shifted,
    smoothstep,
    steepness,
    within,
)
from generation.engine.scene import Scene, Step


def bloom(
    scene: Scene, *, amount: float = 0.4, threshold: float = 0.6, radius: float = 0.02, tint: str = "#ffffff"
) -> Step:
    """Let bright parts bleed light: blurs of three sizes, screened over the picture."""
    small = within(scene.picture, 320)
    bright = scaled(small, smoothstep(luma(small), threshold - 0.25, threshold + 0.25))
    glow = sum(share * blurred(bright, radius * reach) for share, reach in ((0.5, 1), (0.3, 2.5), (0.2, 6)))
    return _glowing(scene, np.asarray(glow * as_colour(tint) * np.float32(amount), np.float32))


def orton(scene: Scene, *, amount: float = 0.4, radius: float = 0.012) -> Step:
    """Screen a blurred, deepened copy over the picture (Michael Orton's sandwich of two slides)."""
    soft = blurred(within(scene.picture, 400), radius)
    return _glowing(scene, np.asarray(cv2.pow(np.maximum(soft, 0), 1.6), np.float32) * np.float32(0.9 * amount))


def fog(scene: Scene, *, amount: float = 0.3, height: float = 0.5, colour: str = "#c8d4dc") -> Step:
    """Draw a seeded bank of mist across the picture, densest at `height` (0 top, 1 bottom)."""
    rows, columns = _small_shape(scene, 160)
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    billows = np.float32(0.55) + np.float32(0.22) * cloud(scene.rng, (rows, columns), (2, 4, 8))
    bank = np.exp(-(((down - np.float32(height)) / np.float32(0.42)) ** 2))
    return _tinted(scene, np.clip(billows, 0, 1) * bank * np.float32(amount), colour)


def vignette(scene: Scene, *, amount: float = 0.4, size: float = 0.75, colour: str = "#000000") -> Step:
    """Draw the corners towards a colour; the clear middle grows with `size`."""
    rows, columns = _small_shape(scene, 128)
    across = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    distance = np.asarray(np.hypot(across, down) / math.sqrt(2), np.float32)
    return _tinted(scene, smoothstep(distance, 0.4 * size, 0.4 * size + 0.63) * np.float32(amount), colour)


def grain(scene: Scene, *, amount: float = 0.03, size: float = 0.0008) -> Step:
    """Add seeded film grain to luma, strongest in the mid tones."""
    seed = int(scene.rng.integers(2**31))

    @functools.cache
    def texture(long_side: int) -> Floats:
        # Small pictures get weaker grain: shrinking a large one averages its grain away in the same measure.
        weight = amount * min(1.0, max(0.45, math.sqrt(long_side / 1500)))
        return noise_tile(np.random.default_rng(seed), max(0.35, size * long_side)) * np.float32(weight)

    def change(picture: Floats, band: Band) -> Floats:
        tone = np.clip(luma(picture), 0, 1)
        weight_by_tone = np.float32(0.35) + np.float32(0.65) * cv2.sqrt(4 * tone * (1 - tone))
        return shifted(picture, band.tile(texture(band.long_side)) * weight_by_tone)

    return Step(change)


def light_leak(
    scene: Scene,
    *,
    amount: float = 0.5,
    colours: Sequence[str] = ("#ff6a00", "#ffb347", "#ff2d55"),
    count: int = 2,
) -> Step:
    """Let coloured light in at seeded places along the border, as a worn camera back does."""
    rng = scene.rng
    across, down = _unit_grid(scene, 128)
    light = np.zeros((*across.shape, 3), np.float32)
    for number in range(count):
        place = np.float32(rng.uniform(0.1, 0.9))
        x, y = ((0, place), (1, place), (place, 0), (place, 1))[int(rng.integers(4))]
        deep, wide = rng.uniform(0.10, 0.22), rng.uniform(0.35, 0.70)
        reach_x, reach_y = (deep, wide) if x in (0, 1) else (wide, deep)
        spot = np.exp(-(((across - x) / np.float32(reach_x)) ** 2) - ((down - y) / np.float32(reach_y)) ** 2)
        light += grey(spot) * as_colour(colours[number % len(colours)])
    return _glowing(scene, light * np.float32(amount))


def sun_glow(scene: Scene, *, amount: float = 0.5, radius: float = 0.5, colour: str = "#ffb45a") -> Step:
    """Shine from the brightest place in the upper part of the picture; the seed moves the sun a little."""
    bright = blurred(luma(within(scene.picture, 160)), 0.06)
    rows, columns = bright.shape
    down, across = np.mgrid[0:rows, 0:columns].astype(np.float32)
    down, across = down / max(1, rows - 1), across / max(1, columns - 1)
    sun = np.unravel_index(np.argmax(bright * (1.15 - down) * (0.7 + 0.6 * np.abs(across - 0.5))), bright.shape)
    x = across[sun] + np.float32(scene.rng.uniform(-0.05, 0.05))
    aspect = columns / rows
    distance = np.hypot((across - x) * max(1.0, aspect), (down - 0.6 * down[sun]) * max(1.0, 1 / aspect))
    near = 0.65 * np.exp(-((distance / radius) ** 2)) + 0.35 * np.exp(-((distance / (2.2 * radius)) ** 2))
    return _glowing(scene, grey(near.astype(np.float32)) * as_colour(colour) * np.float32(amount))


def stage_lights(
    scene: Scene,
    *,
    amount: float = 0.5,
    spread: float = 0.55,
    colours: Sequence[str] = ("#ff2bd6", "#17e8ff"),
) -> Step:
    """Light the picture from both sides with coloured lamps; the seed places and may swap them."""
    rng = scene.rng
    across, down = _unit_grid(scene, 128)
    lamps = [as_colour(colours[0]), as_colour(colours[-1])][:: 1 if rng.random() < 0.5 else -1]
    places = (rng.uniform(-0.1, 0.15), rng.uniform(0.1, 0.7)), (rng.uniform(0.85, 1.1), rng.uniform(0.2, 0.8))
    light = np.zeros((*across.shape, 3), np.float32)
    for lamp, (x, y) in zip(lamps, places, strict=True):
        near = np.exp(-(((across - x) / spread) ** 2) - ((down - y) / (1.3 * spread)) ** 2)
        light += grey(near.astype(np.float32)) * lamp
    light = scene.fit(np.clip(light, 0, 1))

    def change(picture: Floats, band: Band) -> Floats:
        beam = band.stretch(light)
        # Lamps colour a surface by what it reflects, so they multiply; half of its own colour gives way to theirs.
        surface = cv2.addWeighted(picture, 0.45, grey(luma(picture)), 0.55, 0)
        lit = cv2.multiply(surface, np.float32(1 - 0.55 * amount) + beam * np.float32(1.35 * amount))
        mixture = cv2.addWeighted(picture, 1 - amount, lit, amount, 0)
        return np.asarray(cv2.add(mixture, beam * np.float32(0.055 * amount)), np.float32)

    return Step(change)


def edge_glow(
    scene: Scene,
    *,
    amount: float = 0.6,
    spread: float = 0.006,
    colours: Sequence[str] = ("#00f0ff", "#ff2bd6"),
) -> Step:
    """Bend neon tubes along the strongest edges, coloured from left to right, each with its own glow."""
    tone = luma(within(scene.picture, 960))
    calm = blurred(np.asarray(cv2.bilateralFilter(tone, 5, 0.16, 3), np.float32), 0.0014)
    edges = steepness(calm)
    tubes = smoothstep(edges / (np.float32(np.quantile(edges, 0.985)) + np.float32(0.047)), 0.4, 1.1)
    across = np.linspace(0, 1, tone.shape[1], dtype=np.float32)[None, :, None]
    neon = grey(tubes) * (as_colour(colours[0]) * (1 - across) + as_colour(colours[-1]) * across)
    glow = 0.75 * neon + 1.1 * blurred(neon, spread) + 0.9 * blurred(neon, 4 * spread)
    return _glowing(scene, np.asarray(glow * np.float32(amount), np.float32))


def sky_tint(scene: Scene, *, amount: float = 0.4, height: float = 0.6, colour: str = "#3aa0ff") -> Step:
    """Colour bright, smooth parts from the top down (skies) unless they are warm (skin); the tint ends at `height`."""
    small = within(scene.picture, 240)
    tone = luma(small)
    detail = blurred(np.abs(tone - blurred(tone, 0.01)), 0.02)
    down = np.linspace(0, 1, tone.shape[0], dtype=np.float32)[:, None]
    sky = (
        smoothstep(tone, 0.45, 0.8)
        * (1 - smoothstep(detail, 0.01, 0.05))
        * smoothstep(blurred(small[..., 2] - small[..., 0], 0.03), -0.1, 0.0)
        * np.clip(1 - down / np.float32(height), 0, 1)
    )
    slope, offset = guided(tone, blurred(sky, 0.006) * np.float32(amount), 0.02, 4e-4)
    slope, offset = scene.fit(slope), scene.fit(offset)

    def change(picture: Floats, band: Band) -> Floats:
        share = band.stretch(slope) * luma(picture)
        share += band.stretch(offset)
        np.clip(share, np.float32(0), np.float32(amount), out=share)
        return mixed(picture, filled(picture, colour), share)

    return Step(change)


def rain(
    scene: Scene, *, amount: float = 0.3, angle: float = 78.0, density: float = 0.4, colour: str = "#dfe8f0"
) -> Step:
    """Let seeded streaks of rain fall across the picture; `angle` 90 is straight down."""
    drops = scene.rng.random((512, 512), np.float32)
    # The largest few of the random values become drops, then a line of the fall's direction smears them.
    drops = smoothstep(drops, 1 - 0.012 * density, 1.0)
    line = np.zeros((43, 43), np.float32)
    dx, dy = 21 * math.cos(math.radians(angle)), 21 * math.sin(math.radians(angle))
    cv2.line(line, (round(21 - dx), round(21 - dy)), (round(21 + dx), round(21 + dy)), 1.0, 1, cv2.LINE_AA)
    line *= np.linspace(0.2, 1, 43, dtype=np.float32)[:, None]
    streaks = seamless(drops, lambda plane: np.asarray(cv2.filter2D(plane, -1, line), np.float32), 22)
    streaks = np.clip(streaks, 0, 1) * np.float32(amount)

    @functools.cache
    def texture(side: int) -> Floats:
        return resized(streaks, side, side)

    def change(picture: Floats, band: Band) -> Floats:
        falling = band.tile(texture(max(200, round(0.6 * band.long_side))))
        return mixed(picture, filled(picture, colour), falling)

    return Step(change)


def chroma_shift(scene: Scene, *, amount: float = 0.0015) -> Step:
    """Move red to the right and blue to the left, like a simple lens."""

    def change(picture: Floats, band: Band) -> Floats:
        pixels = round(amount * band.long_side)
        if pixels == 0 or pixels >= band.width:
            return picture
        out = picture.copy()
        out[:, pixels:, 0] = picture[:, :-pixels, 0]
        out[:, :-pixels, 2] = picture[:, pixels:, 2]
        return out

    return Step(change)


def _glowing(scene: Scene, light: Floats) -> Step:
    """Screen a small map of light over the picture."""
    dimming = np.float32(1) - np.clip(scene.fit(light), 0, np.float32(0.98))
    return Step(lambda picture, band: screened(picture, band.stretch(dimming)))


def _tinted(scene: Scene, share: Floats, colour: str) -> Step:
    """Lay a colour over the picture by a small map of shares."""
    shares = scene.fit(np.clip(share, 0, np.float32(0.95)).astype(np.float32))
    if colour == "#000000":
        kept = np.float32(1) - shares
        return Step(lambda picture, band: scaled(picture, band.stretch(kept)))
    return Step(lambda picture, band: mixed(picture, filled(picture, colour), band.stretch(shares)))


def _small_shape(scene: Scene, side: int) -> tuple[int, int]:
    height, width = scene.shape
    factor = min(1.0, side / max(height, width))
    return max(2, round(height * factor)), max(2, round(width * factor))


def _unit_grid(scene: Scene, side: int) -> tuple[Floats, Floats]:
    """Coordinates 0..1 across and down, on a small grid."""
    rows, columns = _small_shape(scene, side)
    down, across = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return across / np.float32(columns), down / np.float32(rows)
