from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Bring the database, the presets and the static files up to date: one process instead of three."

    def handle(self, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        call_command("load_presets", stdout=self.stdout)
        call_command("collectstatic", interactive=False, verbosity=0)
