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


def readable(application: Application) -> Application:
    """Take a name of no known encoding out of a request's head: Django fails on it before any middleware is asked.

    A body in it has a content type that nothing reads, and is answered as such.
    """

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        content_type, parameters = parse_header_parameters(environ.get("CONTENT_TYPE", ""))
        if "charset" in parameters and not is_known(parameters["charset"]):
            environ["CONTENT_TYPE"] = (
                UNREADABLE if environ.get("CONTENT_LENGTH", "0") not in ("", "0") else content_type
            )
        return application(environ, start_response)

    return call
