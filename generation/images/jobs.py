"""The work of an image process: functions that take and return bytes and plain data. Nothing here knows Django.

Each raises a subclass of DecodeError for a picture that cannot be used, and nothing else for any bytes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from generation.engine import ingest, recipes
from generation.engine.ingest import Limits
from generation.engine.render import render as render_recipe
from generation.engine.sketch import sketches
from generation.images import provenance

SHEET_MARGIN, SHEET_LABEL = 4, 18


def normalise(
    data: bytes, limits: Mapping[str, int], *, max_side: int | None, thumbnail_side: int, source_type: str
) -> dict[str, Any]:
    """Decode a photo or a result and return what is stored of it: the picture and its thumbnail."""
    image = ingest.decode(data, Limits(**limits), max_side=max_side)
    image_format = "JPEG" if image.mode == "RGB" else "PNG"
    thumbnail = ingest.thumbnail(image, thumbnail_side)
    return {
        "format": image_format,
        "picture": _encoded(image, image_format, source_type),
        "thumbnail": _encoded(thumbnail, "JPEG", source_type, quality=82),
    }


def scale(
    data: bytes,
    limits: Mapping[str, int],
    *,
    max_side: int | None,
    side: int,
    image_format: str,
    quality: int,
    source_type: str,
) -> dict[str, Any]:
    """Decode a picture, at most `max_side` on its long side, and return it with a long side of at most `side`."""
    image = ingest.thumbnail(ingest.decode(data, Limits(**limits), max_side=max_side), side)
    return _encoded(image, image_format, source_type, quality=quality)


def convert(data: bytes, limits: Mapping[str, int], *, image_format: str, source_type: str) -> dict[str, Any]:
    """Return a picture in another format, at its own size."""
    return _encoded(ingest.decode(data, Limits(**limits)), image_format, source_type)


def brightest(data: bytes, limits: Mapping[str, int]) -> int:
    return ingest.brightest(data, Limits(**limits))


def render(photo: bytes, recipe: Mapping[str, Any], *, strength: float, seed: int) -> bytes:
    """Return what a recipe makes of a photo as an uncompressed PNG: it is decoded again, and must not lose anything."""
    image = ingest.decode(photo, Limits())
    blend = recipes.blend(recipe, strength)
    picture = Image.fromarray(render_recipe(np.asarray(image.convert("RGB")), recipe, strength=blend, seed=seed))
    if image.mode == "RGBA":
        picture.putalpha(image.getchannel("A"))
    return ingest.encode(picture, "PNG", compress_level=0)


def previews(photo: bytes, looks: list[list[Any]], *, side: int, quality: int, source_type: str) -> list[bytes]:
    """Return a WebP of each look (recipe, strength, seed) of one photo."""
    images = sketches(photo, [recipes.Look(*look) for look in looks], side=side)
    return [ingest.encode(image, "WEBP", quality=quality, xmp=provenance.packet(source_type)) for image in images]


def sprite(tiles: list[bytes], *, side: int, quality: int, source_type: str) -> bytes:
    """Return pictures of ours as square tiles, one below the other, as one WebP."""
    sheet = Image.new("RGB", (side, side * max(1, len(tiles))))
    for number, tile in enumerate(tiles):
        square = ImageOps.fit(ingest.decode(tile, Limits()).convert("RGB"), (side, side))
        sheet.paste(square, (0, side * number))
    return ingest.encode(sheet, "WEBP", quality=quality, xmp=provenance.packet(source_type))


def contact_sheet(rows: list[list[Any]], *, cell: int, quality: int, source_type: str) -> bytes:
    """Return rows of pictures (a name and the files), each row under its name, as one WebP."""
    pieces = [_sheet_row(name, [ingest.decode(file, Limits()) for file in files], cell) for name, files in rows]
    sheet = Image.new("RGB", (pieces[0].width, sum(piece.height for piece in pieces)))
    top = 0
    for piece in pieces:
        sheet.paste(piece, (0, top))
        top += piece.height
    return ingest.encode(sheet, "WEBP", quality=quality, xmp=provenance.packet(source_type))


def _sheet_row(name: str, pictures: list[Image.Image], cell: int) -> Image.Image:
    cells = [ingest.thumbnail(picture.convert("RGB"), cell) for picture in pictures]
    height = max(image.height for image in cells)
    width = len(cells) * (cell + SHEET_MARGIN) + SHEET_MARGIN
    row = Image.new("RGB", (width, height + SHEET_LABEL + SHEET_MARGIN), "#202020")
    ImageDraw.Draw(row).text((SHEET_MARGIN, 1), name, "#e8e8e8", _font())
    for column, image in enumerate(cells):
        left = SHEET_MARGIN + column * (cell + SHEET_MARGIN) + (cell - image.width) // 2
        row.paste(image, (left, SHEET_LABEL + (height - image.height) // 2))
    return row


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(SHEET_LABEL - 5)


def _encoded(image: Image.Image, image_format: str, source_type: str, **options: Any) -> dict[str, Any]:
    xmp = provenance.packet(source_type) if source_type else b""
    data = ingest.encode(image, image_format, xmp=xmp, **options)
    return {"data": data, "width": image.width, "height": image.height}


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job for job in (normalise, scale, convert, brightest, render, previews, sprite, contact_sheet)
}
