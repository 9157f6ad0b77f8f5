from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Bring the database, the presets, the languages and the static files up to date, in one process."

    def handle(self, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        call_command("load_presets", stdout=self.stdout)
        call_command("compilemessages")
        call_command("collectstatic", interactive=False, verbosity=0)
