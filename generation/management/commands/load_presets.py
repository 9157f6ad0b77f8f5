import json
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from generation.models import Preset

CATALOGUE = Path(__file__).parents[2] / "presets.json"


class Command(BaseCommand):
    help = "Load presets and moods: add those that are missing and leave the owner's as they are."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, default=CATALOGUE, help="JSON; default: the catalogue")
        parser.add_argument("--overwrite", action="store_true", help="also put existing ones back to the file's values")

    def handle(self, *, file: Path, overwrite: bool, **options: Any) -> None:
        try:
            entries = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        added = changed = 0
        with transaction.atomic():
            known = Preset.objects.in_bulk(field_name="slug")
            for position, entry in enumerate(entries):
                preset = known.get(entry.get("slug"))
                if preset and not overwrite:
                    continue
                preset = preset or Preset(position=position)
                for name, value in entry.items():
                    setattr(preset, name, value)
                try:
                    preset.full_clean()
                except ValidationError as error:
                    raise CommandError(f"Entry {position + 1} ({entry.get('slug')}): {error}") from error
                added, changed = added + (preset.pk is None), changed + (preset.pk is not None)
                preset.save()
        self.stdout.write(f"{added} presets added, {changed} changed, {Preset.objects.count()} in all.")
