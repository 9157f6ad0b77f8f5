import io

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from PIL import Image

from conftest import SAMPLES
from generation.images import provenance

pytestmark = pytest.mark.django_db


def test_sheets_show_each_look_on_each_photo_by_category(catalogue, tmp_path):
    out, folder = io.StringIO(), tmp_path / "sheets"
    call_command(
        "contact_sheet",
        SAMPLES / "portrait.jpg",
        SAMPLES / "coffee.jpg",
        output=folder,
        preset=["noir_classic", "mono_drama", "happy"],
        cell=60,
        side=120,
        stdout=out,
    )
    sheets = sorted(folder.iterdir())
    assert out.getvalue().split() == [str(folder / "moodmorph.webp"), str(folder / "black_white.webp")]
    assert [sheet.name for sheet in sheets] == ["black_white.webp", "moodmorph.webp"]
    assert provenance.read(sheets[0].read_bytes()) == "algorithmicallyEnhanced"
    with Image.open(sheets[0]) as two_looks, Image.open(sheets[1]) as one_look:
        assert two_looks.width == one_look.width
        # One row for the photos themselves, and one for each look.
        assert two_looks.height * 2 == one_look.height * 3
        row = two_looks.height // 3
        rows = [two_looks.crop((0, top + 20, two_looks.width, top + row)).convert("RGB") for top in (0, row, 2 * row)]
        colour = [np.ptp(np.asarray(row.resize((40, 20)), int), axis=2).max() for row in rows]
        assert colour[0] > 50
        assert max(colour[1:]) < 12


def test_unknown_preset_and_unreadable_photo_are_said(catalogue, tmp_path):
    with pytest.raises(CommandError, match="no such active preset"):
        call_command("contact_sheet", SAMPLES / "coffee.jpg", output=tmp_path, preset=["melt"])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(CommandError, match=r"broken\.jpg is not a photo that can be read"):
        call_command("contact_sheet", broken, output=tmp_path)
