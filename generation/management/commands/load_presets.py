from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from generation import catalogue
from generation.models import Preset

CATALOGUE = Path(__file__).parents[2] / "presets.json"


class Command(BaseCommand):
    help = "Load presets and moods: add those that are missing and leave the owner's as they are."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, default=CATALOGUE, help="JSON; default: the catalogue")
        parser.add_argument("--overwrite", action="store_true", help="also put existing ones back to the file's values")

    def handle(self, *, file: Path, overwrite: bool, **options: Any) -> None:
        try:
            entries = catalogue.read(file.read_bytes())
        except (OSError, ValueError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        if not overwrite:
            # What is wrong in the owner's own row is nothing that loading would change.
            entries = [entry for entry in entries if entry.is_new]
        for entry in entries:
            if entry.problems:
                raise CommandError(f"Entry {entry.number} ({entry.slug}): {' '.join(entry.problems)}")
        kinds = [entry.kind for entry in catalogue.apply(entries)]
        added, changed = kinds.count("new"), kinds.count("changed")
        self.stdout.write(f"{added} presets added, {changed} changed, {Preset.objects.count()} in all.")
