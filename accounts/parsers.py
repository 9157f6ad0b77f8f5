"""What a body may look like: one reader of JSON for the API and for allauth's views, and the API's parsers.

A library that reads JSON takes more than JSON is, and more than what comes after it can work with.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from rest_framework import parsers
from rest_framework.exceptions import ParseError

MAX_DEPTH = 50
MAX_DIGITS = 20
NOT_JSON = _("The body of the request is not valid JSON.")
NOT_AN_OBJECT = _("The body of the request must be a JSON object.")
TOO_DEEP = _("The body of the request is nested too deeply.")
TOO_LONG = _("The body of the request has a number with too many digits.")
BAD_CHARACTERS = _("The body of the request has characters that no text may have.")
TOO_LARGE = _("The body of the request is too large.")
NOT_A_FORM = _("The form in the body of the request could not be read.")

# A text, of which nothing counts, or what opens or closes a level.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
# No text of ours has them; databases, mail and other encodings refuse them.
_BAD = re.compile(r"[\x00\ud800-\udfff]")


class Malformed(Exception):
    """A body that is not read. Its sentence is for whoever sent it."""

    def __init__(self, sentence: str | Promise) -> None:
        super().__init__(str(sentence))
        self.sentence = sentence


def load_object(body: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object. Raises Malformed."""
    if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise Malformed(TOO_LARGE)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(NOT_JSON) from error
    _check_depth(text)
    try:
        # Recursion is bounded by the depth; every other error of the library is a ValueError.
        data = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_refuse)
    except ValueError as error:
        raise Malformed(NOT_JSON) from error
    if not isinstance(data, dict):
        raise Malformed(NOT_AN_OBJECT)
    _check_texts(data)
    return data


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKENS.finditer(text):
        first = token[0][0]
        depth += (first in "[{") - (first in "]}")
        if depth > MAX_DEPTH:
            raise Malformed(TOO_DEEP)


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise Malformed(TOO_LONG)
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise Malformed(TOO_LONG)
    return number


def _refuse(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which JSON does not have."""
    raise Malformed(NOT_JSON)


def _check_texts(data: Any) -> None:
    """Look at every key and value. A text that is written in escapes is only seen here."""
    rest = [data]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            if _BAD.search(value):
                raise Malformed(BAD_CHARACTERS)
        elif isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list):
            rest += value


class JSONParser(parsers.JSONParser):
    """The API's JSON."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        try:
            return load_object(stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1))
        except Malformed as error:
            raise ParseError(error.sentence, code="malformed") from error


class MultiPartParser(parsers.MultiPartParser):
    """The API's forms with files."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> parsers.DataAndFiles:
        try:
            return super().parse(stream, media_type, parser_context)
        except (ParseError, LookupError, ValueError) as error:
            # An encoding that nobody knows, a boundary that is none, a part that is cut off.
            raise ParseError(NOT_A_FORM, code="malformed") from error


class FormParser(parsers.FormParser):
    """The API's forms without files."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except (ParseError, LookupError, ValueError) as error:
            raise ParseError(NOT_A_FORM, code="malformed") from error
