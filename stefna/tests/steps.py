"""What people do on the pages, in the words of the browser tests."""

import base64
import io

from PIL import Image
from playwright.sync_api import Page, expect

GREEN = (40, 190, 60)
# What the browser and htmx say on the console when a request does not get through.
NO_CONNECTION = "ERR_INTERNET_DISCONNECTED|htmx:sendError|htmx:afterRequest"
SIGN_IN = "a-long-enough-password"


def picture(width: int = 320, height: int = 240, colour: tuple[int, int, int] = GREEN) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "JPEG")
    return out.getvalue()


def file(data: bytes | None = None, name: str = "mine.jpg", kind: str = "image/jpeg") -> dict:
    return {"name": name, "mimeType": kind, "buffer": picture() if data is None else data}


def transfer(page: Page, data: bytes, name: str, kind: str):
    """Make what a browser hands over when a file is dropped or pasted."""
    script = """([data, name, type]) => {
        const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type }));
        return transfer;
    }"""
    return page.evaluate_handle(script, [base64.b64encode(data).decode(), name, kind])


def drop(page: Page, data: bytes, name: str = "mine.jpg", kind: str = "image/jpeg") -> None:
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer(page, data, name, kind)})


def paste(page: Page, data: bytes, name: str = "mine.jpg", kind: str = "image/jpeg") -> None:
    event = "clipboardData => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true }))"
    page.evaluate(event, transfer(page, data, name, kind))


def choose(page: Page, data: bytes) -> None:
    page.set_input_files("#file", file(data))


def pick(page: Page, look: str) -> None:
    page.locator("label.card").filter(has=page.locator("strong", has_text=look)).first.click()


def press_create(page: Page) -> str:
    """Press the button and return the path of the page that it leads to."""
    page.get_by_role("button", name="Create").click()
    return arrive(page)


def arrive(page: Page) -> str:
    page.wait_for_url("**/*s/*-*/")
    return "/" + page.url.split("/", 3)[3]


def create(page: Page, url: str, *, sample: str = "Portrait", look: str = "Express Enhance") -> str:
    """Make a picture of a sample, from the first page on."""
    page.goto(url)
    page.get_by_alt_text(sample, exact=True).click()
    pick(page, look)
    return press_create(page)


def expect_result(page: Page) -> None:
    """Wait until both pictures of a run are there and can be seen."""
    comparison = page.locator("img-comparison-slider")
    expect(comparison).to_be_visible()
    for image in comparison.locator("img").all():
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") > 0


def enter(page: Page, email: str, password: str = SIGN_IN) -> None:
    """Sign in on the page that asks for it."""
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()
