from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from generation import catalogue
from generation.models import Preset


class Command(BaseCommand):
    help = "Write presets and moods, in order, as load_presets reads them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="default: to the terminal")
        parser.add_argument("--active", action="store_true", help="only those that users see")

    def handle(self, *, file: Path | None, active: bool, **options: Any) -> None:
        text = catalogue.write(Preset.objects.active() if active else Preset.objects.all())
        if file is None:
            self.stdout.write(text, ending="")
        else:
            file.write_text(text)
