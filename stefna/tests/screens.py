"""The pictures in docs/screens: `make screens` takes them anew. The tests do not: it asserts nothing."""

import io

import pytest
from PIL import Image

from stefna.tests.conftest import ROOT
from stefna.tests.scenes import SCENES

FOLDER = ROOT / "docs" / "screens"
SHOWN = [
    "studio", "studio_with_a_photo", "run_creating", "run_done", "run_failed", "moodmorph_done",
    "history", "news", "profile", "sign_in",
]  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(360, 740, "light"), (360, 740, "dark"), (768, 1024, "light"), (1440, 900, "light"), (1440, 900, "dark")],
)
def test_take_picture(site, still, open_page, name, width, height, scheme):
    page = open_page(width, height, color_scheme=scheme, reduced_motion="reduce")
    SCENES[name](page, site, still)
    page.wait_for_load_state("networkidle")
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}-{width}-{scheme}.webp", quality=55, method=6)
