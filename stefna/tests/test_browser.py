"""The studio, as it is used: the first thirty seconds, and what may come between."""

import pytest
from playwright.sync_api import expect

from stefna.tests.steps import (
    NO_CONNECTION,
    arrive,
    choose,
    create,
    drop,
    expect_result,
    paste,
    pick,
    picture,
    press_create,
)  # fmt: skip

pytestmark = pytest.mark.browser


def test_guest_makes_a_picture_of_a_sample(site, open_page):
    page = open_page()
    page.goto(site.url)
    page.get_by_alt_text("Portrait", exact=True).click()
    press_create(page)
    expect_result(page)
    expect(page.get_by_role("heading", name="Express Enhance")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename.startswith("stefna-express-enhance-")


@pytest.mark.parametrize("give", [choose, drop, paste])
def test_photo_of_ones_own_is_chosen_dropped_or_pasted(site, open_page, give):
    page = open_page()
    page.goto(site.url)
    give(page, picture(333, 222))
    expect(page.locator("#chosen")).to_be_visible()
    assert page.locator("#chosen").get_attribute("src").startswith("blob:")
    press_create(page)
    photo = page.get_by_alt_text("Your photo", exact=True).or_(page.get_by_alt_text("Before: your photo"))
    expect(photo).to_have_attribute("width", "333")


def test_photo_that_is_too_large_is_refused_before_it_is_sent(site, open_page, tmp_path):
    page = open_page()
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.goto(site.url)
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8" + b"x" * 15_000_000)
    page.set_input_files("#file", large)
    expect(page.get_by_role("alert")).to_have_text("This photo is too large. A photo may have up to 15 MB.")
    expect(page.locator("#chosen")).to_be_hidden()
    assert sent == []


@pytest.mark.parametrize("give", [drop, paste])
def test_what_is_no_picture_is_refused_where_it_lands(site, open_page, give):
    page = open_page()
    page.goto(site.url)
    give(page, b"Dear diary", "diary.txt", "text/plain")
    expect(page.get_by_role("alert")).to_contain_text("This is not a picture.")
    expect(page.locator("#chosen")).to_be_hidden()


def test_damaged_photo_is_named_by_the_server_and_the_page_goes_on(site, open_page):
    page = open_page(360, expected="status of 415|Status Error Code 415")
    page.goto(site.url)
    choose(page, b"<svg/>")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("not a photo we can read")
    expect(page.get_by_role("alert")).to_be_in_viewport()
    page.get_by_alt_text("Coffee", exact=True).click()
    expect(page.get_by_role("alert")).to_be_empty()
    press_create(page)
    expect_result(page)


def test_cards_become_sketches_of_the_chosen_photo(site, open_page):
    page = open_page()
    page.goto(site.url)
    expect(page.get_by_text("Sketch", exact=True).first).to_be_hidden()
    choose(page, picture(320, 240, (0, 220, 0)))
    cards = page.locator("label.card")
    expect(cards.locator(".badge:visible")).to_have_count(cards.count())
    expect(cards.locator(".badge").first).to_have_text("Sketch")
    sketch = page.locator("label.card", has_text="Vivid Pop").locator(".after")
    expect(sketch).to_have_js_property("complete", True)
    middle = """image => {
        const canvas = document.createElement("canvas");
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    }"""
    red, green, blue, _ = sketch.evaluate(middle)
    assert green > 150
    assert max(red, blue) < 100
    chosen = page.locator("#chosen").get_attribute("src")
    assert page.locator(".card .before").first.get_attribute("src") == chosen


def test_looks_are_found_by_words_and_by_kind(site, open_page):
    page = open_page()
    page.goto(site.url)
    shown = page.locator("label.card:visible strong")
    page.get_by_label("Find a look").fill("noir film")
    expect(shown).to_have_text(["Noir Classic"])
    page.get_by_label("Find a look").fill("xyzzy")
    expect(page.get_by_text("No look is called that.")).to_be_visible()
    page.get_by_label("Find a look").fill("")
    everything = shown.count()
    page.get_by_role("button", name="Black & White").click()
    expect(page.get_by_role("button", name="Black & White")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("label.card[data-category=black_white]").first).to_be_visible()
    assert 0 < shown.count() < everything
    page.get_by_role("button", name="All", exact=True).click()
    expect(shown).to_have_count(everything)


def test_several_looks_at_once_are_one_page(site, open_page):
    page = open_page()
    page.goto(site.url)
    page.get_by_alt_text("Coffee", exact=True).click()
    page.get_by_label("Several at once").check()
    for look in ("Noir Classic", "Vivid Pop"):
        pick(page, look)
    page.get_by_role("button", name="Create · 3 looks").click()
    assert arrive(page).startswith("/batches/")
    expect(page.locator("#batch article strong")).to_have_count(3)
    expect(page.get_by_text("Done", exact=True)).to_have_count(3)


@pytest.mark.parametrize("moved", [False, True])
def test_strength_is_sent_only_when_it_was_moved(site, open_page, moved):
    page = open_page()
    page.goto(site.url)
    page.get_by_alt_text("Coffee", exact=True).click()
    page.get_by_text("More", exact=True).click()
    slider = page.get_by_label("Strength")
    meant = float(slider.input_value())
    if moved:
        slider.press("End")
        expect(page.locator("#strength-word")).to_have_text("Bold")
    (run,) = site.call("facts", path=press_create(page))
    assert run["strength"] == (1 if moved else meant)


def test_double_click_is_one_picture(site, open_page):
    page = open_page()
    page.goto(site.url)
    page.get_by_alt_text("Coffee", exact=True).click()
    page.get_by_role("button", name="Create").dblclick()
    assert len(site.call("facts", path=arrive(page))) == 1


def test_without_a_connection_the_photo_stays_and_is_sent_later(site, open_page):
    page = open_page(expected=NO_CONNECTION)
    page.goto(site.url)
    choose(page, picture())
    expect(page.locator(".badge:visible").first).to_be_visible()
    page.context.set_offline(True)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no connection. Your photo is still here")
    page.context.set_offline(False)
    press_create(page)
    expect_result(page)


def test_back_from_the_run_is_a_studio_that_works(site, open_page):
    page = open_page()
    first = create(page, site.url, sample="Coffee")
    page.go_back()
    page.get_by_alt_text("Portrait", exact=True).click()
    second = press_create(page)
    assert second != first
    expect_result(page)


def test_reload_of_the_studio_keeps_the_photo(site, open_page):
    page = open_page()
    page.goto(site.url)
    choose(page, picture(333, 222))
    expect(page.locator(".badge:visible").first).to_be_visible()
    page.reload()
    expect(page.locator("#chosen")).to_have_js_property("naturalWidth", 333)


def test_without_scripts_from_first_page_to_result(site, open_page):
    page = open_page(java_script_enabled=False)
    page.goto(site.url)
    expect(page.get_by_label("Find a look")).to_be_hidden()
    page.get_by_alt_text("Coffee", exact=True).click()
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/runs/**")
    expect(page.get_by_alt_text("After: Express Enhance")).to_be_visible()
    expect(page.get_by_alt_text("Before: your photo")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename.endswith(".jpg")


FOCUSED = """() => {
    const one = document.activeElement;
    // A control that is drawn by its label shows the focus there.
    return [one, one.closest("label")].filter(Boolean).some((box) => {
        const { outlineStyle, outlineWidth } = getComputedStyle(box);
        const place = box.getBoundingClientRect();
        const seen = place.width > 1 && place.height > 1 && place.bottom > 0 && place.top < innerHeight;
        return seen && outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
    });
}"""


def tab_to(page, target, *, most=60):
    """Go on by Tab until a control has the focus, which can be seen at every stop."""
    for _ in range(most):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED), page.evaluate("document.activeElement.outerHTML")
        if target.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {target}")


def test_keyboard_alone_leads_from_the_first_page_to_the_download(site, open_page):
    page = open_page()
    page.goto(site.url)
    tab_to(page, page.get_by_role("link", name="Skip to the content"))
    page.keyboard.press("Enter")
    tab_to(page, page.locator("[name=sample]").first)
    page.keyboard.press("Space")
    expect(page.locator("#chosen")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[name=sample]").nth(1)).to_be_checked()
    assert page.evaluate(FOCUSED)
    tab_to(page, page.locator("[name=look]:checked"))
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        assert page.evaluate(FOCUSED)
    expect(page.locator("[name=look]:checked")).to_have_attribute("data-name", "Crystal Clear")
    tab_to(page, page.get_by_role("button", name="Create"))
    page.keyboard.press("Enter")
    arrive(page)
    expect_result(page)
    tab_to(page, page.get_by_role("button", name="Download", exact=True))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.startswith("stefna-crystal-clear-")
