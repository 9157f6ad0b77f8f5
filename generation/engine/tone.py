"""Tone and detail: levels, haze, local contrast, sharpness, softness.

Every op but `auto_levels` is prepared on the scene's proxy, where it measures or fits what it needs, and gives a step
that changes the full picture band by band.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from generation.engine.raster import (
    Band,
    Floats,
    blurred,
    gaussian,
    grey,
    guided,
    luma,
    mixed,
    scaled,
    shifted,
    smoothstep,
    steepness,
    within,
)
from generation.engine.raster import skin as skin_of
from generation.engine.scene import Scene, Step


def auto_levels(
    sample: Floats,
    *,
    clip: float = 0.004,
    limit: float = 0.12,
    mid: float = 0.47,
    mid_amount: float = 0.5,
    balance: float = 0.0,
) -> Callable[[Floats], Floats]:
    """Measure a small picture and give the curve that stretches it to its own percentiles.

    Black and white move by at most `limit`; the median comes `mid_amount` of the way to `mid`; `balance` is how far
    the channels' means are drawn together (grey world: Buchsbaum, 1980). Channels do not mix.
    """
    tone = luma(sample)
    low, high = (float(value) for value in np.quantile(tone, [clip, 1 - clip]))
    # A white wall or sky says nothing about how light its subject should be.
    subject = tone[tone < 0.86]
    middle = float(np.median(subject if len(subject) > 0.1 * tone.size else tone))
    low, high = 0.9 * min(low, limit), max(high, 1 - 1.5 * limit)
    high += 0.1 * (1 - high)
    if high - low < 0.2:
        return lambda rgb: rgb
    median = min(0.98, max(0.02, (middle - low) / (high - low)))
    exponent = min(1 / 0.72, max(1 / 1.45, (math.log(mid) / math.log(median)) ** mid_amount))
    gains = np.ones(3, np.float32)
    coloured = sample[(tone > 0.15) & (tone < 0.9)]
    if balance and len(coloured):
        means = np.maximum(coloured.mean(0), 0.05)
        gains += np.float32(balance) * np.clip(means.mean() / means - 1, -0.3, 0.3)

    def stretch(rgb: Floats) -> Floats:
        return np.asarray(cv2.pow(np.clip((rgb * gains - low) / (high - low), 0, 1), exponent), np.float32)

    return stretch


def dehaze(
    scene: Scene, *, amount: float = 0.7, floor: float = 0.22, patch: float = 0.012, radius: float = 0.045
) -> Step:
    """Lift haze: dark channel prior (He, Sun and Tang, CVPR 2009), refined by a guided filter.

    `floor` is the least transmission. Bright, smooth upper parts are taken for sky and hardly touched, since the prior
    does not hold there; nor does it on skin, which would turn dark and red.
    """
    small = within(scene.picture, 512)
    side = 2 * max(1, round(patch * max(small.shape[:2]))) + 1
    kernel = np.ones((side, side), np.uint8)
    dark = cv2.erode(small.min(2), kernel)
    count = min(dark.size, max(4, dark.size // 500))
    haziest = np.argpartition(dark.ravel(), -count)[-count:]
    air = np.quantile(small.reshape(-1, 3)[haziest], 0.8, axis=0).astype(np.float32)
    air = np.clip(np.float32(0.25) * air + np.float32(0.75) * air.mean(), 0.45, 0.98)
    through = 1 - np.float32(amount) * cv2.erode((small / air).min(2), kernel)

    tone = luma(small)
    texture = blurred(steepness(tone), 0.008)
    height = np.linspace(1, 0, tone.shape[0], dtype=np.float32)[:, None]
    sky = smoothstep(tone, 0.5, 0.75) * (1 - smoothstep(texture, 0.02, 0.09)) * smoothstep(height, 0.25, 0.6)
    least = np.float32(floor) + np.float32(max(0.0, 0.62 - floor)) * blurred(sky, 0.01)
    least = np.maximum(least, np.float32(0.95) * skin_of(small))
    slope, offset = (scene.fit(plane) for plane in guided(tone, np.maximum(through, least), radius, 1e-3))

    def change(picture: Floats, band: Band) -> Floats:
        through = band.stretch(slope) * luma(picture)
        through += band.stretch(offset)
        np.clip(through, np.float32(floor), np.float32(1), out=through)
        thinned = np.float32(1) / through
        # J = (I - A) / t + A, written as I/t - A(1/t - 1) to touch the three channels twice only.
        veil = grey(thinned - np.float32(1))
        veil *= air
        return np.asarray(cv2.subtract(scaled(picture, thinned), veil), np.float32)

    return Step(change)


def local_tone(
    scene: Scene,
    *,
    clarity: float = 0.0,
    shadows: float = 0.0,
    highlights: float = 0.0,
    radius: float = 0.02,
    edge: float = 0.012,
) -> Step:
    """Split luma into base and detail by a guided filter; change the detail and the tone of the base.

    Clarity scales the detail, most in the mid tones; shadows lifts and highlights lowers the base along polynomials.
    The change is a gain, so hues stay; detail as small as the measured noise is not raised.
    """
    tone = luma(within(scene.picture, 640))
    slope, offset = (scene.fit(plane) for plane in guided(tone, tone, radius, edge))
    core = np.float32(2.2 * max(0.0, scene.noise - 0.0024)) if clarity > 0 else np.float32(0)

    def change(picture: Floats, band: Band) -> Floats:
        tone = luma(picture)
        base = band.stretch(slope) * tone
        base += band.stretch(offset)
        np.clip(base, 0, 1, out=base)
        delta = tone - base
        if core:
            size = np.abs(delta)
            delta *= size / (size + core)
        dark = np.float32(1) - base
        delta *= np.float32(clarity) * (np.float32(0.25) + np.float32(3) * base * dark)
        if shadows:
            delta += np.float32(2.3 * shadows) * base * (dark * dark * dark)
        if highlights:
            square = base * base
            delta -= np.float32(0.3 * highlights) * square * square
        delta /= tone + np.float32(0.06)
        delta += np.float32(1)
        np.clip(delta, np.float32(0.25), np.float32(3), out=delta)
        return scaled(picture, delta)

    return Step(change)


def sharpen(scene: Scene, *, amount: float = 0.5, radius: float = 0.0007) -> Step:
    """Add back the luma that a small Gaussian takes away (unsharp mask), limited at edges.

    Differences about as small as the measured noise are cored out, so noise is not sharpened.
    """
    core = np.float32(max(0.01, 3.5 * scene.noise))

    def change(picture: Floats, band: Band) -> Floats:
        tone = luma(picture)
        detail = tone - gaussian(tone, band.sigma(radius))
        size = np.abs(detail)
        detail *= np.float32(amount) * size / (size + core)
        np.clip(detail, np.float32(-0.11), np.float32(0.11), out=detail)
        return shifted(picture, detail)

    return Step(change, reach=4 * radius)


def smooth(scene: Scene, *, amount: float = 0.5, radius: float = 0.006, edge: float = 0.004, skin: float = 0.0) -> Step:
    """Take fine luma texture away and keep edges (guided filter); `skin` 1 does so on skin colours only."""
    picture = within(scene.picture, 1280)
    tone = luma(picture)
    slope, offset = guided(tone, tone, radius, edge)
    where = np.float32(1) + np.float32(skin) * (skin_of(picture) - 1) if skin else np.ones_like(tone)
    share, slope, offset = (scene.fit(plane) for plane in (where * np.float32(amount), slope, offset))

    def change(picture: Floats, band: Band) -> Floats:
        tone = luma(picture)
        delta = band.stretch(slope) * tone
        delta += band.stretch(offset)
        delta -= tone
        delta *= band.stretch(share)
        return shifted(picture, delta)

    return Step(change)


def focus(
    scene: Scene,
    *,
    amount: float = 0.7,
    radius: float = 0.008,
    size: float = 0.6,
    x: float = 0.5,
    y: float = 0.45,
) -> Step:
    """Blur what lies outside an ellipse round (x, y), like a lens of large aperture."""
    soft = blurred(scene.picture, radius)
    height, width = scene.shape
    across = (np.linspace(0, 1, width, dtype=np.float32) - np.float32(x)) / np.float32(0.5)
    down = (np.linspace(0, 1, height, dtype=np.float32) - np.float32(y)) / np.float32(0.62)
    share = smoothstep(np.hypot(across[None, :], down[:, None]), size, size + 0.55) * np.float32(amount)

    def change(picture: Floats, band: Band) -> Floats:
        return mixed(picture, band.stretch(soft), band.stretch(share))

    return Step(change)
