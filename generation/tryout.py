"""Trying a preset on the sample photos before anybody else sees it: by what makes the runs, and without a run."""

import time
import uuid

import structlog
from django.conf import settings

from generation import photos, services
from generation.models import Preset, release_connections
from generation.providers import default_provider, get_image_provider
from generation.providers.base import TransformRequest, UpstreamAnswer

log = structlog.get_logger("generation")

# Without a seed of its own a preset is tried with this one, so that two pictures differ by what was changed.
SEED = 1


def is_paid() -> bool:
    """Say whether each try is a call that somebody bills."""
    return default_provider() != "embedded"


def try_out(preset: Preset, sample: str) -> bytes:
    """Return as a marked WebP what a preset, saved or not, makes of a sample. One call; raises GenerationError."""
    services.count_trial()
    provider = get_image_provider(default_provider())
    photo = photos.Upload.sample(sample).data
    photo_url = photos.sample_url(sample) if provider.fetches_photo else ""
    # Whoever waits for somebody else holds no connection.
    release_connections()
    started = time.monotonic()
    request = TransformRequest(
        request_id=f"try-out.{uuid.uuid4()}",
        photo=photo,
        photo_url=photo_url,
        prompt=preset.prompt,
        negative_prompt=preset.negative_prompt,
        strength=preset.strength,
        seed=preset.default_seed or SEED,
        recipe=preset.recipe,
        model=settings.AIML_MODEL,
        steps=settings.AIML_STEPS,
        guidance=settings.AIML_GUIDANCE,
        seconds=settings.AIML_CALL_SECONDS,
        answer=None,
        answered=_nobody_asks_again,
        unanswered=lambda: None,
    )
    made = provider.transform(request)
    milliseconds = round((time.monotonic() - started) * 1000)
    log.info("preset_tried", preset_id=preset.slug, provider=provider.name, duration_ms=milliseconds)
    return photos.rendition(made.data, made.source_type)


def _nobody_asks_again(answer: UpstreamAnswer) -> None:
    """There is no row that a second attempt could go on from."""
