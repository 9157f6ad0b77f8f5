"""The stand-in, as the real SDK and requests see it."""

import base64
import hashlib
import io
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import cloudinary
import cloudinary.api
import cloudinary.exceptions
import cloudinary.uploader
import cloudinary.utils
import pytest
import requests
from PIL import Image, ImageChops

from stefna.tests.standin import Upstreams
from stefna.tests.waiting import WAIT_SECONDS, wait_until

FIELDS = {"model": "flux/dev/image-to-image", "prompt": "as an oil painting"}


@pytest.fixture(scope="module")
def process():
    started = Upstreams().start()
    yield started
    started.stop()


@pytest.fixture
def upstreams(process, monkeypatch):
    process.reset()
    for name, value in process.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CLOUDINARY_CLOUD_NAME", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    cloudinary.reset_config()
    yield process
    monkeypatch.undo()
    cloudinary.reset_config()


def picture(colour="teal", size=(120, 80), kind="PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def upload(data=None, **options):
    options = {"public_id": "photos/a", "type": "authenticated", "timeout": 5} | options
    return cloudinary.uploader.upload(data or picture(), **options)


def address(asset, **options):
    options = {name: asset[name] for name in ("type", "version", "format")} | {"sign_url": True} | options
    return cloudinary.utils.cloudinary_url(asset["public_id"], **options)[0]


def generate(upstreams, *, key="standin-aiml-key", headers=None, timeout=WAIT_SECONDS, **fields):
    headers = {"Authorization": f"Bearer {key}"} | (headers or {})
    url = f"{upstreams.url}/v1/images/generations"
    return requests.post(url, json=FIELDS | fields, headers=headers, timeout=timeout, allow_redirects=False)


@pytest.fixture
def instant(upstreams):
    """Generate without a photo: for what is not about photos."""
    upstreams.defaults(instant=True)
    return lambda **options: generate(upstreams, **{"image_url": "https://example.com/a.png"} | options)


def raw(upstreams, text, *, most=100_000):
    """Send bytes and read until the server closes; what was read, and whether it ended with a reset."""
    with socket.create_connection(("127.0.0.1", upstreams.port), timeout=WAIT_SECONDS) as connection:
        connection.sendall(text)
        read = b""
        try:
            while chunk := connection.recv(most):
                read += chunk
        except ConnectionResetError:
            return read, True
        return read, False


# -- Cloudinary


def test_upload_answers_with_facts_of_the_picture(upstreams):
    data = picture(kind="JPEG")
    made = upload(data, tags=["a", "b"], context={"run": "1"}, filename="beach.jpg")
    assert made.pop("request_id")
    assert len(made.pop("asset_id")) == len(made.pop("version_id")) == 32
    assert made.pop("created_at").endswith("Z")
    assert cloudinary.utils.verify_api_response_signature(made["public_id"], made["version"], made.pop("signature"))
    assert made.pop("url") == address(made)
    assert made.pop("secure_url") == address(made).replace("http:", "https:")
    assert abs(made.pop("version") - time.time()) < 60
    assert made == {
        "public_id": "photos/a",
        "width": 120,
        "height": 80,
        "format": "jpg",
        "resource_type": "image",
        "type": "authenticated",
        "tags": ["a", "b"],
        "context": {"custom": {"run": "1"}},
        "bytes": len(data),
        "etag": hashlib.md5(data).hexdigest(),
        "placeholder": False,
        "asset_folder": "",
        "display_name": "a",
        "original_filename": "beach",
        "api_key": "standin-key",
    }
    assert upstreams.stored() == [{"public_id": "photos/a", "type": "authenticated", "bytes": len(data)}]


def test_upload_of_same_id_replaces(upstreams):
    first, second = upload(picture("red")), upload(picture("blue"))
    assert second["asset_id"] == first["asset_id"]
    assert second["version"] > first["version"]
    assert second["overwritten"]
    assert requests.get(address(first), timeout=WAIT_SECONDS).content == picture("blue")
    kept = upload(picture("green"), overwrite=False)
    assert kept["existing"]
    assert kept["etag"] == second["etag"]
    assert len(upstreams.stored()) == 1


def test_upload_without_id_gets_one(upstreams):
    made = upload(public_id=None, type=None)
    assert len(made["public_id"]) == 20
    assert made["url"] == address(made, sign_url=False)
    assert requests.get(made["url"], timeout=WAIT_SECONDS).content == picture()


def test_raw_and_auto_keep_what_is_no_picture(upstreams):
    for kind in ("raw", "auto"):
        made = upload(b"words", resource_type=kind, public_id=f"{kind}.txt")
        assert made["resource_type"] == "raw"
        assert "width" not in made
        assert requests.get(made["url"], timeout=WAIT_SECONDS).content == b"words"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@pytest.mark.parametrize("version", [1, 2])
def test_upload_takes_every_way_to_sign(upstreams, algorithm, version):
    made = upload(context={"a": "salt & pepper"}, signature_algorithm=algorithm, signature_version=version)
    assert made["context"] == {"custom": {"a": "salt & pepper"}}
    assert cloudinary.utils.verify_api_response_signature("photos/a", made["version"], made["signature"], algorithm)


def test_wrong_secret_is_refused_with_what_was_to_be_signed(upstreams):
    with pytest.raises(cloudinary.exceptions.AuthorizationRequired) as refused:
        upload(api_secret="wrong", timestamp=1)
    assert str(refused.value).startswith("Invalid Signature ")
    assert "String to sign - 'public_id=photos/a&timestamp=" in str(refused.value)
    assert upstreams.stored() == []


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (b"not a picture", {}, "BadRequest", "Invalid image file"),
        (io.BytesIO(), {}, "BadRequest", "Empty file"),
        (picture(), {"api_key": "other"}, "AuthorizationRequired", "Unknown API key other"),
        (picture(), {"unsigned": True}, "BadRequest", "Upload preset must be specified when using unsigned upload"),
        ("https://example.com/a.png", {}, "BadRequest", "Unsupported source URL: https://example.com/a.png"),
    ],
)
def test_upload_refused(upstreams, data, options, error, message):
    with pytest.raises(getattr(cloudinary.exceptions, error), match=f"^{message}$"):
        upload(data, **options)


def test_stale_upload_is_refused_and_mirrored_in_a_header(upstreams):
    fields = {"public_id": "a", "timestamp": "1434805181"}
    fields |= {"signature": cloudinary.utils.api_sign_request(fields, "standin-secret"), "api_key": "standin-key"}
    url = cloudinary.utils.cloudinary_api_url()
    answer = requests.post(url, data=fields, files={"file": picture()}, timeout=WAIT_SECONDS)
    message = "Stale request - reported time is 2015-06-20 12:59:41 +0000 which is more than 1 hour ago"
    assert (answer.status_code, answer.headers["X-Cld-Error"]) == (400, message)
    assert answer.json() == {"error": {"message": message}}


@pytest.mark.parametrize("public_id", ["a", "photos/ü ~(1)", "v.1"])
@pytest.mark.parametrize(
    "options",
    [{}, {"long_url_signature": True}, {"signature_algorithm": "sha256"}, {"version": None}, {"format": None}],
)
def test_signed_address_delivers(upstreams, public_id, options):
    data = picture(kind="JPEG")
    url = address(upload(data, public_id=public_id), **options)
    assert url.startswith(f"{upstreams.url}/demo/image/authenticated/s--")
    answer = requests.get(url, timeout=WAIT_SECONDS)
    assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (200, "image/jpeg", data)


def test_delivery_refuses_without_the_right_signature(upstreams):
    made = upload()
    url = address(made)
    signature = url.split("/")[6]
    for bad in (
        url.replace(f"{signature}/", ""),
        url.replace(signature, "s--AAAAAAAA--"),
        address(made, api_secret="wrong"),
        url.replace("photos/a", "photos/b"),
    ):
        assert requests.get(bad, timeout=WAIT_SECONDS).status_code == 401
    for change in ({"public_id": "photos/b"}, {"format": "webp"}, {"type": "private"}):
        assert requests.get(address(made | change), timeout=WAIT_SECONDS).status_code == 404


def test_destroy_says_whether_there_was_something(upstreams):
    made = upload()
    options = {"type": "authenticated", "timeout": 5}
    assert cloudinary.uploader.destroy("photos/a", **options)["result"] == "ok"
    assert cloudinary.uploader.destroy("photos/a", **options)["result"] == "not found"
    assert requests.get(address(made), timeout=WAIT_SECONDS).status_code == 404
    assert upstreams.calls("destroy")[0]["fields"].keys() >= {"public_id", "type", "timestamp", "signature"}


def test_listing_has_pages(upstreams):
    for name in ("b/1", "a/3", "a/1", "a/2"):
        upload(public_id=name)
    upload(public_id="a/4", type="upload")
    options = {"type": "authenticated", "prefix": "a/", "max_results": 2}
    first = cloudinary.api.resources(**options)
    second = cloudinary.api.resources(**options, next_cursor=first["next_cursor"])
    names = [[found["public_id"] for found in page["resources"]] for page in (first, second)]
    assert names == [["a/1", "a/2"], ["a/3"]]
    assert "next_cursor" not in second
    assert first.rate_limit_allowed == 500
    assert {"bytes", "secure_url", "created_at"} < first["resources"][0].keys()


def test_admin_wants_the_secret(upstreams):
    assert cloudinary.api.ping()["status"] == "ok"
    with pytest.raises(cloudinary.exceptions.AuthorizationRequired):
        cloudinary.api.ping(api_secret="wrong")


# -- AIML


def test_generation_changes_the_uploaded_picture(upstreams):
    url = address(upload(picture("navy")))
    answer = generate(upstreams, image_url=url, seed=7, headers={"X-Client-Request-Id": "run-1"})
    assert answer.status_code == 200
    assert answer.json() == {
        "data": [{"url": answer.json()["data"][0]["url"], "b64_json": None}],
        "meta": {"usage": {"credits_used": 63_000}},
    }
    assert answer.headers["x-client-request-id"] == "run-1"
    assert answer.headers["x-aimlapi-credits-used"] == "63000"
    assert answer.headers["x-inference-id"]
    result = requests.get(answer.json()["data"][0]["url"], timeout=WAIT_SECONDS)
    assert result.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(result.content)) as image, Image.open(io.BytesIO(picture("navy"))) as photo:
        assert (image.format, image.size) == ("PNG", photo.size)
        assert ImageChops.difference(image, photo).getbbox()
    assert upstreams.calls("aiml")[0]["fields"] == FIELDS | {"image_url": url, "seed": 7}


def test_photo_is_fetched_and_its_picture_made_once(upstreams):
    url = address(upload())
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: generate(upstreams, image_url=url), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["data"][0]["url"] for answer in answers}) == 20
    assert upstreams.counts()["delivery"]["calls"] == 1
    assert upstreams.counts()["aiml"]["calls"] == 20


def test_photo_that_cannot_be_fetched_is_refused(upstreams):
    good = address(upload())
    for bad in (good.replace("/s--", "/s--x"), good.replace("photos/a", "photos/b"), "https://example.com/a.png"):
        answer = generate(upstreams, image_url=bad)
        assert (answer.status_code, answer.json()["message"]) == (400, "Failed to download the file at image_url")
    upstreams.script("delivery", {"body": "no picture"})
    assert generate(upstreams, image_url=good).status_code == 400
    assert generate(upstreams, image_url=good).status_code == 200


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"prompt": None}, 'Expected string, received null at "prompt"'),
        ({"prompt": "x" * 4001}, 'String must contain at most 4000 character(s) at "prompt"'),
        ({"image_url": "a.png"}, 'Invalid url at "image_url"'),
        ({"image_url": ["https://a"]}, 'Expected string, received array at "image_url"'),
        ({"model": "x"}, "Invalid enum value. Expected 'flux/dev/image-to-image', received 'x' at \"model\""),
        ({"strength": "2"}, 'Expected number, received string at "strength"'),
        ({"strength": 1.1}, 'Number must be less than or equal to 1 at "strength"'),
        ({"seed": 0}, 'Number must be greater than or equal to 1 at "seed"'),
        ({"seed": 1.5}, 'Expected integer, received float at "seed"'),
        ({"num_images": 5}, 'Number must be less than or equal to 4 at "num_images"'),
        ({"num_inference_steps": 9}, 'Number must be greater than or equal to 10 at "num_inference_steps"'),
        ({"guidance_scale": True}, 'Expected number, received boolean at "guidance_scale"'),
        ({"enable_safety_checker": 1}, 'Expected boolean, received number at "enable_safety_checker"'),
    ],
)
def test_request_that_is_not_as_documented_is_refused(instant, fields, complaint):
    answer = instant(**fields)
    assert answer.status_code == 400
    assert answer.json()["message"] == f"Body validation error\n{complaint}"
    assert answer.json().keys() == {"message", "path", "requestId", "statusCode", "timestamp"}


def test_missing_and_unknown_fields(upstreams, instant):
    url = f"{upstreams.url}/v1/images/generations"
    headers = {"Authorization": "Bearer x"}
    answer = requests.post(url, json={"model": FIELDS["model"]}, headers=headers, timeout=WAIT_SECONDS)
    assert answer.json()["message"] == 'Body validation error\nRequired at "prompt"\nRequired at "image_url"'
    assert requests.post(url, data=b"{", headers=headers, timeout=WAIT_SECONDS).status_code == 400
    assert instant(negative_prompt="blur").status_code == 200
    assert upstreams.calls("aiml")[-1]["fields"]["negative_prompt"] == "blur"
    assert requests.post(f"{upstreams.url}/v2/images", json={}, timeout=WAIT_SECONDS).status_code == 404


def test_keys(instant):
    assert instant(key="bad-key").json()["statusCode"] == 401
    assert instant(key="broke-key").json()["title"] == "Forbidden"
    assert instant(key="").status_code == 401


@pytest.mark.parametrize(
    ("shape", "keys"),
    [
        ("openapi", {"data", "meta"}),
        ("fal", {"images", "timings", "seed", "has_nsfw_concepts", "prompt"}),
        ("both", {"images", "timings", "seed", "has_nsfw_concepts", "prompt", "data", "meta"}),
        ("nsfw", {"images", "timings", "seed", "has_nsfw_concepts", "prompt"}),
        ("black", {"data", "meta"}),
        ("b64", {"data", "meta"}),
        ("empty", {"data", "meta"}),
        ("null", {"data", "meta"}),
    ],
)
def test_shapes(upstreams, instant, shape, keys):
    upstreams.script("aiml", {"shape": shape, "status": 201})
    answer = instant(num_images=2)
    body = answer.json()
    assert (answer.status_code, body.keys()) == (201, keys)
    items = body.get("images", body.get("data"))
    assert len(items) == (0 if shape == "empty" else 2)
    assert body.get("has_nsfw_concepts", [False, False]) == [shape == "nsfw"] * 2
    if shape in ("empty", "null"):
        return
    inline = items[0].get("b64_json")
    data = base64.b64decode(inline) if inline else requests.get(items[0]["url"], timeout=WAIT_SECONDS).content
    with Image.open(io.BytesIO(data)) as image:
        assert (image.convert("L").getextrema()[1] == 0) == (shape in ("black", "nsfw"))


def test_answers_that_are_no_json(upstreams, instant):
    upstreams.script("aiml", {"shape": "broken"}, {"shape": "html", "status": 502})
    broken, page = instant(), instant()
    assert broken.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        broken.json()
    assert (page.status_code, page.headers["Content-Type"]) == (502, "text/html; charset=utf-8")


# -- What goes wrong


def test_script_is_used_up_step_by_step(upstreams, instant):
    upstreams.script("aiml", {"status": 500}, {"status": 429, "headers": {"Retry-After": "7"}}, {"json": {"a": 1}})
    answers = [instant() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [500, 429, 200, 200]
    assert answers[1].headers["Retry-After"] == "7"
    assert answers[1].json()["message"] == "Too Many Requests"
    assert answers[2].json() == {"a": 1}
    upstreams.script("aiml", {"status": 500}, {"status": 503}, repeat_last=True)
    assert [instant().status_code for _ in range(4)] == [500, 503, 503, 503]
    upstreams.script("aiml")
    assert instant().status_code == 200


def test_outage_lasts_until_it_ends_and_uses_no_steps(upstreams, instant):
    upstreams.script("aiml", {"status": 418, "body": "tea"})
    upstreams.down("aiml", 503)
    assert [instant().status_code for _ in range(2)] == [503, 503]
    upstreams.down("aiml", None)
    assert [instant().status_code for _ in range(2)] == [418, 200]
    upstreams.down("upload", 500)
    with pytest.raises(cloudinary.exceptions.GeneralError):
        upload()
    upstreams.down("upload", 502)
    with pytest.raises(cloudinary.exceptions.Error, match=r"^Error parsing server response"):
        upload()
    upstreams.down("admin", 429)
    with pytest.raises(cloudinary.exceptions.RateLimited, match="Limit of 500 api operations reached"):
        cloudinary.api.ping()


def test_lost_answer_has_had_its_effect(upstreams):
    upstreams.script("upload", {"close": True}, {"reset": True})
    for _ in range(2):
        with pytest.raises(cloudinary.exceptions.Error, match=r"^Unexpected error"):
            upload()
    assert len(upstreams.stored()) == 1
    assert upload()["overwritten"]


def test_hang_lasts_until_the_client_goes(upstreams, instant):
    upstreams.script("aiml", {"hang": True})
    with pytest.raises(requests.ReadTimeout):
        instant(timeout=0.2)
    wait_until(lambda: upstreams.calls("aiml")[0]["ended"])
    call = upstreams.calls("aiml")[0]
    assert call["ended"] - call["at"] > 0.15
    assert upstreams.counts()["aiml"] == {"calls": 1, "in_flight": 0, "most_in_flight": 1}


def test_delay_and_drip(upstreams, instant):
    upstreams.script("aiml", {"delay": 0.3}, {"json": {"a": 1}, "drip_body": 0.03}, {"json": {}, "drip": 0.002})
    for least in (0.3, 0.24, 0.14):
        started = time.monotonic()
        assert instant().status_code == 200
        assert time.monotonic() - started > least
    upstreams.script("aiml", {"drip": 0.1})
    with pytest.raises(requests.ReadTimeout):
        instant(timeout=0.05)


def test_cut_short_close_and_reset(upstreams):
    ask = b"GET /results/a.png HTTP/1.1\r\nHost: a\r\n\r\n"
    steps = [{"cut": 40}, {"short": True}, {"close": True}, {"reset": True}, {"cut": 20, "reset": True}]
    upstreams.script("result", *({"body": "x" * 50} | step for step in steps))
    cut, short, closed, reset, both = (raw(upstreams, ask) for _ in steps)
    assert cut == (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\ncon", False)
    assert b"content-length: 1050\r\n" in short[0]
    assert short[0].endswith(b"\r\n\r\n" + b"x" * 50)
    assert closed == (b"", False)
    assert reset == (b"", True)
    assert both[1]


def test_short_answer_is_an_error_to_requests(upstreams, instant):
    upstreams.script("aiml", {"short": True}, {"reset": True}, {"close": True})
    for error in (requests.exceptions.ChunkedEncodingError, requests.ConnectionError, requests.ConnectionError):
        with pytest.raises(error):
            instant()


def test_results_elsewhere_and_odd(upstreams, instant):
    upstreams.script("aiml", {"result_url": "http://169.254.169.254/a.png"}, {"redirect": "http://localhost/"}, {})
    assert instant().json()["data"][0]["url"] == "http://169.254.169.254/a.png"
    moved = instant()
    assert (moved.status_code, moved.headers["Location"]) == (302, "http://localhost/")
    url = instant().json()["data"][0]["url"]
    upstreams.script("result", {"result_bytes": "not-an-image"}, {"result_bytes": "huge"}, {"status": 404})
    odd, huge, missing, good = (requests.get(url, timeout=WAIT_SECONDS) for _ in range(4))
    assert odd.content == b"This is not a picture.\n"
    assert len(huge.content) > 40_000_000
    assert huge.content.startswith(b"\x89PNG")
    assert missing.status_code == 404
    assert Image.open(io.BytesIO(good.content)).size == (256, 256)


# -- The process


def test_counts_calls_in_flight(upstreams, instant):
    upstreams.defaults(aiml_delay=2)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(instant) for _ in range(20)]
        wait_until(lambda: upstreams.counts()["aiml"]["most_in_flight"] == 20)
        assert {call.result().status_code for call in waiting} == {200}
    assert upstreams.counts()["aiml"] == {"calls": 20, "in_flight": 0, "most_in_flight": 20}
    upstreams.reset()
    assert upstreams.counts()["aiml"] == {"calls": 0, "in_flight": 0, "most_in_flight": 0}


def test_connection_is_kept_unless_the_client_says_close(upstreams):
    ask = b"GET /_control/counts HTTP/1.1\r\nHost: a\r\n%s\r\n"
    read, _ = raw(upstreams, ask % b"" + ask % b"Connection: close\r\n")
    assert read.count(b"HTTP/1.1 200 OK") == 2
    assert read.count(b"connection: close") == 1


def test_upload_of_40_megabytes(upstreams):
    assert upload(bytes(40_000_000), resource_type="raw")["bytes"] == 40_000_000


@pytest.mark.parametrize(
    ("target", "step"),
    [("aim", {}), ("aiml", {"stauts": 500}), ("aiml", {"shape": "round"}), ("result", {"result_bytes": "odd"})],
)
def test_misspelt_script_is_refused(upstreams, target, step):
    with pytest.raises(ValueError, match="no such"):
        upstreams.script(target, step)


def test_process_ends_with_its_standard_input():
    started = Upstreams().start()
    started.process.stdin.close()
    started.process.stdin = None
    assert started.process.wait(timeout=WAIT_SECONDS) == 0
    started.stop()
