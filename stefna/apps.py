from django.apps import AppConfig
from django.contrib.admin import apps


class StefnaConfig(AppConfig):
    name = "stefna"

    def ready(self) -> None:
        from stefna import checks, schema  # noqa: F401  (importing registers them)


class DeskConfig(apps.AdminConfig):
    """Django's admin, with the owner's desk as its site."""

    default = False
    default_site = "stefna.desk.Desk"
