"""Drawing and printing: flat colour, ink, halftone, paper, brush, watercolour, pencil.

Painted layers (flatten, brush, watercolour, pencil) are made once on the proxy and stretched over the picture; the
others change the full picture band by band.
"""

import math

import cv2
import numpy as np

from generation.engine.raster import (
    Band,
    Floats,
    as_colour,
    blurred,
    cloud,
    filled,
    gaussian,
    grey,
    luma,
    mixed,
    noise_tile,
    scaled,
    shifted,
    smoothstep,
)
from generation.engine.scene import Scene, Step


def posterize(scene: Scene, *, levels: int = 6, sharpness: float = 3.0, amount: float = 1.0) -> Step:
    """Quantise luma softly into levels (Winnemöller, Olsen and Gooch, 2006); a gain keeps the colour."""

    def change(picture: Floats, band: Band) -> Floats:
        tone = np.clip(luma(picture), 0, 1)
        nearest = (np.floor(tone * levels) + np.float32(0.5)) / np.float32(levels)
        steps = nearest + np.tanh(np.float32(sharpness * levels) * (tone - nearest)) / np.float32(2 * levels)
        gain = (steps + np.float32(0.025)) / (tone + np.float32(0.025))
        return scaled(picture, 1 + np.float32(amount) * (gain - 1))

    return Step(change)


def ink(
    scene: Scene,
    *,
    amount: float = 0.9,
    width: float = 0.0012,
    edge: float = 20.0,
    threshold: float = 0.2,
    softness: float = 6.0,
    colour: str = "#101018",
) -> Step:
    """Draw the picture's lines in ink (extended difference of Gaussians: Winnemöller, Kyprianidis and Olsen, 2012)."""

    def change(picture: Floats, band: Band) -> Floats:
        return mixed(
            picture,
            filled(picture, colour),
            np.float32(amount) * _lines(picture, band, width, edge, threshold, softness),
        )

    return Step(change, reach=6.4 * width)


def relief(scene: Scene, *, amount: float = 0.4, size: float = 0.0012) -> Step:
    """Light the weave of a canvas from the upper left."""
    seed = int(scene.rng.integers(2**31))
    textures: dict[int, Floats] = {}

    def change(picture: Floats, band: Band) -> Floats:
        texture = textures.get(band.long_side)
        if texture is None:
            tile = noise_tile(np.random.default_rng(seed), band.sigma(size))
            texture = textures[band.long_side] = (tile - np.roll(tile, (1, 1), (0, 1))) * np.float32(0.09 * amount)
        return scaled(picture, 1 + band.tile(texture))

    return Step(change)


def paper(scene: Scene, *, amount: float = 0.04, size: float = 0.0012, colour: str = "#ffffff") -> Step:
    """Lay the picture on grained, tinted paper."""
    seed = int(scene.rng.integers(2**31))
    textures: dict[int, Floats] = {}
    tint = as_colour(colour)

    def change(picture: Floats, band: Band) -> Floats:
        texture = textures.get(band.long_side)
        if texture is None:
            texture = noise_tile(np.random.default_rng(seed), band.sigma(size)) * np.float32(amount)
            textures[band.long_side] = texture
        return shifted(picture * tint, band.tile(texture))

    return Step(change)


def halftone(
    scene: Scene, *, cell: float = 0.008, angle: float = 28.0, amount: float = 0.6, coverage: float = 0.0
) -> Step:
    """Print with a rotated grid of dots, larger where it is dark (a cosine spot function)."""
    turn = math.radians(angle)

    def change(picture: Floats, band: Band) -> Floats:
        rows = np.arange(band.top, band.bottom, dtype=np.float32)[:, None]
        columns = np.arange(band.width, dtype=np.float32)[None, :]
        wave = np.float32(2 * math.pi / max(3.0, cell * band.long_side))
        across = wave * (columns * np.float32(math.cos(turn)) + rows * np.float32(math.sin(turn)))
        down = wave * (rows * np.float32(math.cos(turn)) - columns * np.float32(math.sin(turn)))
        spot = (np.cos(across) + np.cos(down)) * np.float32(0.25) + np.float32(0.5)
        dots = smoothstep(spot - luma(picture) + np.float32(coverage), 0.0, 0.18)
        return scaled(picture, 1 - np.float32(amount) * dots)

    return Step(change)


def flatten(
    scene: Scene, *, passes: int = 3, tolerance: float = 0.1, radius: float = 0.004, detail: float = 0.0
) -> Step:
    """Melt texture into areas of one colour with repeated bilateral filters (Tomasi and Manduchi, 1998)."""
    return _layer(scene, _flat(scene.picture, passes, tolerance, radius), detail)


def brush(
    scene: Scene,
    *,
    patch: float = 0.003,
    length: float = 0.009,
    width: float = 0.0026,
    passes: int = 2,
    crispness: float = 0.8,
    detail: float = 0.5,
) -> Step:
    """Paint strokes along the picture's own flow: Kuwahara patches smeared by line integral convolution.

    After Kyprianidis and Kang, "Image and video abstraction by coherence-enhancing filtering", 2011.
    """
    picture = _kuwahara(scene.picture, max(1, round(patch * max(scene.shape))))
    for _ in range(passes):
        flow = _flow(luma(picture), max(1.0, width * max(scene.shape)))
        picture = _smeared(picture, flow, max(2, round(length * max(scene.shape) / 2)))
        picture = picture + np.float32(crispness) * (picture - gaussian(picture, max(0.8, width * max(scene.shape))))
    return _layer(scene, np.clip(picture, 0, 1), detail)


def watercolour(
    scene: Scene,
    *,
    bleed: float = 0.005,
    wobble: float = 0.002,
    rim: float = 0.9,
    pigment: float = 0.5,
    border: float = 0.4,
) -> Step:
    """Paint in washes: flat areas with uneven borders, dark rims, drifting pigment and bare paper at the margin.

    After Bousseau, Kaplan, Thollot and Sillion, "Interactive watercolor rendering", 2006.
    """
    height, width = shape = scene.shape
    longest = max(shape)
    rng = scene.rng
    washes = _flat(scene.picture, 3, 0.14, bleed)
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    shift = np.float32(wobble * longest)
    drift = [cloud(rng, shape, (24, 60)) * shift for _ in range(2)]
    washes = np.asarray(
        cv2.remap(washes, across + drift[0], down + drift[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
        np.float32,
    )
    tone = luma(washes)
    rims = np.clip(blurred(tone, 0.0035) - tone, 0, 0.25) * np.float32(rim)
    density = 1 + np.float32(0.16 * pigment) * cloud(rng, shape, (6, 14, 40)) + rims * 2
    # Pigment darkens as a filter does: c' = c - (c - c²)(density - 1).
    painted = washes - (washes - washes * washes) * grey((density - 1).astype(np.float32))
    if border:
        margin = np.minimum(np.minimum(across, width - 1 - across), np.minimum(down, height - 1 - down)) / longest
        bare = 1 - smoothstep(margin + np.float32(0.012) * cloud(rng, shape, (8, 30)), 0.0, 0.045)
        painted = mixed(painted, np.ones_like(painted), bare * np.float32(border))
    return _layer(scene, np.clip(painted, 0, 1), 0.25)


def pencil(
    scene: Scene,
    *,
    shading: float = 0.5,
    darkness: float = 1.0,
    line: float = 0.001,
    graphite: str = "#26262b",
    paper: str = "#f6f3ec",
) -> Step:
    """Draw with graphite: a divided blur for the lines (colour dodge), hatching in two directions for the shade."""
    shades = _hatching(scene.rng)
    ends = as_colour(graphite), as_colour(paper)

    def change(picture: Floats, band: Band) -> Floats:
        tone = np.clip(luma(picture), 0, 1)
        lines = np.clip(tone / (gaussian(tone, band.sigma(4 * line)) + np.float32(0.02)), 0, 1)
        lines = cv2.pow(lines, 3 * darkness)
        light, dark = (band.tile(shade) for shade in shades)
        hatched = smoothstep(tone + light * np.float32(0.4), 0.1, 0.75) * smoothstep(
            tone + dark * np.float32(0.3), -0.1, 0.4
        )
        drawn = lines * (1 - np.float32(shading) * (1 - hatched))
        return np.asarray(ends[0] + (ends[1] - ends[0]) * drawn[..., None], np.float32)

    return Step(change, reach=16 * line)


def _lines(picture: Floats, band: Band, width: float, edge: float, threshold: float, softness: float) -> Floats:
    """Return how much ink lies on each pixel, 0..1."""
    tone = luma(picture)
    sigma = band.sigma(width)
    near, far = gaussian(tone, sigma), gaussian(tone, 1.6 * sigma)
    sharp = np.float32(1 + edge) * near - np.float32(edge) * far - np.float32(threshold)
    return np.asarray(np.tanh(np.clip(-sharp, 0, None) * np.float32(softness)), np.float32)


def _layer(scene: Scene, layer: Floats, detail: float) -> Step:
    """Cover the picture with a painted layer; `detail` puts that much of the fine luma below back (eyes, lettering)."""

    def change(picture: Floats, band: Band) -> Floats:
        painted = band.stretch(layer, cv2.INTER_CUBIC)
        if not detail:
            return painted
        tone = luma(picture)
        fine = tone - gaussian(tone, band.sigma(0.002))
        size = np.abs(fine)
        return shifted(painted, fine * (size / (size + np.float32(0.03))) * np.float32(detail))

    return Step(change, reach=0.008 if detail else 0.0, covers=not detail)


def _flat(picture: Floats, passes: int, tolerance: float, radius: float) -> Floats:
    sigma = max(1.0, radius * max(picture.shape[:2]))
    diameter = min(11, 2 * math.ceil(1.5 * sigma) + 1)
    for _ in range(passes):
        picture = np.asarray(cv2.bilateralFilter(picture, diameter, tolerance, sigma), np.float32)
    return picture


def _kuwahara(picture: Floats, radius: int) -> Floats:
    """Take each pixel from the calmest of the four quadrants round it (Kuwahara et al., 1976)."""
    size = 2 * radius + 1
    mean = cv2.blur(picture, (size, size), borderType=cv2.BORDER_REFLECT)
    spread = luma(
        np.asarray(cv2.blur(picture * picture, (size, size), borderType=cv2.BORDER_REFLECT) - mean * mean, np.float32)
    )
    best, calmest = mean, np.full(spread.shape, np.inf, np.float32)
    for down, across in ((-radius, -radius), (-radius, radius), (radius, -radius), (radius, radius)):
        move = np.array([[1, 0, across], [0, 1, down]], np.float32)
        quadrant, unrest = (
            cv2.warpAffine(plane, move, plane.shape[1::-1], borderMode=cv2.BORDER_REPLICATE) for plane in (mean, spread)
        )
        calmer = unrest < calmest
        calmest = np.where(calmer, unrest, calmest)
        best = np.where(calmer[..., None], quadrant, best)
    return np.asarray(best, np.float32)


def _flow(tone: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Return unit vectors along the picture's lines: the minor axis of the smoothed structure tensor."""
    dx, dy = cv2.Sobel(tone, cv2.CV_32F, 1, 0), cv2.Sobel(tone, cv2.CV_32F, 0, 1)
    xx, yy, xy = (gaussian(np.asarray(product, np.float32), 2 * sigma) for product in (dx * dx, dy * dy, dx * dy))
    angle = np.float32(0.5) * np.arctan2(2 * xy, xx - yy) + np.float32(math.pi / 2)
    return np.cos(angle), np.sin(angle)


def _smeared(picture: Floats, flow: tuple[Floats, Floats], steps: int) -> Floats:
    """Average along the flow, `steps` pixels to each side (Cabral and Leedom, 1993)."""
    height, width = picture.shape[:2]
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    total = picture.copy()
    for sign in (np.float32(1), np.float32(-1)):
        x, y = across.copy(), down.copy()
        along_x, along_y = flow[0] * sign, flow[1] * sign
        for _ in range(steps):
            step_x = cv2.remap(along_x, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            step_y = cv2.remap(along_y, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            # A line has no direction: keep going the way the stroke came from.
            turned = np.where(step_x * along_x + step_y * along_y < 0, np.float32(-1), np.float32(1))
            x += step_x * turned
            y += step_y * turned
            total += cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(total / np.float32(2 * steps + 1), np.float32)


def _hatching(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Make two seamless textures of strokes, leaning right and left, in -1..1."""
    textures = []
    for slope in (1, -1):
        noise = noise_tile(rng, 0.5)
        # Rolling along a diagonal keeps the tile seamless, and averaging the rolls draws strokes.
        strokes = sum(np.roll(noise, (shift, slope * shift), (0, 1)) for shift in range(12))
        textures.append(np.clip(np.asarray(strokes, np.float32) / np.float32(2.5 * math.sqrt(12)), -1, 1))
    return textures[0], textures[1]
