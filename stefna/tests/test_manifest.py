"""What a phone reads when the site is installed."""

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.urls import reverse
from PIL import Image

from stefna import manifest

pytestmark = pytest.mark.django_db
CSS = (Path(__file__).parents[2] / "static" / "css" / "stefna.css").read_text()


def icon(url):
    return Image.open(finders.find(url.removeprefix("/static/")))


def test_manifest_is_served_to_everybody_with_what_installing_needs(client):
    answer = client.get(reverse("manifest"))
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/manifest+json")
    said = answer.json()
    icons = said.pop("icons")
    assert said == {
        "id": "/",
        "name": "Stefna",
        "short_name": "Stefna",
        "description": "Give your photos a new look.",
        "lang": "en",
        "start_url": "/",
        "scope": "/",
        "display": "standalone",
        "theme_color": manifest.BACKGROUND,
        "background_color": manifest.BACKGROUND,
        "categories": ["photo"],
        "shortcuts": [{"name": "History", "url": "/runs/"}],
    }
    assert {(one["sizes"], one["purpose"]) for one in icons} == {
        ("192x192", "any"),
        ("512x512", "any"),
        ("512x512", "maskable"),
    }
    for one in icons:
        with icon(one["src"]) as image:
            assert (f"{image.width}x{image.height}", Image.MIME[image.format]) == (one["sizes"], one["type"])


def test_manifest_is_in_the_visitors_language(client):
    answer = client.get(reverse("manifest"), headers={"Accept-Language": "de"})
    assert answer.json()["lang"] == "de"
    assert "Accept-Language" in answer["Vary"]


def test_maskable_icons_leave_no_corner_empty():
    for name in ("icon-maskable-512.png", "apple-touch-icon.png"):
        with icon(f"/static/img/{name}") as image:
            opaque = image.convert("RGBA")
            edge = image.width - 1
            corners = {opaque.getpixel(xy) for xy in ((0, 0), (0, edge), (edge, 0), (edge, edge))}
        assert corners == {(52, 80, 224, 255)}


def test_pages_name_manifest_icon_and_the_colours_of_the_stylesheet(client):
    page = client.get("/").content.decode()
    assert f'<link rel="manifest" href="{reverse("manifest")}">' in page
    touch = re.search(r'<link rel="apple-touch-icon" href="([^"]+)">', page)[1]
    with icon(touch) as image:
        assert image.size == (180, 180)
    colours = re.findall(r'<meta name="theme-color" content="(#\w+)" media="\(prefers-color-scheme: (\w+)\)">', page)
    light, dark = re.findall(r"--pico-background-color: (#\w+);", CSS)[:2]
    assert colours == [(light, "light"), (dark, "dark")]
    assert light == manifest.BACKGROUND
