from typing import Any

from django.core.management.base import BaseCommand

from stefna import catalogues


class Command(BaseCommand):
    help = "Make of locale/ what gettext reads; takes the place of Django's, without GNU gettext."

    def handle(self, **options: Any) -> None:
        catalogues.compile_all()
