"""What the looks do to real photos, in figures: haze lifted, noise left alone, faces kept, nothing clipped."""

import io
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from skimage.exposure import equalize_adapthist
from skimage.metrics import structural_similarity

from generation.engine import recipes
from generation.engine.render import render

ROOT = Path(__file__).parents[3]
PHOTOS = ROOT / "generation" / "tests" / "photos"
CATALOGUE = {entry["slug"]: entry for entry in json.loads((ROOT / "generation" / "presets.json").read_text())}
OUTDOORS = ["landscape", "city-night", "animal", "food", "forest", "group", "street", "architecture"]
# Where faces are, as shares of the width and the height: left, top, right, bottom.
FACES = {
    "high-key-portrait": (0.50, 0.16, 0.70, 0.38),
    "group": (0.80, 0.22, 0.86, 0.36),
    "astronaut": (0.37, 0.12, 0.50, 0.36),
}


def photo(name, side=480):
    path = ROOT / "static/img/samples/portrait.jpg" if name == "astronaut" else PHOTOS / f"{name}.jpg"
    with Image.open(path) as image:
        image.thumbnail((side, side))
        return np.asarray(image.convert("RGB"))


def look(slug, picture):
    entry = CATALOGUE[slug]
    strength = recipes.blend(entry["recipe"], entry["strength"])
    return render(picture, entry["recipe"], strength=strength, seed=entry.get("default_seed") or 1)


def hazy(picture, beta, seed):
    """Scatter light as haze does, I = J t + A (1 - t) with t = exp(-beta d), over a ramp of depth with noise."""
    height, width = picture.shape[:2]
    rng = np.random.default_rng(seed)
    hills = cv2.resize(rng.standard_normal((6, 8), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    depth = np.maximum(np.linspace(1.6, 0.25, height)[:, None] + 0.15 * hills, 0.05)
    through = np.exp(-beta * depth)[..., None]
    seen = picture / 255 * through + np.array([0.86, 0.88, 0.91]) * (1 - through)
    seen += rng.normal(0, 0.006, picture.shape)
    out = io.BytesIO()
    Image.fromarray((np.clip(seen, 0, 1) * 255).round().astype(np.uint8)).save(out, "JPEG", quality=92)
    return np.asarray(Image.open(out))


def soft(picture, sigma):
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma))


def psnr(one, other):
    return 10 * math.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def ssim(one, other):
    return structural_similarity(*(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (one, other)))


def autocontrast_and_unsharp_mask(picture):
    stretched = ImageOps.autocontrast(Image.fromarray(picture), cutoff=1)
    return np.asarray(stretched.filter(ImageFilter.UnsharpMask(2, 80, 3)))


def detail_enhance(picture):
    return np.asarray(cv2.detailEnhance(np.ascontiguousarray(picture[..., ::-1])))[..., ::-1]


def clahe(picture):
    return (equalize_adapthist(picture) * 255).round().astype(np.uint8)


METHODS = {
    "untouched": lambda picture: picture,
    "ours": lambda picture: look("express_enhance", picture),
    "Pillow": autocontrast_and_unsharp_mask,
    "OpenCV": detail_enhance,
    "scikit-image": clahe,
}


@pytest.mark.parametrize("sigma", [0, 1.2], ids=["hazy", "hazy and soft"])
def test_express_enhance_restores_better_than_every_peer(sigma):
    likeness = {name: [] for name in METHODS}
    for name in OUTDOORS:
        clean = photo(name)
        for seed, beta in enumerate((0.6, 1.0, 1.4)):
            spoilt = hazy(soft(clean, sigma) if sigma else clean, beta, seed)
            for method, restore in METHODS.items():
                restored = restore(spoilt)
                likeness[method].append((psnr(restored, clean), ssim(restored, clean)))
    ours, untouched = np.array(likeness["ours"]), np.array(likeness["untouched"])
    gain = (ours - untouched).mean(0)
    assert gain[0] >= 4
    assert gain[1] >= 0.08
    assert (ours[:, 0] > untouched[:, 0]).sum() >= 23
    for peer in ("Pillow", "OpenCV", "scikit-image"):
        ahead = (ours - np.array(likeness[peer])).mean(0)
        assert ahead[0] >= 2, peer
        assert ahead[1] > 0, peer


def test_sharpening_helps_a_soft_photo_and_does_not_raise_noise():
    sharpen = {"version": 1, "steps": [{"op": "sharpen", "amount": 1.6}]}
    gains = {"soft": [], "noisy": []}
    for name in OUTDOORS:
        clean = photo(name, 640)
        for seed, sigma in enumerate((1.0, 1.5)):
            blurred = soft(clean, sigma)
            noise = np.random.default_rng(seed).normal(0, 4, clean.shape)
            noisy = np.clip(blurred + noise, 0, 255).round().astype(np.uint8)
            for kind, spoilt in (("soft", blurred), ("noisy", noisy)):
                gains[kind].append(psnr(render(spoilt, sharpen), clean) - psnr(spoilt, clean))
    assert np.mean(gains["soft"]) > 0.3
    assert np.mean(gains["noisy"]) >= 0


def test_express_enhance_keeps_a_clean_photo_a_photo():
    alike, sharper = [], []
    for name in [*OUTDOORS, "portrait-light", "high-key-portrait", "snow", "sea"]:
        clean = photo(name, 640)
        enhanced = look("express_enhance", clean)
        alike.append(ssim(enhanced, clean))
        assert clipped(enhanced) - clipped(clean) <= 0.03, name
        assert colourfulness(enhanced) <= 2.1 * colourfulness(clean), name
        sharper.append(sharpness(enhanced) / sharpness(clean))
    assert np.mean(alike) >= 0.85
    assert min(alike) >= 0.70
    # One photo has a plain concrete wall, whose little texture is what local contrast raises most.
    assert min(sharper) >= 1.5
    assert sorted(sharper)[-2] <= 5


@pytest.mark.parametrize(
    ("slug", "degrees"),
    [
        ("express_enhance", 3),
        ("hdr_clarity", 5),
        ("vivid_pop", 5),
        ("soft_skin_portrait", 5),
        ("cinematic_glow", 5),
        ("happy", 5),
        ("cinematic", 5),
    ],
)
def test_look_keeps_the_hue_of_faces(slug, degrees):
    assert abs(face_hue_drift(slug, "astronaut")) <= degrees
    # Faces that are small or lit from the side are held to a looser bound.
    assert all(abs(face_hue_drift(slug, name)) <= 9 for name in FACES)


@pytest.mark.parametrize("slug", CATALOGUE)
def test_look_leaves_something_of_highlights_and_shadows(slug):
    added = []
    for name in ["portrait-light", "group", "landscape", "city-night", "food"]:
        source = photo(name)
        added.append(clipped(look(slug, source)) - clipped(source))
    # Monochrome drama and ink are meant to reach black; nothing may lose a quarter of its picture.
    limit = 0.25 if slug in ("mono_drama", "noir_classic", "comic_ink", "pop_art", "pencil_sketch") else 0.1
    assert max(added) <= limit


def clipped(picture):
    """Share of pixels whose luma is black or white."""
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return float(((luma <= 1) | (luma >= 254)).mean())


def colourfulness(picture):
    """Hasler and Süsstrunk, 2003."""
    red, green, blue = (picture[..., channel].astype(float) for channel in range(3))
    across, down = red - green, (red + green) / 2 - blue
    return math.hypot(across.std(), down.std()) + 0.3 * math.hypot(across.mean(), down.mean())


def sharpness(picture):
    """Variance of the Laplacian."""
    return float(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def face_hue_drift(slug, name):
    """Degrees by which the mean hue of a face turns in CIE Lab."""
    source = photo(name, 800)
    height, width = source.shape[:2]
    left, top, right, bottom = FACES[name]
    face = np.s_[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
    hues = []
    for picture in (source, look(slug, source)):
        lab = cv2.cvtColor(picture[face].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        hues.append(math.degrees(math.atan2(lab[..., 2].mean(), lab[..., 1].mean())))
    return (hues[1] - hues[0] + 180) % 360 - 180
