"""What is shown before there is a result: what looks do to a photo, and how long they usually take."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence

from django.core.cache import cache, caches

from generation import photos
from generation.engine.recipes import Look
from generation.images import processing
from generation.images.processing import Share
from generation.images.provenance import ALGORITHMICALLY_ENHANCED
from generation.models import Photo, Preset, Run, release_connections

# Pictures are kept apart from counters, which must not be evicted by them.
PREVIEWS = "previews"
PREVIEW_SECONDS = 30 * 24 * 3600
SKETCH_SECONDS = 24 * 3600
USUAL_SECONDS = 60
SKETCH_SIDE = 256
# Tiles of the sheet: small enough that the sheet of a large catalogue is one picture of a few hundred kilobytes.
TILE_SIDE = 160
SKETCHES_AT_ONCE = 6


def preset_preview(preset: Preset) -> bytes:
    """Return a small WebP of what a preset does to the sample portrait; made once for each recipe."""
    return next(sketches(photos.Upload.sample("portrait"), [preset]))[1]


def sketches(photo: Photo | photos.Upload, presets: Sequence[Preset]) -> Iterator[tuple[Preset, bytes]]:
    """Yield each preset with a small WebP of what it does to a photo; made once, and then kept for a day.

    Raises GenerationError: before the first for a photo that cannot be used, and ImageProcessingBusy at any time.
    """
    # Neither while an image process works nor while a slow reader takes the pictures.
    release_connections()
    small: bytes | None = None
    for first in range(0, len(presets), SKETCHES_AT_ONCE):
        some = presets[first : first + SKETCHES_AT_ONCE]
        keys = {preset: f"sketch:{photo.sha256}:{_look_key(preset)}" for preset in some}
        found = caches[PREVIEWS].get_many(keys.values())
        missing = [preset for preset in some if keys[preset] not in found]
        if missing:
            small = small or photos.small(photo)
            looks = [Look(preset.recipe, preset.strength, preset.default_seed or 1) for preset in missing]
            with photos.refusing_photos():
                made = processing.previews(
                    small, looks, side=SKETCH_SIDE, source_type=ALGORITHMICALLY_ENHANCED, share=Share.PREVIEW
                )
            new = {keys[preset]: sketch for preset, sketch in zip(missing, made, strict=True)}
            caches[PREVIEWS].set_many(new, SKETCH_SECONDS)
            found |= new
        yield from ((preset, found[keys[preset]]) for preset in some)


def sheet_version(presets: Sequence[Preset]) -> str:
    """Return a name that changes whenever the sheet of these presets does."""
    return _hash([_look_key(preset) for preset in presets])[:12]


def preset_sheet(presets: Sequence[Preset]) -> bytes:
    """Return one WebP with what each preset does to the sample portrait, one square tile below the other."""
    key = f"sheet:{sheet_version(presets)}"
    sheet: bytes | None = caches[PREVIEWS].get(key)
    if sheet is None:
        tiles = [picture for _, picture in sketches(photos.Upload.sample("portrait"), presets)]
        with photos.refusing_photos():
            sheet = processing.sprite(tiles, side=TILE_SIDE, source_type=ALGORITHMICALLY_ENHANCED)
        caches[PREVIEWS].set(key, sheet, PREVIEW_SECONDS)
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
