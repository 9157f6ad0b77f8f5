"""How a run is asked for, and the modes that make several runs of one photo.

A mode's members are preset rows that carry its name: a fourth mood is a row, not code.
"""

from dataclasses import dataclass

from django.db import models


class Mode(models.TextChoices):
    PRESET = "preset", "Preset"
    CUSTOM = "custom", "Your own words"
    MOODMORPH = "moodmorph", "MoodMorph"


@dataclass(frozen=True)
class Batch:
    """A mode that answers one photo with one run for each of its members."""

    mode: Mode
    description: str

    @property
    def slug(self) -> str:
        return self.mode.value

    @property
    def name(self) -> str:
        return str(self.mode.label)


MOODMORPH = Batch(Mode.MOODMORPH, "Your photo in three moods at once.")
BATCHES = {batch.slug: batch for batch in (MOODMORPH,)}
BATCH_CHOICES = [(batch.slug, batch.name) for batch in BATCHES.values()]
