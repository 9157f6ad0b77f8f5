"""The only code that makes pictures: ours, or somebody else's service."""

from functools import cache

from django.utils.module_loading import import_string

from generation.providers.base import ImageProvider

# By path, because a process that only serves pages has no use for a provider's libraries.
PROVIDERS = {"embedded": "generation.providers.embedded.EmbeddedProvider"}


def default_provider() -> str:
    """Return the name of the provider that new runs are made with."""
    return "embedded"


@cache
def get_image_provider(name: str) -> ImageProvider:
    provider: ImageProvider = import_string(PROVIDERS[name])()
    return provider
