"""The only code that makes pictures: ours, or somebody else's service."""

from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string

from generation.providers.base import ImageProvider

# By path, because a process that only serves pages has no use for a provider's libraries.
PROVIDERS = {
    "embedded": "generation.providers.embedded.EmbeddedProvider",
    "aiml": "generation.providers.aiml.AimlProvider",
}


def default_provider() -> str:
    """Return the name of the provider that new runs are made with."""
    return "aiml" if settings.AIML_API_KEY or settings.AIML_ENDPOINTS else "embedded"


@cache
def get_image_provider(name: str) -> ImageProvider:
    provider: ImageProvider = import_string(PROVIDERS[name])()
    return provider
