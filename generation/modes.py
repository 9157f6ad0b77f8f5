"""How a run is asked for, and the modes that make several runs of one photo.

A mode's members are preset rows that carry its name: a fourth mood is a row, not code.
"""

from dataclasses import dataclass

from django.db import models
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

# As it is written on a run; it is translated where it is shown.
CUSTOM_NAME = gettext_noop("Your own words")


class Mode(models.TextChoices):
    PRESET = "preset", _("Preset")
    CUSTOM = "custom", _(CUSTOM_NAME)
    MOODMORPH = "moodmorph", "MoodMorph"


@dataclass(frozen=True)
class Batch:
    """A mode that answers one photo with one run for each of its members."""

    mode: Mode
    description: Promise

    @property
    def slug(self) -> str:
        return self.mode.value

    @property
    def name(self) -> str:
        return str(self.mode.label)


MOODMORPH = Batch(Mode.MOODMORPH, _("Your photo in three moods at once."))
BATCHES = {batch.slug: batch for batch in (MOODMORPH,)}
BATCH_CHOICES = [(batch.slug, batch.name) for batch in BATCHES.values()]
