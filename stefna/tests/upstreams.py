"""Cloudinary and the AIML API in one process on loopback: they say what the real ones say, or fail as a test wishes.

`python -m stefna.tests.upstreams [--port 0]` prints {"port": N} when it is ready and ends when its standard input does.
Tests and benchmarks drive it with `standin.Upstreams`. What a call does is a step (see STEP). A step with `status` from
400 on, `body`, `json` or `redirect` answers instead of the service. With any other the service does its work first and
is disturbed in answering (`delay`, `drip`, `cut`, `reset`, ...), so that a lost answer has had its effect.
"""

import argparse
import asyncio
import base64
import hashlib
import http.client
import io
import json
import math
import os
import random
import re
import resource
import socket
import string
import struct
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from PIL import Image

API_KEY, API_SECRET = "standin-key", "standin-secret"
MODEL = "flux/dev/image-to-image"
CREDITS_PER_MEGAPIXEL = 63_000
MAX_BODY = 41_000_000  # a file of 40 MB and the form around it
PAGE = "<!DOCTYPE html><html><head><title>502: Bad gateway</title></head><body>cloudflare</body></html>"

# Pictures are made one at a time: what is measured beside this process needs the other processor.
MAKER = ThreadPoolExecutor(1)

Step = dict[str, Any]
STEP = {
    # What is answered.
    "status", "headers", "body", "json", "redirect", "shape", "result_url", "result_bytes",
    # How: seconds before it, seconds between two bytes of all of it or of its body, bytes until the connection ends.
    "delay", "drip", "drip_body", "cut", "short", "close", "reset", "hang",
}  # fmt: skip
CHOICES = {
    "shape": ["openapi", "fal", "both", "black", "nsfw", "b64", "empty", "null", "html", "broken"],
    "result_bytes": ["not-an-image", "huge"],
}
BROKEN_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class Refused(Exception):
    """The service says no; without a message it says what it usually says with this status."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"content-type": "application/json"} | (headers or {}))


def as_page(status: int, text: str = PAGE) -> Answer:
    return Answer(status, text.encode(), {"content-type": "text/html; charset=utf-8"})


def phrase(status: int) -> str:
    return http.client.responses.get(status, "Unknown")


# -- The wire ---------------------------------------------------------------------------------------------------


@dataclass
class Request:
    """What was asked. `fields` is what came as query, JSON or form; None for broken JSON."""

    method: str
    path: str  # as sent: its escapes are signed
    headers: dict[str, str]
    fields: Any
    file: tuple[str, bytes] | None


class Wire:
    """One connection, which can lie."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self) -> Request | None:
        """Read the next request; None when there is none."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        pairs = (header.partition(":") for header in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0))
        if length > MAX_BODY or "transfer-encoding" in headers:
            raise ValueError(f"the stand-in reads bodies of up to {MAX_BODY} bytes, with their length")
        body = await self.reader.readexactly(length)
        path, _, query = target.partition("?")
        kind = headers.get("content-type", "")
        fields: Any = dict(parse_qsl(query))
        file = None
        if kind.startswith("multipart/form-data"):
            fields, file = parse_form(kind, body)
        elif method == "POST":
            try:
                fields = json.loads(body)
            except ValueError:
                fields = None
        return Request(method, path, headers, fields, file)

    async def send(self, answer: Answer, step: Step, *, close: bool = False) -> bool:
        """Answer as `step` says; False when the connection is to be closed now."""
        if await self.is_gone_within(step.get("delay", 0)) or (step.get("hang") and await self.is_gone_within(None)):
            return False
        length = len(answer.body) + (1000 if step.get("short") else 0)
        headers = {"content-length": length} | answer.headers | ({"connection": "close"} if close else {})
        lines = [
            f"HTTP/1.1 {answer.status} {phrase(answer.status)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        is_silent = step.get("close") or step.get("reset")
        end = step.get("cut", 0 if is_silent else len(head) + len(answer.body))
        pace: float = step.get("drip", 0)
        # In one piece where it may be: a second small packet would wait 40 ms for the client to confirm the first.
        parts = [((head + answer.body)[:end], pace)]
        if "drip_body" in step:
            parts = [(head[:end], pace), (answer.body[: max(0, end - len(head))], step["drip_body"])]
        for data, seconds in parts:
            if not await self._write(data, seconds):
                return False
        if step.get("reset"):
            no_linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
            self.writer.transport.abort()
        return not (close or is_silent or "cut" in step or step.get("short"))

    async def is_gone_within(self, seconds: float | None) -> bool:
        """Wait, for ever with None; True as soon as the client closes, for it has nothing to say before the answer."""
        if seconds == 0:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return False
        return True

    async def _write(self, data: bytes, seconds: float) -> bool:
        """Write at once, or a byte every `seconds`; False when the client is gone."""
        size = 1 if seconds else max(1, len(data))
        for start in range(0, len(data), size):
            if await self.is_gone_within(seconds):
                return False
            self.writer.write(data[start : start + size])
            await self.writer.drain()
        return True


def parse_form(kind: str, body: bytes) -> tuple[dict[str, str], tuple[str, bytes] | None]:
    """Read multipart/form-data: its fields (a list joined by commas, as it is signed) and its file (name and bytes)."""
    boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    values: dict[str, list[str]] = {}
    file = None
    for part in body.split(boundary)[1:-1]:
        head, _, content = part[2:-2].partition(b"\r\n\r\n")
        names = dict(re.findall(r'\b(name|filename)="([^"]*)"', head.decode()))
        if names["name"] == "file":
            file = names.get("filename", ""), content
        else:
            values.setdefault(names["name"].removesuffix("[]"), []).append(content.decode())
    return {name: ",".join(found) for name, found in values.items()}, file


# -- Cloudinary -------------------------------------------------------------------------------------------------


@dataclass
class Asset:
    data: bytes
    facts: dict[str, Any]


class Cloudinary:
    """An account: uploading, listing, deleting and delivery. Every cloud name leads to it."""

    unsigned = {"file", "cloud_name", "resource_type", "api_key", "signature"}
    messages = {
        401: "Invalid Signature 0123456789. String to sign - 'public_id=secret&timestamp=1700000000'.",
        420: "Rate Limit Exceeded. Limit of 500 api operations reached. Try again on 2030-01-01 00:00:00 UTC",
        499: "Request Timeout",
    }
    messages[429] = messages[420]
    listed = ["asset_id", "public_id", "format", "version", "resource_type", "type", "created_at", "bytes", "width"]
    listed += ["height", "asset_folder", "display_name", "url", "secure_url"]

    def __init__(self, host: str) -> None:
        self.host = host
        self.assets: dict[tuple[str, str], Asset] = {}
        self.parts: dict[str, bytes] = {}

    def refuse(self, status: int, message: str, request: Request) -> Answer:
        if status in (413, 502, 504):
            return as_page(status)
        message = message or self.messages.get(status) or phrase(status)
        # A header has one line; what was sent may have more.
        headers = {"x-request-id": uuid.uuid4().hex, "x-cld-error": " ".join(message.split())}
        return as_json({"error": {"message": message}}, status, headers)

    async def upload(self, request: Request, step: Step, cloud: str, resource_type: str) -> Answer:
        fields, now = request.fields, datetime.now(UTC)
        digest = self._check_signature(fields)
        if request.file is None:
            raise Refused(400, "Missing required parameter - file")
        name, data = request.file
        if part := request.headers.get("content-range"):
            upload_id, (start, end, size) = request.headers["x-unique-upload-id"], re.findall(r"\d+", part)
            data = self.parts.pop(upload_id, b"") + data
            if len(data) != int(end) + 1:
                raise Refused(400, f"Parts of another order: {start}")
            if len(data) < int(size):
                self.parts[upload_id] = data
                return self._answer({"done": False, "public_id": fields["public_id"], "bytes": len(data)})
        if not name:
            raise Refused(400, f"Unsupported source URL: {data[:100].decode(errors='replace')}")
        if not data:
            raise Refused(400, "Empty file")
        public_id = fields.get("public_id") or "".join(random.choices(string.ascii_lowercase + string.digits, k=20))
        kind = fields.get("type") or "upload"
        old = self.assets.get((kind, public_id))
        if old and fields.get("overwrite") in ("0", "false"):
            return self._answer(old.facts | {"existing": True})
        measures = picture_facts(data) if resource_type != "raw" else {}
        if not measures and resource_type == "image":
            raise Refused(400, "Invalid image file")
        # A replaced picture has an address of its own even within one second.
        version = max(int(now.timestamp()), old.facts["version"] + 1 if old else 0)
        tags, context = fields.get("tags"), fields.get("context")
        facts = {
            "asset_id": old.facts["asset_id"] if old else uuid.uuid4().hex,
            "public_id": public_id,
            "version": version,
            "version_id": uuid.uuid4().hex,
            "signature": digest(f"public_id={public_id}&version={version}{API_SECRET}".encode()).hexdigest(),
            **measures,
            "resource_type": "image" if measures else "raw",
            "created_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tags": tags.split(",") if tags else [],
            "bytes": len(data),
            "type": kind,
            "etag": hashlib.md5(data).hexdigest(),
            "placeholder": False,
            "asset_folder": "",
            "display_name": public_id.rpartition("/")[2],
            **({"context": {"custom": dict(pair.split("=", 1) for pair in context.split("|"))}} if context else {}),
            **({"overwritten": True} if old else {}),
            "original_filename": name.rpartition(".")[0] or name,
            "api_key": API_KEY,
        }
        file = escaped(public_id) + (f".{measures['format']}" if measures else "")
        signature = f"s--{url_signatures(file)[0]}--/" if kind != "upload" else ""
        address = f"://{self.host}/{cloud}/{facts['resource_type']}/{kind}/{signature}v{version}/{file}"
        facts |= {"url": "http" + address, "secure_url": "https" + address}
        self.assets[kind, public_id] = Asset(data, facts)
        return self._answer(facts)

    async def destroy(self, request: Request, step: Step, cloud: str, resource_type: str) -> Answer:
        self._check_signature(request.fields)
        key = request.fields.get("type") or "upload", request.fields.get("public_id", "")
        return self._answer({"result": "ok" if self.assets.pop(key, None) else "not found"})

    async def download(self, request: Request, step: Step, cloud: str, resource_type: str) -> Answer:
        """Send a private file to whoever has a signed address, until it expires."""
        self._check_signature(request.fields)
        if int(request.fields["expires_at"]) < time.time():
            raise Refused(401, "Expired")
        asset = self.assets.get((request.fields["type"], request.fields["public_id"]))
        if asset is None or asset.facts["resource_type"] != resource_type:
            raise Refused(404, "Resource not found")
        return Answer(200, asset.data, {"content-type": "application/octet-stream"})

    async def ping(self, request: Request, step: Step, cloud: str) -> Answer:
        self._check_password(request)
        return self._answer({"status": "ok"})

    async def resources(self, request: Request, step: Step, cloud: str, resource_type: str, kind: str) -> Answer:
        """List by public id, a page at a time; the cursor is the last id of the page before."""
        self._check_password(request)
        prefix, cursor = request.fields.get("prefix", ""), request.fields.get("next_cursor", "")
        most = int(request.fields.get("max_results", 10))
        found = [
            {name: asset.facts[name] for name in self.listed if name in asset.facts}
            for (its_kind, public_id), asset in sorted(self.assets.items())
            if its_kind == kind and public_id.startswith(prefix) and public_id > cursor
            if asset.facts["resource_type"] == resource_type
        ]
        more = {"next_cursor": found[most - 1]["public_id"]} if len(found) > most else {}
        return self._answer({"resources": found[:most], **more})

    async def deliver(
        self, request: Request, step: Step, cloud: str, resource_type: str, kind: str, signature: str | None, file: str
    ) -> Answer:
        file = unquote(file)
        if (kind != "upload" or signature) and signature not in url_signatures(escaped(file)):
            raise Refused(401, f"Invalid signature for {file}")
        public_id, _, extension = file.rpartition(".")
        whole, asset = self.assets.get((kind, file)), self.assets.get((kind, public_id))
        if asset and asset.facts.get("format") != extension.replace("jpeg", "jpg"):
            asset = None  # the real one would convert it
        if (asset := whole or asset) is None:
            raise Refused(404, f"Resource not found - {file}")
        name = asset.facts.get("format", "").replace("jpg", "jpeg")
        return Answer(200, asset.data, {"content-type": f"image/{name}" if name else "application/octet-stream"})

    def _answer(self, value: dict[str, Any]) -> Answer:
        limits = {"limit": "500", "remaining": "499", "reset": "Tue, 01 Jan 2030 00:00:00 GMT"}
        headers = {f"x-featureratelimit-{name}": value for name, value in limits.items()}
        return as_json(value, headers={"x-request-id": uuid.uuid4().hex} | headers)

    def _check_signature(self, fields: dict[str, str]) -> Callable[[bytes], Any]:
        """Find out which hash a form is signed with. Raises Refused."""
        given, key, timestamp = (fields.get(name, "") for name in ("signature", "api_key", "timestamp"))
        if not given:
            raise Refused(400, "Upload preset must be specified when using unsigned upload")
        if key != API_KEY:
            raise Refused(401, f"Unknown API key {key}")
        pairs = [f"{name}={value}" for name, value in fields.items() if value and name not in self.unsigned]
        first = "&".join(sorted(pairs))
        second = "&".join(sorted(pair.replace("&", "%26") for pair in pairs))
        digest = hashlib.sha256 if len(given) == 64 else hashlib.sha1
        if given not in [digest((to_sign + API_SECRET).encode()).hexdigest() for to_sign in (first, second)]:
            raise Refused(401, f"Invalid Signature {given}. String to sign - '{second}'.")
        if not timestamp.isdigit():
            raise Refused(400, "Missing required parameter - timestamp")
        if time.time() - int(timestamp) > 3600:
            reported = datetime.fromtimestamp(int(timestamp), UTC)
            raise Refused(400, f"Stale request - reported time is {reported:%F %T} +0000 which is more than 1 hour ago")
        return digest

    def _check_password(self, request: Request) -> None:
        wanted = "Basic " + base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
        if request.headers.get("authorization") != wanted:
            raise Refused(401, "Invalid credentials")


def escaped(name: str) -> str:
    """Escape a name as the SDK does before it signs; on the way a client may have unescaped what need not be."""
    return quote(name, safe="/:").replace("~", "%7E")


def url_signatures(to_sign: str) -> list[str]:
    """Sign a delivery address in each way that is accepted: SHA-1 and SHA-256, 8 long, and SHA-256, 32 long."""
    signed = (to_sign + API_SECRET).encode()
    sha1, sha256 = (base64.urlsafe_b64encode(make(signed).digest()).decode() for make in (hashlib.sha1, hashlib.sha256))
    return [sha1[:8], sha256[:8], sha256[:32]]


def picture_facts(data: bytes) -> dict[str, Any]:
    """Measure a picture; nothing for what is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            name = str(image.format).lower().replace("jpeg", "jpg")
            return {"width": image.width, "height": image.height, "format": name}
    except BROKEN_PICTURE:
        return {}


# -- AIML -------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    data: bytes
    width: int
    height: int


class Aiml:
    """The image endpoint of the AIML API, and the host of what it makes."""

    # Type, least and most. AIML leaves strength open and lets steps below 10 pass; the model behind it does not.
    schema: dict[str, tuple[str, float, float]] = {
        "model": ("string", 0, math.inf),
        "prompt": ("string", 0, 4000),
        "image_url": ("string", 0, math.inf),
        "strength": ("number", 0.01, 1),
        "num_images": ("number", 1, 4),
        "seed": ("integer", 1, math.inf),
        "guidance_scale": ("number", 1, 20),
        "num_inference_steps": ("integer", 10, 50),
        "enable_safety_checker": ("boolean", 0, math.inf),
    }
    required = ("model", "prompt", "image_url")
    messages = {
        401: "This request requires a valid API key. You can create a new API key on the Billing page: "
        "https://aimlapi.com/app/keys",
        403: "You've run out of funds. Please top up your balance or update your payment method to continue.",
        429: "Too Many Requests",
        500: "Something went wrong with the server. Please try again later.",
        503: "Service unavailable",
        504: "Generation timeout",
    }

    def __init__(self, host: str, defaults: dict[str, Any]) -> None:
        self.host, self.defaults = host, defaults
        self.made: dict[str, asyncio.Task[Made]] = {}
        self.results: dict[str, bytes] = {}

    def refuse(self, status: int, message: str, request: Request) -> Answer:
        message = message or self.messages.get(status) or phrase(status)
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {"message": message, "path": request.path, "requestId": uuid.uuid4().hex, "statusCode": status}
        # Two envelopes are in use, and have only the message in common.
        funds = {"title": "Forbidden", "status": status, "message": message}
        return as_json(funds if status == 403 else body | {"timestamp": at}, status, self._headers(request))

    async def generate(self, request: Request, step: Step) -> Answer:
        fields, shape = request.fields, step.get("shape", "openapi")
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or key in ("", "bad-key"):
            raise Refused(401)
        if key == "broke-key":
            raise Refused(403)
        if complaints := self._complaints(fields):
            raise Refused(400, "\n".join(["Body validation error", *complaints]))
        made = fixed_picture() if self.defaults["instant"] else await self._picture(fields["image_url"])
        if shape in ("black", "nsfw"):
            made = black_picture(made.width, made.height)
        if "result_bytes" in step:
            made = made._replace(data=odd_bytes(step["result_bytes"]))
        count = int(fields.get("num_images", 1))
        paid = CREDITS_PER_MEGAPIXEL * math.ceil(made.width * made.height / 1_000_000) * count
        headers = self._headers(request) | {"x-aimlapi-credits-used": str(paid)}
        names = [str(uuid.uuid4()) for _ in range(count)]
        self.results |= dict.fromkeys(names, made.data)
        urls = [step.get("result_url", f"http://{self.host}/results/{name}.png") for name in names]
        meta = {"meta": {"usage": {"credits_used": paid}}}
        data = {"data": [{"url": url, "b64_json": None} for url in urls]}
        measures = {"width": made.width, "height": made.height, "content_type": "image/png"}
        fal = {
            "images": [{"url": url, **measures} for url in urls],
            "timings": {"inference": 4.44},
            "seed": fields.get("seed", random.randint(1, 2**31)),
            "has_nsfw_concepts": [shape == "nsfw"] * count,
            "prompt": fields["prompt"],
        }
        match shape:
            case "fal" | "nsfw":
                return as_json(fal, headers=headers)
            case "both":
                return as_json(fal | {"data": fal["images"]} | meta, headers=headers)
            case "b64":
                inline = base64.b64encode(made.data).decode()
                return as_json({"data": [{"url": None, "b64_json": inline}] * count} | meta, headers=headers)
            case "empty":
                return as_json({"data": []} | meta, headers=headers)
            case "null":
                return as_json({"data": [{"url": None, "b64_json": None}] * count, "meta": None}, headers=headers)
            case "html":
                return as_page(200)
        answer = as_json(data | meta, headers=headers)
        if shape == "broken":
            answer.body = answer.body[:-20]
        return answer

    async def result(self, request: Request, step: Step, name: str) -> Answer:
        if name not in self.results:
            raise Refused(404, "Not Found")
        data = odd_bytes(step["result_bytes"]) if "result_bytes" in step else self.results[name]
        return Answer(200, data, {"content-type": "image/png"})

    def _headers(self, request: Request) -> dict[str, str]:
        ours, theirs = {"x-inference-id": str(uuid.uuid4())}, request.headers.get("x-client-request-id", "")
        is_good = re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", theirs)
        return ours | ({"x-client-request-id": theirs} if is_good else {})

    def _complaints(self, fields: Any) -> list[str]:
        """Check a request as zod does, which takes no "2" for a number and no null for a field left out."""
        if not isinstance(fields, dict):
            return [f"Expected object, received {json_type(fields)}"]
        found = [f'Required at "{name}"' for name in self.required if name not in fields]
        for name, (wanted, least, most) in self.schema.items():
            if name not in fields:
                continue
            value, kind = fields[name], json_type(fields[name])
            if kind != wanted.replace("integer", "number"):
                found.append(f'Expected {wanted}, received {kind} at "{name}"')
            elif wanted == "integer" and not float(value).is_integer():
                found.append(f'Expected integer, received float at "{name}"')
            elif kind == "string" and len(value) > most:
                found.append(f'String must contain at most {most} character(s) at "{name}"')
            elif kind == "number" and value > most:
                found.append(f'Number must be less than or equal to {most} at "{name}"')
            elif kind == "number" and value < least:
                found.append(f'Number must be greater than or equal to {least} at "{name}"')
        if isinstance(model := fields.get("model"), str) and model != MODEL:
            found.append(f"Invalid enum value. Expected '{MODEL}', received '{model}' at \"model\"")
        if isinstance(url := fields.get("image_url"), str) and not re.match(r"\w+://\S+$", url):
            found.append('Invalid url at "image_url"')
        return found

    async def _picture(self, url: str) -> Made:
        """Make the picture of the photo at `url`, once for all calls. Raises Refused."""
        if url not in self.made:
            self.made[url] = asyncio.create_task(self._make(url))
        try:
            return await self.made[url]
        except Refused:
            self.made.pop(url, None)
            raise

    async def _make(self, url: str) -> Made:
        photo = await self._photo(url)
        try:
            return await asyncio.get_running_loop().run_in_executor(MAKER, changed_picture, photo)
        except BROKEN_PICTURE as error:
            raise Refused(400, "image_url is not a picture") from error

    async def _photo(self, url: str) -> bytes:
        """Download a photo over the network, as the service does, but from this server only. Raises Refused."""
        parts = urlsplit(url)
        refused = Refused(400, "Failed to download the file at image_url")
        if (parts.scheme, parts.netloc) != ("http", self.host):
            raise refused
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(*self.host.split(":"))
                writer.write(f"GET {parts.path} HTTP/1.1\r\nhost: {self.host}\r\nconnection: close\r\n\r\n".encode())
                head, _, data = (await reader.read()).partition(b"\r\n\r\n")
                writer.close()
        except OSError as error:
            raise refused from error
        if not head.startswith(b"HTTP/1.1 200 "):
            raise refused
        return data


def json_type(value: Any) -> str:
    names = {bool: "boolean", str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def changed_picture(photo: bytes) -> Made:
    """Invert a photo, and never to black: black is what the safety filter makes."""
    with Image.open(io.BytesIO(photo)) as image:
        changed = image.convert("RGB").point([255 - level * 3 // 4 for level in range(256)] * 3)
    return as_png(changed)


def as_png(image: Image.Image) -> Made:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return Made(out.getvalue(), *image.size)


@cache
def fixed_picture() -> Made:
    return as_png(Image.linear_gradient("L").convert("RGB"))


@cache
def black_picture(width: int, height: int) -> Made:
    return as_png(Image.new("RGB", (width, height)))


@cache
def odd_bytes(kind: str) -> bytes:
    """Not a picture, or one that goes on far beyond what anybody should read."""
    return {"not-an-image": b"This is not a picture.\n", "huge": fixed_picture().data + bytes(40_000_000)}[kind]


# -- The server -------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """One kind of call: what it does next, and who called."""

    steps: list[Step] = field(default_factory=list)
    repeat_last: bool = False
    down: int | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def next_step(self) -> Step:
        if self.down:
            return {"status": self.down, "delay": 0}
        if self.repeat_last and len(self.steps) == 1:
            return self.steps[0]
        return self.steps.pop(0) if self.steps else {}

    def counts(self) -> dict[str, int]:
        return {"calls": len(self.calls), "in_flight": self.in_flight, "most_in_flight": self.most_in_flight}

    @contextmanager
    def call(self, request: Request) -> Iterator[None]:
        record: dict[str, Any] = {"at": time.monotonic(), "ended": None}
        record |= {"path": request.path, "headers": request.headers, "fields": request.fields}
        if request.file:
            record["file"] = {"name": request.file[0], "bytes": len(request.file[1])}
        self.calls.append(record)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1
            record["ended"] = time.monotonic()


class Route(NamedTuple):
    method: str
    path: str
    target: str | None  # None: not a service; no script, no count
    work: Callable[..., Awaitable[Answer]]
    refuse: Callable[[int, str, Request], Answer]


class Server:
    def __init__(self, host: str) -> None:
        self.host = host
        self.reset()

    def reset(self) -> None:
        self.defaults: dict[str, Any] = {"instant": False}
        self.cloudinary = cloudinary = Cloudinary(self.host)
        self.aiml = aiml = Aiml(self.host, self.defaults)
        account, kinds = "/v1_1/([^/]+)", "(image|raw|auto)"
        delivery = rf"/([^/]+)/{kinds}/(upload|private|authenticated)/(?:s--([\w-]+)--/)?(?:v\d+/)?(.+)"
        self.routes = [
            Route("POST", "/v1/images/generations", "aiml", aiml.generate, aiml.refuse),
            Route("GET", r"/results/(.+)\.png", "result", aiml.result, self.refuse),
            Route("POST", f"{account}/{kinds}/upload", "upload", cloudinary.upload, cloudinary.refuse),
            Route("GET", f"{account}/{kinds}/download", "delivery", cloudinary.download, cloudinary.refuse),
            Route("POST", f"{account}/{kinds}/destroy", "destroy", cloudinary.destroy, cloudinary.refuse),
            Route("GET", f"{account}/ping", "admin", cloudinary.ping, cloudinary.refuse),
            Route("GET", rf"{account}/resources/{kinds}/(\w+)", "admin", cloudinary.resources, cloudinary.refuse),
            Route("GET", "/_control/(calls|counts|stored)", None, self.report, self.refuse),
            Route("POST", "/_control/(script|defaults|down|reset)", None, self.control, self.refuse),
            Route("GET", delivery, "delivery", cloudinary.deliver, cloudinary.refuse),
        ]
        self.targets = {route.target: Target() for route in self.routes if route.target}
        self.defaults |= {f"{name}_delay": 0.0 for name in self.targets}

    def refuse(self, status: int, message: str, request: Request) -> Answer:
        # As either service would say it: the SDK takes what has no `error` for a success.
        message = message or phrase(status)
        return as_json({"message": message, "error": {"message": message}}, status)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        try:
            while (request := await wire.read()) and await self._exchange(wire, request):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    async def _exchange(self, wire: Wire, request: Request) -> bool:
        """Answer one request; False when it was the last of its connection."""
        close = request.headers.get("connection", "").lower() == "close"
        for route in self.routes:
            if request.method == route.method and (found := re.fullmatch(route.path, request.path)):
                if route.target is None:
                    return await wire.send(await self._answer(route, request, {}, found), {}, close=close)
                target = self.targets[route.target]
                step = {"delay": self.defaults[f"{route.target}_delay"]} | target.next_step()
                with target.call(request):
                    return await wire.send(await self._answer(route, request, step, found), step, close=close)
        answer = self.refuse(404, f"Cannot {request.method} {request.path}", request)
        return await wire.send(answer, {}, close=close)

    async def _answer(self, route: Route, request: Request, step: Step, found: re.Match[str]) -> Answer:
        status = step.get("status", 200)
        if "redirect" in step:
            answer = Answer(step.get("status", 302), b"", {"location": step["redirect"]})
        elif "json" in step:
            answer = as_json(step["json"], status)
        elif "body" in step:
            answer = as_page(status, step["body"])
        elif status >= 400 and "shape" not in step:
            answer = route.refuse(status, "", request)
        else:
            try:
                answer = await route.work(request, step, *found.groups())
                answer.status = step.get("status", answer.status)
            except Refused as error:
                answer = route.refuse(error.status, error.message, request)
        answer.headers |= {name.lower(): value for name, value in step.get("headers", {}).items()}
        return answer

    async def report(self, request: Request, step: Step, what: str) -> Answer:
        if what == "calls":
            return as_json(self._target(request).calls)
        if what == "stored":
            assets = self.cloudinary.assets.values()
            return as_json([{key: asset.facts[key] for key in ("public_id", "type", "bytes")} for asset in assets])
        return as_json({name: target.counts() for name, target in self.targets.items()})

    async def control(self, request: Request, step: Step, what: str) -> Answer:
        fields = request.fields
        if what == "reset":
            self.reset()
        elif what == "defaults":
            if unknown := fields.keys() - self.defaults.keys():
                raise Refused(400, f"no such defaults: {unknown}")
            self.defaults |= fields
        elif what == "down":
            self._target(request).down = fields["status"]
        else:
            for key, value in (item for one in fields["steps"] for item in one.items()):
                if key not in STEP or value not in CHOICES.get(key, [value]):
                    raise Refused(400, f"no such step: {key} {value}")
            target = self._target(request)
            target.steps, target.repeat_last = fields["steps"], fields.get("repeat_last", False)
        return as_json({})

    def _target(self, request: Request) -> Target:
        name = request.fields.get("target")
        if name not in self.targets:
            raise Refused(400, f"no such target: {name}")
        return self.targets[name]


def exit_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


async def main(port: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    port = listener.getsockname()[1]
    server = await asyncio.start_server(Server(f"127.0.0.1:{port}").serve, sock=listener, backlog=2048)
    threading.Thread(target=exit_with_stdin, daemon=True).start()
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(main(parser.parse_args().port))
