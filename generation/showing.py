"""What is shown before there is a result: what looks do to a photo, and how long they usually take."""

from __future__ import annotations

import hashlib
import json
import statistics
import threading
from collections.abc import Iterator, Sequence

from django.core.cache import cache
from PIL import Image

from generation import photos
from generation.engine.recipes import Look
from generation.models import Photo, Preset, Run
from generation.providers import get_sketcher

PREVIEW_SECONDS = 30 * 24 * 3600
SKETCH_SECONDS = 24 * 3600
USUAL_SECONDS = 60
SKETCH_SIDE = 256
# Tiles of the sheet: small enough that the sheet of a large catalogue is one picture of a few hundred kilobytes.
TILE_SIDE = 160
SKETCHES_AT_ONCE = 6

# Sketches are made while pages are served: however many people choose a photo, they take one processor.
_one_at_a_time = threading.Lock()


def preset_preview(preset: Preset) -> bytes:
    """Return a small WebP of what a preset does to the sample portrait; made once for each recipe."""
    return next(sketches(photos.Upload.sample("portrait"), [preset]))[1]


def sketches(photo: Photo | photos.Upload, presets: Sequence[Preset]) -> Iterator[tuple[Preset, bytes]]:
    """Yield each preset with a small WebP of what it does to a photo; made once, and then kept for a day.

    Raises GenerationError before the first, and nothing after it.
    """
    small: bytes | None = None
    for first in range(0, len(presets), SKETCHES_AT_ONCE):
        some = presets[first : first + SKETCHES_AT_ONCE]
        keys = {preset: f"sketch:{photo.sha256}:{_look_key(preset)}" for preset in some}
        found = cache.get_many(keys.values())
        missing = [preset for preset in some if keys[preset] not in found]
        if missing:
            small = small or photos.small(photo)
            looks = [Look(preset.recipe, preset.strength, preset.default_seed or 1) for preset in missing]
            with _one_at_a_time:
                made = get_sketcher()(small, looks, side=SKETCH_SIDE)
            new = {keys[preset]: photos.sketch_file(sketch) for preset, sketch in zip(missing, made, strict=True)}
            cache.set_many(new, SKETCH_SECONDS)
            found |= new
        yield from ((preset, found[keys[preset]]) for preset in some)


def sheet_version(presets: Sequence[Preset]) -> str:
    """Return a name that changes whenever the sheet of these presets does."""
    return _hash([_look_key(preset) for preset in presets])[:12]


def preset_sheet(presets: Sequence[Preset]) -> bytes:
    """Return one WebP with what each preset does to the sample portrait, one square tile below the other."""
    key = f"sheet:{sheet_version(presets)}"
    sheet: bytes | None = cache.get(key)
    if sheet is None:
        pixels = Image.new("RGB", (TILE_SIDE, TILE_SIDE * max(1, len(presets))))
        for number, (_, picture) in enumerate(sketches(photos.Upload.sample("portrait"), presets)):
            pixels.paste(photos.square(picture, TILE_SIDE), (0, TILE_SIDE * number))
        sheet = photos.sketch_file(pixels)
        cache.set(key, sheet, PREVIEW_SECONDS)
    return sheet


def usual_ms() -> dict[str, int]:
    """Return the median time of each preset's recent runs, in one query that the cache keeps for a while."""

    def measured() -> dict[str, int]:
        recent = Run.objects.filter(status=Run.Status.SUCCEEDED, cached=False).exclude(total_ms=None)
        times: dict[str, list[int]] = {}
        for slug, total_ms in recent.order_by("-created_at").values_list("preset_slug", "total_ms")[:500]:
            times.setdefault(slug, []).append(total_ms or 0)
        return {slug: round(statistics.median(found)) for slug, found in times.items()}

    return cache.get_or_set("usual_ms", measured, USUAL_SECONDS) or {}


def _look_key(preset: Preset) -> str:
    return _hash([preset.recipe, preset.strength, preset.default_seed])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
