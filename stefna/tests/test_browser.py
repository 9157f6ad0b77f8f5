import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
ENDED = 30_000


def create(page, server, sample="Portrait", look="Express Enhance"):
    page.goto(server.url)
    page.get_by_alt_text(sample, exact=True).click()
    page.locator("label.card", has_text=look).first.click()
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/runs/**")


def test_journey_from_a_guests_first_photo_to_after_a_restart(server, open_page):
    server.start()
    page = open_page()
    create(page, server)
    comparison = page.locator("img-comparison-slider")
    expect(comparison).to_be_visible(timeout=ENDED)
    run = page.url
    for image in comparison.locator("img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    page.get_by_role("button", name="After", exact=True).click()

    page.get_by_role("link", name="History").click()
    expect(page.locator(".tiles article")).to_have_count(1)
    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("Email").fill("someone@example.com")
    page.get_by_label("Password").fill("a-long-enough-password")
    page.get_by_role("button", name="Sign up").click()
    page.get_by_role("link", name="History").click()
    expect(page.locator(".tiles article")).to_have_count(1)

    # Nothing is under way, so whatever is complained about afterwards is our fault and not the kill's.
    page.wait_for_load_state("networkidle")
    server.kill()
    server.start()
    page.goto(run)
    expect(page.locator("img-comparison-slider")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename.startswith("stefna-express-enhance-")
    assert page.complaints == []


@pytest.mark.parametrize("width", [360, 1280])
def test_pages_load_without_a_complaint_or_sideways_scrolling(server, open_page, width):
    server.start()
    page = open_page(width)
    create(page, server)
    expect(page.locator("img-comparison-slider")).to_be_visible(timeout=ENDED)
    run = page.url
    for path in ("/", run, "/runs/", "/notifications/", "/account/profile/", "/account/login/", "/account/signup/"):
        page.goto(path if path.startswith("http") else server.url + path, wait_until="networkidle")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    assert page.complaints == []


def test_without_scripts_from_first_page_to_result(server, open_page):
    server.start()
    page = open_page(java_script_enabled=False)
    page.goto(server.url)
    page.get_by_alt_text("Coffee", exact=True).click()
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/runs/**")
    page.wait_for_selector("a:has-text('Download')", timeout=ENDED)
    expect(page.get_by_alt_text("After: Express Enhance")).to_be_visible()


def test_bad_file_is_named_where_the_user_looks_and_the_page_goes_on(server, open_page, tmp_path):
    server.start()
    page = open_page(360)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<svg/>")
    page.goto(server.url)
    page.set_input_files("#file", bad)
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#error")).to_contain_text("not a photo we can read")
    page.get_by_alt_text("Coffee", exact=True).click()
    page.get_by_role("button", name="Create").dblclick()
    page.wait_for_url("**/runs/**")
    assert server.shell("from generation.models import Run; print(Run.objects.count())") == "1"


def test_moodmorph_fills_three_cells(server, open_page):
    server.start()
    page = open_page()
    page.goto(server.url)
    page.get_by_alt_text("Portrait", exact=True).click()
    page.locator("label.card", has_text="MoodMorph").click()
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/batches/**")
    expect(page.get_by_text("Done")).to_have_count(3, timeout=ENDED)
    assert page.complaints == []


def test_description_of_the_api_is_shown_under_its_own_policy(server, open_page):
    server.start()
    page = open_page()
    page.goto(f"{server.url}/api/docs/")
    expect(page.locator(".opblock").first).to_be_visible(timeout=ENDED)
    assert page.complaints == []
