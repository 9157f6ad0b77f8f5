from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from stefna import private


class Command(BaseCommand):
    help = "Bring the database, the presets, the languages and the static files up to date, in one process."

    def handle(self, **options: Any) -> None:
        self._restrict_files()
        call_command("migrate", verbosity=0)
        call_command("load_presets", stdout=self.stdout)
        call_command("compilemessages")
        call_command("collectstatic", interactive=False, verbosity=0)

    def _restrict_files(self) -> None:
        """Repair an installation of before, whose data others on the host could read."""
        folders, state = [Path(folder) for folder in settings.PRIVATE_FOLDERS], Path(settings.STATE_DIR)
        changed = private.repair(folders=folders, files=[*settings.PRIVATE_FILES, state])
        if changed:
            self.stdout.write(f"Took the rights of others away from {changed} files and folders.")
