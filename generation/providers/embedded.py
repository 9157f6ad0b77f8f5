"""Our own engine as an ImageProvider: no key, no network, the same picture for the same seed."""

from django.utils.translation import gettext_lazy as _

from generation.engine.exceptions import DecodeError, TooCostly
from generation.exceptions import PhotoInvalid, ProviderError
from generation.images import processing
from generation.images.provenance import ALGORITHMICALLY_ENHANCED
from generation.providers.base import TransformRequest, TransformResult


class EngineFailed(ProviderError):
    code = "engine_failed"
    sentence = _("This look could not be applied to this photo.")


class EmbeddedProvider:
    name = "embedded"
    fetches_photo = False

    def transform(self, request: TransformRequest) -> TransformResult:
        if not request.recipe:
            raise EngineFailed(_("This look has no recipe for the built-in engine."))
        try:
            picture = processing.render(request.photo, request.recipe, strength=request.strength, seed=request.seed)
        except TooCostly as error:
            raise PhotoInvalid(detail=repr(error)) from error
        except DecodeError as error:
            raise EngineFailed(_("The stored photo could not be read."), detail=repr(error)) from error
        return TransformResult(picture, ALGORITHMICALLY_ENHANCED)
