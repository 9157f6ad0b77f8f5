"""Our own engine as an ImageProvider: no key, no network, the same picture for the same seed."""

import numpy as np
from django.utils.translation import gettext_lazy as _
from PIL import Image

from generation.engine import ingest, recipes, render
from generation.exceptions import ProviderError
from generation.provenance import ALGORITHMICALLY_ENHANCED
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
            photo = ingest.decode(request.photo, ingest.Limits())
        except ingest.Refused as error:
            raise EngineFailed(_("The stored photo could not be read."), detail=repr(error)) from error
        picture = Image.fromarray(
            render.render(
                np.asarray(photo.convert("RGB")),
                request.recipe,
                strength=recipes.blend(request.recipe, request.strength),
                seed=request.seed,
            )
        )
        if photo.mode == "RGBA":
            picture.putalpha(photo.getchannel("A"))
        # Uncompressed: it is decoded again a moment later, and must not lose anything on the way.
        return TransformResult(ingest.encode(picture, "PNG", compress_level=0), ALGORITHMICALLY_ENHANCED)
