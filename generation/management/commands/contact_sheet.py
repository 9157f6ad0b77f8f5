"""Looks side by side, to be judged by eye: photos across, looks down, a sheet for each category."""

from argparse import ArgumentParser
from itertools import groupby
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from PIL import Image, ImageDraw, ImageFont

from generation import provenance
from generation.engine import ingest
from generation.engine.recipes import Look
from generation.engine.sketch import sketches
from generation.models import Preset
from generation.modes import Mode

MARGIN, LABEL = 4, 18
PHOTO = Look({"steps": []}, 0)  # the look that leaves a photo as it is


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
            marked = provenance.save_options("WEBP", provenance.ALGORITHMICALLY_ENHANCED)
            path.write_bytes(ingest.encode(_sheet(rows, cell), "WEBP", quality=70, **marked))
            self.stdout.write(str(path))


def _group(preset: Preset) -> str:
    return preset.category if preset.mode == Mode.PRESET else preset.mode


def _pictures(path: Path, looks: list[Look], side: int) -> list[Image.Image]:
    try:
        return sketches(path.read_bytes(), looks, side=side)
    except (OSError, ingest.Refused) as error:
        raise CommandError(f"{path} is not a photo that can be read: {error!r}") from error


def _sheet(rows: list[tuple[str, list[Image.Image]]], cell: int) -> Image.Image:
    """Lay rows of pictures out, each row under its name."""
    font = ImageFont.load_default(LABEL - 5)
    columns = len(rows[0][1])
    pieces = []
    for name, pictures in rows:
        cells = [ingest.thumbnail(picture, cell) for picture in pictures]
        height = max(image.height for image in cells)
        row = Image.new("RGB", (columns * (cell + MARGIN) + MARGIN, height + LABEL + MARGIN), "#202020")
        ImageDraw.Draw(row).text((MARGIN, 1), name, "#e8e8e8", font)
        for column, image in enumerate(cells):
            left = MARGIN + column * (cell + MARGIN) + (cell - image.width) // 2
            row.paste(image, (left, LABEL + (height - image.height) // 2))
        pieces.append(row)
    sheet = Image.new("RGB", (pieces[0].width, sum(piece.height for piece in pieces)))
    top = 0
    for piece in pieces:
        sheet.paste(piece, (0, top))
        top += piece.height
    return sheet
