from typing import Any

from django.core.management.base import BaseCommand

from stefna import catalogues


class Command(BaseCommand):
    help = "Bring locale/ up to date with the sentences in the code; takes the place of Django's, without GNU gettext."

    def handle(self, **options: Any) -> None:
        for language in catalogues.languages():
            missing = len(catalogues.update(language).untranslated_entries())
            self.stdout.write(f"{catalogues.path(language)}: {missing} to translate")
