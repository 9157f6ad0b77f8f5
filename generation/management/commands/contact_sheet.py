"""Looks side by side, to be judged by eye: photos across, looks down, a sheet for each category."""

from argparse import ArgumentParser
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from generation.engine.exceptions import DecodeError
from generation.engine.recipes import Look
from generation.images import processing
from generation.images.processing import Share
from generation.images.provenance import ALGORITHMICALLY_ENHANCED
from generation.models import Preset
from generation.modes import Mode

PHOTO = Look({"version": 1, "steps": []}, 0)  # the look that leaves a photo as it is


class Command(BaseCommand):
    help = "Render contact sheets of presets, as the built-in engine makes them at their own strength."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
        parser.add_argument("-o", "--output", required=True, type=Path, help="folder for the sheets")
        parser.add_argument("--preset", action="append", metavar="SLUG", help="only this one; may be given repeatedly")
        parser.add_argument("--cell", type=int, default=200, help="side of a cell in pixels")
        parser.add_argument("--side", type=int, default=1024, help="long side that the looks are rendered at")

    def handle(self, *, photos: list[Path], output: Path, cell: int, side: int, **options: Any) -> None:
        presets = Preset.objects.active().order_by("mode", "category", "position")
        if options["preset"]:
            presets = presets.filter(slug__in=options["preset"])
        presets = presets.sound()
        if not presets:
            raise CommandError("There is no such active preset.")
        looks = [Look(preset.recipe, preset.strength, preset.default_seed or 1) for preset in presets]
        pictures = [_pictures(path, [PHOTO, *looks], side) for path in photos]
        output.mkdir(parents=True, exist_ok=True)
        for group, members in groupby(enumerate(presets, start=1), lambda numbered: _group(numbered[1])):
            rows = [("the photos", [shown[0] for shown in pictures])]
            rows += [(preset.name, [shown[number] for shown in pictures]) for number, preset in members]
            path = output / f"{group}.webp"
            path.write_bytes(processing.contact_sheet(rows, cell=cell, source_type=ALGORITHMICALLY_ENHANCED))
            self.stdout.write(str(path))


def _group(preset: Preset) -> str:
    return preset.category if preset.mode == Mode.PRESET else preset.mode


def _pictures(path: Path, looks: list[Look], side: int) -> list[bytes]:
    """Return the photo rendered with each look, one at a time: a job of all of them could take too long."""
    try:
        photo = path.read_bytes()
        rendered = partial(
            processing.previews, photo, side=side, source_type=ALGORITHMICALLY_ENHANCED, share=Share.BACKGROUND
        )
        return [picture for look in looks for picture in rendered([look])]
    except (OSError, DecodeError) as error:
        raise CommandError(f"{path} is not a photo that can be read: {error!r}") from error
