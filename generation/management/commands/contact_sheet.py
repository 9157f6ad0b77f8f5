"""Looks side by side, to be judged by eye: photos across, looks down, a sheet for each category."""

from argparse import ArgumentParser
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandError
from PIL import Image, ImageDraw, ImageFont

from generation import provenance
from generation.engine import ingest, recipes
from generation.engine.render import render
from generation.models import Preset
from generation.modes import Mode

MARGIN, LABEL = 4, 18


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
        if not presets:
            raise CommandError("There is no such active preset.")
        sources = [_decoded(path, side) for path in photos]
        output.mkdir(parents=True, exist_ok=True)
        for group, members in groupby(presets, lambda p: p.category if p.mode == Mode.PRESET else p.mode):
            rows = [("", sources)]
            for preset in members:
                strength = recipes.blend(preset.recipe, preset.strength)
                seed = preset.default_seed or 1
                looks = [render(source, preset.recipe, strength=strength, seed=seed) for source in sources]
                rows.append((preset.name, looks))
            path = output / f"{group}.webp"
            marked = provenance.save_options("WEBP", provenance.ALGORITHMICALLY_ENHANCED)
            path.write_bytes(ingest.encode(_sheet(rows, cell), "WEBP", quality=80, **marked))
            self.stdout.write(str(path))


def _decoded(path: Path, side: int) -> np.ndarray:
    try:
        return np.asarray(ingest.decode(path.read_bytes(), ingest.Limits(), max_side=side).convert("RGB"))
    except (OSError, ingest.Refused) as error:
        raise CommandError(f"{path} is not a photo that can be read: {error!r}") from error


def _sheet(rows: list[tuple[str, list[np.ndarray]]], cell: int) -> Image.Image:
    """Lay rows of pictures out, each row under its name."""
    font = ImageFont.load_default(LABEL - 5)
    columns = len(rows[0][1])
    pieces = []
    for name, pictures in rows:
        cells = [ingest.thumbnail(Image.fromarray(picture), cell) for picture in pictures]
        height = max(image.height for image in cells)
        row = Image.new("RGB", (columns * (cell + MARGIN) + MARGIN, height + LABEL + MARGIN), "#202020")
        ImageDraw.Draw(row).text((MARGIN, 1), name or "the photos", "#e8e8e8", font)
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
