"""Encodings of text that a request may name: others are codecs of no text, with which reading the request fails."""

import codecs
from collections.abc import Callable, Iterable
from typing import Any

from django.utils.http import parse_header_parameters

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# What a browser may write a form in, as Python calls it.
KNOWN = {"utf-8", "ascii", "iso8859-1", "cp1252"}
UNREADABLE = "application/x-unknown-encoding"


def is_known(name: str) -> bool:
    try:
        return codecs.lookup(name).name in KNOWN
    except (LookupError, ValueError):
        return False


def _is_readable(content_type: str) -> bool:
    """Say whether Django can read a content type: a parameter may name an encoding of its own (RFC 2231)."""
    try:
        _, parameters = parse_header_parameters(content_type)
    except (LookupError, ValueError):
        return False
    return "charset" not in parameters or is_known(parameters["charset"])


def readable(application: Application) -> Application:
    """Take a name of no known encoding out of a request's head: Django fails on it before any middleware is asked.

    A body in it has a content type that nothing reads, and is answered as such.
    """

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not _is_readable(environ.get("CONTENT_TYPE", "")):
            has_body = environ.get("CONTENT_LENGTH", "") not in ("", "0")
            environ["CONTENT_TYPE"] = UNREADABLE if has_body else ""
        return application(environ, start_response)

    return call
