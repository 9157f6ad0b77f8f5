from django.apps import AppConfig


class StefnaConfig(AppConfig):
    name = "stefna"

    def ready(self) -> None:
        from stefna import checks, schema  # noqa: F401  (importing registers them)
