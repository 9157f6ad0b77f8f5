"""Where pixels lie and the few measures that steps share: bands, luma, blurs, guided filter, seeded textures."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# The band pool owns the parallelism: OpenCV's own pool is process-global, and unsafe after a fork.
cv2.setNumThreads(1)
cv2.ocl.setUseOpenCL(False)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

TILE = 512


@dataclass(frozen=True, slots=True)
class Band:
    """Rows top..bottom of a picture, which has `scale` pixels to each cell of its proxy."""

    width: int
    height: int
    top: int
    bottom: int
    scale: int

    @property
    def long_side(self) -> int:
        return max(self.width, self.height)

    def sigma(self, fraction: float) -> float:
        """Turn a fraction of the long side into a blur's sigma in pixels, never too small to act."""
        return max(0.55, fraction * self.long_side)

    def stretch(self, grid: Floats, interpolation: int = cv2.INTER_LINEAR) -> Floats:
        """Bring a map on the proxy's cells (h×w or h×w×3) to this band's pixels.

        The factor is a whole number and one or two cells more are taken above and below, so neighbouring bands
        get the very same values.
        """
        if self.scale == 1:
            return grid[self.top : self.bottom]
        scale = self.scale
        first = max(0, self.top // scale - 2)
        last = min(grid.shape[0], -(-self.bottom // scale) + 2)
        size = (grid.shape[1] * scale, (last - first) * scale)
        large = cv2.resize(grid[first:last], size, interpolation=interpolation)
        start = first * scale
        return as_floats(large[self.top - start : self.bottom - start, : self.width])

    def tile(self, texture: Floats) -> Floats:
        """Repeat a square texture over this band's pixels."""
        side = texture.shape[0]
        rows = np.arange(self.top, self.bottom) % side
        columns = np.arange(self.width) % side
        return as_floats(texture[rows][:, columns])


def as_floats(pixels: NDArray[np.generic]) -> Floats:
    """Give contiguous float32; bytes become 0..1."""
    if pixels.dtype == np.uint8:
        return np.asarray(np.multiply(pixels, np.float32(1 / 255), dtype=np.float32), np.float32)
    return np.ascontiguousarray(pixels, np.float32)


def as_bytes(picture: Floats) -> Bytes:
    """Round 0..1 to 0..255, clipping what lies beyond."""
    return np.asarray(cv2.addWeighted(picture, 255, picture, 0, 0, dtype=cv2.CV_8U), np.uint8)


def luma(picture: Floats) -> Floats:
    """Weigh the channels by ITU-R BT.601 (h×w×3 → h×w)."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)


def grey(plane: Floats) -> Floats:
    """Repeat a plane in three channels (h×w → h×w×3)."""
    return np.asarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB), np.float32)


def scaled(picture: Floats, gain: Floats) -> Floats:
    """Multiply every channel by a plane."""
    return np.asarray(cv2.multiply(picture, grey(gain)), np.float32)


def shifted(picture: Floats, offset: Floats) -> Floats:
    """Add a plane to every channel."""
    return np.asarray(cv2.add(picture, grey(offset)), np.float32)


def mixed(below: Floats, above: Floats, share: Floats) -> Floats:
    """Lay one picture over another: share 0 shows `below`, 1 `above`."""
    return np.asarray(cv2.blendLinear(below, above, np.float32(1) - share, share), np.float32)


def screened(picture: Floats, dimming: Floats) -> Floats:
    """Add light the photographic way, 1 - (1 - picture)(1 - light), given 1 - light (h×w×3)."""
    return np.float32(1) - cv2.multiply(np.float32(1) - picture, dimming)


def filled(like: Floats, colour: str) -> Floats:
    """Make a picture of one colour in the size of another."""
    return np.broadcast_to(as_colour(colour), like.shape).copy()


def as_colour(text: str) -> Floats:
    """Read "#rrggbb" as three values 0..1."""
    return np.array([int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)], np.float32)


def smoothstep(values: Floats, low: float, high: float) -> Floats:
    """Rise from 0 at `low` to 1 at `high` along 3t² - 2t³."""
    share = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def within(picture: Floats, side: int) -> Floats:
    """Shrink a picture so that its long side is at most `side`; smaller pictures stay as they are."""
    height, width = picture.shape[:2]
    if max(height, width) <= side:
        return picture
    factor = side / max(height, width)
    return resized(picture, max(1, round(width * factor)), max(1, round(height * factor)))


def resized(picture: Floats, width: int, height: int) -> Floats:
    """Resize, averaging areas when shrinking and linearly when growing."""
    shrinking = width < picture.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), np.float32)


def skin(picture: Floats) -> Floats:
    """Weigh how much a colour looks like skin, 0..1, in the plane of YCbCr chroma (after Chai and Ngan, 1999).

    Lightness does not count, so dark and light skin weigh the same.
    """
    chroma = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    red, blue = (cv2.extractChannel(chroma, channel) for channel in (1, 2))
    near = np.exp(-(((red - 0.58) / 0.055) ** 2) - ((blue - 0.445) / 0.06) ** 2)
    return blurred(near.astype(np.float32), 0.003)


def blurred(picture: Floats, fraction: float) -> Floats:
    """Blur by a Gaussian of sigma = fraction × long side; wide ones on a smaller copy, where they cost nothing."""
    height, width = picture.shape[:2]
    sigma = fraction * max(height, width)
    step = int(sigma / 3)
    if step < 2:
        return gaussian(picture, max(sigma, 0.3))
    small = resized(picture, max(1, width // step), max(1, height // step))
    return np.asarray(
        cv2.resize(gaussian(small, sigma / step), (width, height), interpolation=cv2.INTER_LINEAR), np.float32
    )


def gaussian(picture: Floats, sigma: float) -> Floats:
    """Blur by a Gaussian of `sigma` pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.float32)


def steepness(plane: Floats) -> Floats:
    """Give the length of the gradient (3x3 Sobel)."""
    across, down = (cv2.Sobel(plane, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(across, down), np.float32)


def guided(guide: Floats, target: Floats, fraction: float, edge: float) -> tuple[Floats, Floats]:
    """Fit target ≈ slope · guide + offset in windows (guided filter: He, Sun and Tang, PAMI 2013).

    Both are h×w in 0..1; `fraction` is the window's radius by the long side; edges whose variance exceeds `edge`
    are kept. Slope and offset are smooth, so they may be stretched and applied to the full picture's own guide.
    """
    size = (2 * max(1, round(fraction * max(guide.shape))) + 1,) * 2

    def mean(plane: Floats) -> Floats:
        return np.asarray(cv2.boxFilter(plane, -1, size, borderType=cv2.BORDER_REFLECT), np.float32)

    mean_guide, mean_target = mean(guide), mean(target)
    variance = mean(guide * guide) - mean_guide * mean_guide
    covariance = mean(guide * target) - mean_guide * mean_target
    slope = np.asarray(covariance / (variance + np.float32(edge)), np.float32)
    return mean(slope), mean(np.asarray(mean_target - slope * mean_guide, np.float32))


def cloud(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, ...]) -> Floats:
    """Sum smooth noise of several sizes (cells along the long side) to unit deviation (value noise, fractal sum)."""
    height, width = shape
    longest = max(height, width)
    total = np.zeros(shape, np.float32)
    for octave, count in enumerate(cells):
        nodes = (max(2, round(count * height / longest)) + 1, max(2, round(count * width / longest)) + 1)
        noise = rng.standard_normal(nodes, np.float32)
        total += np.float32(0.58**octave) * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def noise_tile(rng: np.random.Generator, sigma: float) -> Floats:
    """Make a seamless square of Gaussian noise with unit deviation, blurred by `sigma` pixels."""
    noise = rng.standard_normal((TILE, TILE), np.float32)
    if sigma > 0.4:
        noise = seamless(noise, lambda plane: gaussian(plane, sigma), math.ceil(4 * sigma) + 1)
    return np.asarray(noise / max(float(noise.std()), 1e-6), np.float32)


def seamless(tile: Floats, change: Callable[[Floats], Floats], reach: int) -> Floats:
    """Apply a filter that looks `reach` pixels around to a tile that repeats."""
    reach = min(reach, tile.shape[0])
    return change(np.pad(tile, reach, mode="wrap"))[reach:-reach, reach:-reach]
