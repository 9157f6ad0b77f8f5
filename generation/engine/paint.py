"""Painting and print: flat colour, ink, brush, watercolour, pencil, paper, halftone.

`flatten`, `brush` and `watercolour` paint a layer on the scene's proxy once; the full picture gets it stretched, with
fine detail or lines of its own put back. The others draw on the full picture, band by band.
"""

import functools
import math

import cv2
import numpy as np

from generation.engine.raster import (
    Band,
    Bytes,
    Floats,
    as_bytes,
    as_colour,
    as_floats,
    blurred,
    cloud,
    filled,
    gaussian,
    grey,
    luma,
    mixed,
    noise_tile,
    resized,
    scaled,
    seamless,
    shifted,
    smoothstep,
    steepness,
    within,
)
from generation.engine.scene import Scene, Step

_CANVAS = 896
_LINE = 0.0009
_DETAIL = 0.0006


def flatten(
    scene: Scene, *, passes: int = 3, tolerance: float = 0.1, radius: float = 0.004, detail: float = 0.0
) -> Step:
    """Flatten texture and keep edges by repeated bilateral filters (Winnemöller, Olsen and Gooch, 2006)."""
    layer = np.asarray(cv2.medianBlur(as_bytes(_canvas(scene)), 3), np.uint8)
    sigma = max(1.2, radius * max(layer.shape[:2]))
    for _ in range(passes):
        layer = np.asarray(cv2.bilateralFilter(layer, 7, 255 * tolerance, sigma), np.uint8)
    return _painted(scene, as_floats(layer), detail=detail)


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
    """Paint in oil: patches, then strokes along the picture's own flow, then crisp stroke edges.

    Patches by a Kuwahara filter; strokes by line integral convolution (Cabral and Leedom, 1993) along the smoothed
    structure tensor, and along a seeded field where the picture is plain; edges by a shock filter (Osher and
    Rudin, 1990). `detail` puts back fine luma, so that eyes and lettering stay.
    """
    layer = _canvas(scene)
    longest = max(layer.shape[:2])
    layer = _kuwahara(layer, max(2.0, patch * longest))
    wander = cloud(scene.rng, layer.shape[:2], (3, 6)) * np.float32(0.9)
    calm_x, calm_y = np.cos(wander), np.sin(wander)
    for _ in range(passes):
        flow_x, flow_y = _flow(luma(layer), max(1.5, width * longest), calm_x, calm_y)
        layer = _smeared(layer, flow_x, flow_y, max(2, round(length * longest / 2)))
        if crispness:
            layer = _shocked(layer, max(1.0, 0.45 * width * longest), crispness)
    return _painted(scene, layer, detail=detail)


def watercolour(
    scene: Scene,
    *,
    bleed: float = 0.005,
    wobble: float = 0.002,
    rim: float = 0.9,
    pigment: float = 0.5,
    border: float = 0.4,
    lines: float = 0.5,
) -> Step:
    """Paint washes with wobbling borders, dark rims and uneven pigment, thinner towards the paper's edge.

    Pigment density follows C - (C - C²)(d - 1) (Bousseau, Kaplan, Thollot and Sillion, 2006).
    """
    rng = scene.rng
    washes = np.asarray(cv2.medianBlur(as_bytes(_canvas(scene)), 5), np.uint8)
    rows, columns = washes.shape[:2]
    longest = max(rows, columns)
    for _ in range(2):
        washes = np.asarray(cv2.bilateralFilter(washes, 9, 30, max(2.0, 0.005 * longest)), np.uint8)
    layer = _kuwahara(as_floats(washes), max(2.0, bleed * longest))
    down, across = np.mgrid[0:rows, 0:columns].astype(np.float32)
    sway = np.float32(wobble * longest)
    dx, dy = (sway * cloud(rng, (rows, columns), (24, 60, 140)) for _ in range(2))
    layer = np.asarray(
        cv2.remap(layer, across + dx, down + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32
    )
    layer = np.float32(1) - (np.float32(1) - np.clip(layer, 0.01, 1)) * np.float32(0.93)
    rims = np.clip(gaussian(steepness(luma(layer)), max(0.8, 0.0011 * longest)) * np.float32(2.2), 0, 1)
    uneven = cloud(rng, (rows, columns), (3, 6, 12, 24, 48)) * np.float32(0.3 * pigment)
    layer -= (layer - layer * layer) * grey(uneven + np.float32(rim) * rims)
    inset = np.minimum(np.minimum(down, rows - 1 - down), np.minimum(across, columns - 1 - across))
    inset = inset / np.float32(0.09 * min(rows, columns)) + cloud(rng, (rows, columns), (6, 14, 30, 70)) * np.float32(
        0.22
    )
    painted = np.float32(1 - border) + np.float32(border) * smoothstep(inset, 0.12, 0.62)
    layer = np.float32(1) - scaled(np.float32(1) - layer, painted)
    return _painted(scene, layer, lines=lines)


def posterize(scene: Scene, *, levels: int = 6, sharpness: float = 3.0, amount: float = 1.0) -> Step:
    """Quantise luma into soft steps and keep the colour (Winnemöller, Olsen and Gooch, 2006)."""
    tones = np.linspace(0, 1, 256, dtype=np.float32)
    nearest = (np.minimum(np.floor(tones * levels), levels - 1) + np.float32(0.5)) / np.float32(levels)
    stepped = nearest + np.tanh(2 * sharpness * levels * (tones - nearest)) / np.float32(2 * levels)
    gains = np.float32(1) + np.float32(amount) * ((stepped + 0.024) / (tones + 0.024) - 1)
    table = gains.astype(np.float32)

    def change(picture: Floats, band: Band) -> Floats:
        return scaled(picture, np.asarray(cv2.LUT(as_bytes(luma(picture)), table), np.float32))

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
    """Draw contours: an extended difference of Gaussians (Winnemöller, Kyprianidis and Olsen, 2012).

    Where the picture is texture without a direction (gravel, foliage), lines would be specks and are left out.
    """
    directed = scene.fit(_directed(luma(within(scene.picture, 640)))) * np.float32(amount)

    def change(picture: Floats, band: Band) -> Floats:
        lines = _contours(luma(picture), band.sigma(width), edge, threshold, softness)
        lines *= band.stretch(directed)
        return mixed(picture, filled(picture, colour), lines)

    return Step(change, reach=6.4 * width)


def pencil(
    scene: Scene,
    *,
    shading: float = 0.5,
    darkness: float = 1.0,
    line: float = 0.001,
    graphite: str = "#26262b",
    paper: str = "#f6f3ec",
) -> Step:
    """Draw in graphite: dodged tone, contours, and two layers of seeded hatching where the picture is dark.

    The tone is luma over its own blur ("colour dodge"), which keeps only what is darker than its surroundings.
    """
    tone = luma(within(scene.picture, 640))
    around = scene.fit(np.maximum(blurred(tone, 0.012), np.float32(0.047)))
    darkest, lightest = (float(value) for value in np.quantile(tone, [0.02, 0.98]))
    span = max(0.08, lightest - darkest)
    strokes = [_strokes(scene.rng, degrees) for degrees in (50, -35)]
    layers = ((0.78, 0.55), (0.42, 0.36))

    @functools.cache
    def textures(side: int) -> list[Floats]:
        return [resized(plane, side, side) for plane in strokes]

    def change(picture: Floats, band: Band) -> Floats:
        tiles = textures(max(128, round(0.37 * band.long_side)))
        tone = luma(picture)
        drawn = np.clip(tone / band.stretch(around), 0, 1)
        drawn = np.asarray(cv2.pow(drawn, 1.9 * darkness), np.float32)
        drawn *= np.float32(1) - np.float32(0.65) * _contours(tone, band.sigma(line), 14.0, 0.34, 4.6)
        depth = np.clip((tone - np.float32(darkest)) * np.float32(1 / span), 0, 1)
        for (begins, fully), tile in zip(layers, tiles, strict=True):
            hatched = np.clip((np.float32(begins) - depth) * np.float32(1 / fully), 0, 1)
            hatched *= np.clip(np.float32(0.55) + np.float32(0.38) * band.tile(tile), 0, 1)
            drawn *= np.float32(1) - np.float32(shading) * hatched
        return mixed(filled(picture, graphite), filled(picture, paper), drawn)

    return Step(change, reach=6.4 * line)


def relief(scene: Scene, *, amount: float = 0.4, size: float = 0.0012) -> Step:
    """Light the paint from the upper left: the slope of the smoothed luma, embossed."""

    def change(picture: Floats, band: Band) -> Floats:
        sigma = band.sigma(size)
        smoothed = gaussian(luma(picture), sigma)
        slope = cv2.Sobel(smoothed, cv2.CV_32F, 1, 0, scale=0.25) + cv2.Sobel(smoothed, cv2.CV_32F, 0, 1, scale=0.25)
        slope *= np.float32(-amount * sigma)
        return shifted(picture, np.clip(slope, np.float32(-0.1), np.float32(0.1)))

    return Step(change, reach=4 * size + 0.001)


def paper(scene: Scene, *, amount: float = 0.04, size: float = 0.0012, colour: str = "#ffffff") -> Step:
    """Multiply by the tooth of seeded paper or canvas, lit from one side, and by the paper's colour."""
    seed = int(scene.rng.integers(2**31))
    tint = as_colour(colour)

    @functools.cache
    def texture(long_side: int) -> Floats:
        rng = np.random.default_rng(seed)
        sigma = max(0.6, size * long_side)
        bumps = noise_tile(rng, sigma) + np.float32(0.6) * noise_tile(rng, 3 * sigma)
        lit = seamless(bumps, lambda plane: cv2.Sobel(plane, cv2.CV_32F, 1, 0) + cv2.Sobel(plane, cv2.CV_32F, 0, 1), 2)
        lit = np.clip(lit / max(float(lit.std()), 1e-6), -2.5, 2.5)
        return np.asarray(np.float32(1) + lit * np.float32(amount), np.float32)

    def change(picture: Floats, band: Band) -> Floats:
        picture = scaled(picture, band.tile(texture(band.long_side)))
        picture *= tint
        return picture

    return Step(change)


def halftone(
    scene: Scene, *, cell: float = 0.008, angle: float = 28.0, amount: float = 0.6, coverage: float = 0.0
) -> Step:
    """Print with dots of the picture's own darker colour: the darker the tone, the larger the dot.

    The screen is (cos u + cos v)/4 + 1/2 along two turned axes; `coverage` makes all dots larger.
    """
    phases = scene.rng.uniform(0, 2 * math.pi, 2)
    along, across = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def wave(band: Band, x: float, y: float, phase: float) -> Floats:
        # cos(a + b) from one row and one column of cosines: no trigonometry per pixel.
        row = np.arange(band.width) * x
        column = np.arange(band.top, band.bottom) * y + phase
        plane = np.outer(np.cos(column), np.cos(row)) - np.outer(np.sin(column), np.sin(row))
        return plane.astype(np.float32)

    def change(picture: Floats, band: Band) -> Floats:
        turn = 2 * math.pi / max(4.0, cell * band.long_side)
        screen = wave(band, turn * along, -turn * across, phases[0]) + wave(
            band, turn * across, turn * along, phases[1]
        )
        dots = np.float32(0.25) * screen + np.float32(0.5 + coverage) - luma(picture)
        dots = np.clip(np.float32(6.6) * dots + np.float32(0.5), 0, 1)
        return scaled(picture, np.float32(1) - np.float32(0.58 * amount) * dots)

    return Step(change)


def _canvas(scene: Scene) -> Floats:
    """The proxy, enlarged when small: strokes need to be finer than a small picture's own pixels."""
    picture = scene.picture
    height, width = picture.shape[:2]
    if not 64 <= max(height, width) < _CANVAS:
        return picture
    factor = min(2.0, _CANVAS / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(np.clip(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), 0, 1), np.float32)


def _painted(scene: Scene, layer: Floats, *, detail: float = 0.0, lines: float = 0.0) -> Step:
    layer = scene.fit(layer)
    around = blurred(luma(scene.picture), 0.004)

    def change(picture: Floats, band: Band) -> Floats:
        out = band.stretch(layer, cv2.INTER_CUBIC)
        if not detail and not lines:
            return out
        tone = luma(picture)
        if detail:
            fine = gaussian(tone, band.sigma(_DETAIL)) - band.stretch(around)
            size = np.abs(fine)
            out = shifted(out, fine * (np.float32(detail) * size / (size + np.float32(0.03))))
        if lines:
            drawn = np.float32(lines) * _contours(tone, band.sigma(_LINE), 16.0, 0.16, 5.0)
            out = mixed(out, filled(out, "#2a2420"), drawn)
        return out

    return Step(change, reach=max(4 * _DETAIL, 6.4 * _LINE if lines else 0.0), covers=not detail and not lines)


def _contours(tone: Floats, sigma: float, edge: float, threshold: float, softness: float) -> Floats:
    """Ink of the extended difference of Gaussians: 0 paper, 1 line."""
    sharp = cv2.addWeighted(gaussian(tone, sigma), 1 + edge, gaussian(tone, 1.6 * sigma), -edge, -threshold)
    return -np.tanh(np.float32(softness) * np.minimum(sharp, np.float32(0)))


def _kuwahara(picture: Floats, radius: float) -> Floats:
    """Generalised Kuwahara filter: eight shifted Gaussian windows, weighed by variance⁻⁴ (Papari et al., 2007)."""
    mean = gaussian(picture, 0.45 * radius)
    tone, mean_tone = luma(picture), luma(mean)
    variance = np.maximum(gaussian(tone * tone, 0.45 * radius) - mean_tone * mean_tone, 0) + np.float32(3e-5)
    weight = np.float32(1e-9) / (variance * variance)
    weight *= weight
    reach = math.ceil(0.75 * radius)
    windows = np.dstack([scaled(mean, weight), weight])
    windows = np.asarray(cv2.copyMakeBorder(windows, *(reach,) * 4, cv2.BORDER_REPLICATE), np.float32)
    height, width = tone.shape
    total = np.zeros((height, width, 4), np.float32)
    for sector in range(8):
        y = reach + round(0.75 * radius * math.sin(sector * math.pi / 4))
        x = reach + round(0.75 * radius * math.cos(sector * math.pi / 4))
        total += windows[y : y + height, x : x + width]
    return np.ascontiguousarray(total[..., :3] / np.maximum(total[..., 3:], np.float32(1e-30)))


def _tensor(tone: Floats, sigma: float) -> tuple[Floats, Floats, Floats]:
    """Give the smoothed structure tensor: which way, and how surely, luma changes around each pixel."""
    gx, gy = (np.asarray(cv2.Sobel(tone, cv2.CV_32F, *order, scale=32), np.float32) for order in ((1, 0), (0, 1)))
    return gaussian(gx * gx, sigma), gaussian(gx * gy, sigma), gaussian(gy * gy, sigma)


def _directed(tone: Floats) -> Floats:
    """Give 1 where edges run one way, 0 where they run all ways (the tensor's coherence)."""
    xx, xy, yy = _tensor(tone, max(1.0, 0.0035 * max(tone.shape)))
    coherence = cv2.magnitude(xx - yy, 2 * xy) / (xx + yy + np.float32(1e-3))
    return smoothstep(np.asarray(coherence, np.float32), 0.3, 0.65)


def _flow(tone: Floats, sigma: float, calm_x: Floats, calm_y: Floats) -> tuple[Floats, Floats]:
    """Steps of two pixels along edges (smoothed structure tensor), along the calm field where there are none."""
    xx, xy, yy = _tensor(tone, sigma)
    normal = np.float32(0.5) * cv2.phase(xx - yy, 2 * xy)
    along_x, along_y = -np.sin(normal), np.cos(normal)
    energy = xx + yy
    certain = energy / (energy + np.float32(14))
    turned = np.where(along_x * calm_x + along_y * calm_y < 0, -certain, certain)
    x = along_x * turned + (1 - certain) * calm_x
    y = along_y * turned + (1 - certain) * calm_y
    step = np.float32(2) / np.maximum(cv2.magnitude(x, y), np.float32(1e-3))
    return x * step, y * step


def _smeared(picture: Floats, flow_x: Floats, flow_y: Floats, steps: int) -> Floats:
    """Average along the flow, both ways."""
    source: Bytes = as_bytes(picture)
    total = source.astype(np.float32)
    for add in (cv2.add, cv2.subtract):
        y, x = np.mgrid[0 : source.shape[0], 0 : source.shape[1]].astype(np.float32)
        for _ in range(steps):
            x, y = add(x, flow_x), add(y, flow_y)
            cv2.accumulate(cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), total)
    return total * np.float32(1 / (255 * (2 * steps + 1)))


def _shocked(picture: Floats, sigma: float, amount: float) -> Floats:
    """Dilate where luma bends down and erode where it bends up, so that edges become crisp."""
    bend = np.tanh(cv2.Laplacian(gaussian(luma(picture), sigma), cv2.CV_32F, ksize=3) * np.float32(200 * amount))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    swelled = mixed(
        picture,
        np.asarray(cv2.dilate(picture, kernel), np.float32),
        np.clip(-bend, 0, 1) * np.float32(amount),
    )
    return mixed(swelled, np.asarray(cv2.erode(picture, kernel), np.float32), np.clip(bend, 0, 1) * np.float32(amount))


def _strokes(rng: np.random.Generator, degrees: float) -> Floats:
    """A seamless tile of noise smeared in one direction, of unit deviation."""
    line = np.zeros((41, 41), np.float32)
    dx, dy = 20 * math.cos(math.radians(degrees)), 20 * math.sin(math.radians(degrees))
    cv2.line(line, (round(20 - dx), round(20 - dy)), (round(20 + dx), round(20 + dy)), 1.0, 1, cv2.LINE_AA)
    noise = rng.standard_normal((512, 512), np.float32)
    drawn = seamless(noise, lambda plane: np.asarray(cv2.filter2D(plane, -1, line), np.float32), 21)
    return np.asarray(drawn / drawn.std(), np.float32)
