"""Point-wise colour ops: each maps colours to colours, so a run of them fuses into one table.

Every op takes and returns colours in 0..1 as an array of three dimensions, the last being red, green, blue.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from generation.engine.raster import Floats, as_colour, luma, smoothstep

# OKLab, from linear sRGB: Björn Ottosson, "A perceptual color space for image processing", 2020.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_FROM_CONES = np.linalg.inv(_TO_CONES)
_FROM_LAB = np.linalg.inv(_TO_LAB)


def exposure(rgb: Floats, *, stops: float = 0.0) -> Floats:
    """Expose by so many stops in linear light, with a soft shoulder above 0.8 instead of a clip."""
    bright = _encoded(_linear(rgb) * np.float32(2.0**stops))
    if stops <= 0:
        return bright
    # The shoulder is normalised, so that white stays white.
    white = np.float32(1.055 * 2.0 ** (stops / 2.4) - 0.055)
    return np.asarray(_shoulder(bright) / _shoulder(np.full(1, white, np.float32)), np.float32)


def gamma(rgb: Floats, *, value: float = 1.0) -> Floats:
    """Raise to 1/value: above 1 brightens the mid tones, below 1 darkens them."""
    return _power(rgb, 1 / value)


def contrast(rgb: Floats, *, amount: float = 0.2, pivot: float = 0.5) -> Floats:
    """Steepen tones round the pivot along a logistic curve through black and white; below 0 flattens."""
    slope = np.float32(1 + 6 * abs(amount))
    if amount == 0:
        return rgb
    low, high = (1 / (1 + np.exp(-slope * (end - np.float32(pivot)))) for end in (np.float32(0), np.float32(1)))
    if amount > 0:
        return np.asarray((1 / (1 + np.exp(-slope * (rgb - np.float32(pivot)))) - low) / (high - low), np.float32)
    return np.asarray(np.float32(pivot) - np.log(1 / (rgb * (high - low) + low) - 1) / slope, np.float32)


def curve(rgb: Floats, *, points: Sequence[Sequence[float]] = ((0.0, 0.0), (1.0, 1.0)), channel: str = "rgb") -> Floats:
    """Bend all channels or one by a monotone cubic through the points (Fritsch and Carlson, 1980)."""
    x, y = np.array(points, np.float64).T
    rises = np.diff(y) / np.diff(x)
    inner = rises[:-1] * rises[1:]
    slopes = np.concatenate(
        [rises[:1], np.where(inner > 0, 2 * inner / (rises[:-1] + rises[1:] + 1e-12), 0), rises[-1:]]
    )
    dense = np.linspace(0, 1, 1025)
    inside = np.clip(dense, x[0], x[-1])
    left = np.clip(np.searchsorted(x, inside, side="right") - 1, 0, len(x) - 2)
    width = x[left + 1] - x[left]
    t = (inside - x[left]) / width
    bent = (
        (1 + 2 * t) * (1 - t) ** 2 * y[left]
        + t * (1 - t) ** 2 * width * slopes[left]
        + t * t * (3 - 2 * t) * y[left + 1]
        + t * t * (t - 1) * width * slopes[left + 1]
    )
    if channel == "rgb":
        return np.asarray(np.interp(rgb, dense, bent), np.float32)
    out = rgb.copy()
    index = "rgb".index(channel)
    out[..., index] = np.interp(rgb[..., index], dense, bent)
    return out


def temperature(rgb: Floats, *, warm: float = 0.0, tint: float = 0.0) -> Floats:
    """Scale linear light towards amber (warm > 0) or blue and magenta (tint > 0) or green; luma is kept."""
    gains = np.array([1 + 0.34 * warm + 0.08 * tint, 1 + 0.03 * warm - 0.15 * tint, 1 - 0.40 * warm + 0.08 * tint])
    out = _encoded(_linear(rgb) * gains.astype(np.float32))
    return out * _thick((luma(rgb) + np.float32(0.01)) / (luma(out) + np.float32(0.01)))


def saturation(rgb: Floats, *, amount: float = 0.0, skin: float = 1.0) -> Floats:
    """Scale OKLab chroma by 1 + amount; `skin` is how much of a gain skin colours receive."""
    lab = _to_oklab(rgb)
    gain = np.full(lab.shape[:2], amount, np.float32)
    if amount > 0:
        gain *= 1 - np.float32(1 - skin) * _skin(lab)
    lab[..., 1:] *= _thick(1 + gain)
    return _from_oklab(lab)


def vibrance(rgb: Floats, *, amount: float = 0.0, skin: float = 0.35) -> Floats:
    """Scale OKLab chroma, weak colours most; near-blacks and (by `skin`) skin colours are spared."""
    lab = _to_oklab(rgb)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    gain = np.float32(amount) * (1 - smoothstep(chroma, 0.06, 0.24)) * smoothstep(lab[..., 0], 0.12, 0.42)
    lab[..., 1:] *= _thick(1 + gain * (1 - np.float32(1 - skin) * _skin(lab)))
    return _from_oklab(lab)


def hue_pull(
    rgb: Floats,
    *,
    targets: Sequence[Sequence[float]] = ((55.0, 0.5), (215.0, 0.5)),
    amount: float = 0.4,
    chroma: float = 0.0,
) -> Floats:
    """Turn OKLab hues towards the nearest target [degrees, weight] and scale their chroma: few hues, in harmony."""
    lab = _to_oklab(rgb)
    hue, strength = _hue(lab), np.hypot(lab[..., 1], lab[..., 2])
    centres = np.array([target[0] for target in targets], np.float32)
    weights = np.array([target[1] for target in targets], np.float32)
    distances = (centres - hue[..., None] + 180) % 360 - 180
    order = np.abs(distances).argsort(-1)
    distance = np.take_along_axis(distances, order, -1)[..., 0]
    weight = weights[order[..., 0]]
    # Half-way between two targets nothing turns: neighbouring hues must not be torn apart.
    gap = np.abs(np.take_along_axis(distances, order[..., 1:2], -1)[..., 0]) if len(targets) > 1 else np.float32(180)
    undecided = 2 * np.abs(distance) / (np.abs(distance) + gap + np.float32(1e-3))
    turn = distance * np.float32(2 * amount) * weight * (1 - undecided**3)
    return _from_oklab(_polar(lab[..., 0], hue + turn, strength * (1 + np.float32(chroma) * weight)))


def hue_shift(rgb: Floats, *, bands: Sequence[Sequence[float]] = ((140.0, 35.0, 0.0, 0.0, 0.0),)) -> Floats:
    """Change bands of OKLab hue: [centre, width, turn (degrees), chroma gain, lightness gain]; greys stay."""
    lab = _to_oklab(rgb)
    for centre, width, turn, chroma, light in bands:
        hue, strength = _hue(lab), np.hypot(lab[..., 1], lab[..., 2])
        distance = (hue - np.float32(centre) + 180) % 360 - 180
        weight = np.exp(-((distance / np.float32(width)) ** 2)) * smoothstep(strength, 0.01, 0.05)
        lab = _polar(
            lab[..., 0] * (1 + np.float32(light) * weight),
            hue + np.float32(turn) * weight,
            strength * (1 + np.float32(chroma) * weight),
        )
    return _from_oklab(lab)


def split_tone(
    rgb: Floats,
    *,
    shadows: str = "#004060",
    mids: str = "#808080",
    highlights: str = "#ffcc88",
    amount: float = 0.3,
    balance: float = 0.0,
) -> Floats:
    """Add one tint to the shadows, one to the mid tones and one to the highlights, each without its own luma."""
    tone = luma(rgb)
    # Pure black and white take little tint, so that they stay clean.
    room = np.float32(amount) * (
        np.float32(0.35) + np.float32(0.65) * np.minimum(1, 4 * tone * (1 - tone) + np.float32(0.25))
    )
    weights = (
        (shadows, 1 - smoothstep(tone, 0.05, 0.62 + balance)),
        (mids, np.exp(-(((tone - np.float32(0.5)) / np.float32(0.22)) ** 2))),
        (highlights, smoothstep(tone, 0.38 + balance, 0.95)),
    )
    out = rgb
    for text, weight in weights:
        tint = as_colour(text)
        out = out + _thick(room * weight) * (tint - luma(tint.reshape(1, 1, 3)).item())
    return out


def bw(rgb: Floats, *, red: float = 0.3, green: float = 0.59, blue: float = 0.11) -> Floats:
    """Make monochrome by weights of the channels, like a coloured filter before black-and-white film."""
    total = red + green + blue
    mix = np.array([[red, green, blue]]) / (total if abs(total) > 0.05 else 1.0)
    return np.asarray(cv2.transform(rgb, np.repeat(mix, 3, 0)), np.float32)


def gradient_map(
    rgb: Floats,
    *,
    stops: Sequence[Sequence[object]] = ((0.0, "#000000"), (1.0, "#ffffff")),
    amount: float = 1.0,
) -> Floats:
    """Colour by luma along the stops [position, colour]."""
    positions = [float(str(position)) for position, _ in stops]
    colours = np.stack([as_colour(str(text)) for _, text in stops])
    tone = luma(rgb)
    mapped = np.stack([np.interp(tone, positions, colours[:, channel]) for channel in range(3)], -1)
    return rgb + np.float32(amount) * (mapped.astype(np.float32) - rgb)


def fade(rgb: Floats, *, amount: float = 0.1, colour: str = "#202428") -> Floats:
    """Lift the blacks to a colour, like a matte print: + amount · (1 - x)² · colour."""
    lift = as_colour(colour) * np.float32(1.6) + np.float32(0.12)
    return rgb + np.float32(amount) * (1 - rgb) ** 2 * lift


def bleach(rgb: Floats, *, amount: float = 0.5) -> Floats:
    """Keep the silver in the print (bleach bypass): luma overlaid on the colour."""
    tone = _thick(luma(rgb))
    overlaid = np.where(tone < 0.5, 2 * rgb * tone, 1 - 2 * (1 - rgb) * (1 - tone))
    return rgb + np.float32(amount) * (overlaid - rgb)


def _linear(rgb: Floats) -> Floats:
    """Decode sRGB (IEC 61966-2-1)."""
    return np.where(rgb <= 0.04045, rgb / np.float32(12.92), _power((rgb + np.float32(0.055)) / np.float32(1.055), 2.4))


def _encoded(light: Floats) -> Floats:
    """Encode linear light as sRGB (IEC 61966-2-1)."""
    light = np.asarray(np.maximum(light, 0), np.float32)
    return np.where(
        light <= 0.0031308,
        light * np.float32(12.92),
        np.float32(1.055) * _power(light, 1 / 2.4) - np.float32(0.055),
    )


def _to_oklab(rgb: Floats) -> Floats:
    cones = _power(np.asarray(cv2.transform(_linear(np.clip(rgb, 0, 1)), _TO_CONES), np.float32), 1 / 3)
    return np.asarray(cv2.transform(cones, _TO_LAB), np.float32)


def _from_oklab(lab: Floats) -> Floats:
    """Decode; colours beyond sRGB are drawn softly towards their own grey, so that no channel clips."""
    cones = cv2.transform(lab, _FROM_LAB)
    light = np.asarray(cv2.transform(cones * cones * cones, _FROM_CONES), np.float32)
    # Negative light is cut before luma is taken: it would turn the grey of a vivid red into black.
    rgb = _encoded(light)
    tone = _thick(np.clip(luma(rgb), 1e-4, 1 - 1e-4))
    away = rgb - tone
    used = np.where(away > 0, away / (1 - tone), -away / tone).max(-1, keepdims=True)
    kept = np.where(used > 0.9, 0.9 + 0.1 * (1 - np.exp(-(used - 0.9) / 0.1)), used)
    return np.asarray(tone + away * (kept / np.maximum(used, 1e-6)), np.float32)


def _polar(lightness: Floats, hue: Floats, chroma: Floats) -> Floats:
    angle = np.radians(hue)
    return np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], -1).astype(np.float32)


def _hue(lab: Floats) -> Floats:
    return np.asarray(cv2.phase(lab[..., 1].copy(), lab[..., 2].copy(), angleInDegrees=True), np.float32)


def _skin(lab: Floats) -> Floats:
    """Weigh skin: OKLab hues round 52 degrees of moderate chroma, whatever the lightness."""
    distance = _hue(lab) - 52
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    near = np.exp(-((distance / 24) ** 2))
    return np.asarray(near * smoothstep(chroma, 0.015, 0.04) * (1 - smoothstep(chroma, 0.13, 0.19)), np.float32)


def _thick(plane: Floats) -> Floats:
    return plane[..., None]


def _power(values: Floats, exponent: float) -> Floats:
    return np.asarray(cv2.pow(np.maximum(values, np.float32(0)), exponent), np.float32)


def _shoulder(values: Floats) -> Floats:
    bent = 0.8 + 0.2 * (1 - np.exp(-(values - np.float32(0.8)) / np.float32(0.2)))
    return np.asarray(np.where(values > 0.8, bent, values), np.float32)
