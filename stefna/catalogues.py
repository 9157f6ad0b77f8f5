"""The sentences of the product in every language: found in the code, kept in locale/, compiled for gettext.

Django's own makemessages and compilemessages call GNU gettext, which a fresh machine does not have; and they do not
know that sentences come with the presets.
"""

from __future__ import annotations

import ast
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import django
import polib
from django.conf import settings
from django.utils.translation import gettext_noop, to_locale
from django.utils.translation.template import templatize

APPS = ("accounts", "notifications", "generation", "stefna")
# By function: which of its arguments are the context, the words, and the words for several.
CALLS: dict[str, tuple[int | None, int, int | None]] = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy", "gettext_noop"), (None, 0, None)),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), (None, 0, 1)),
    **dict.fromkeys(("pgettext", "pgettext_lazy"), (0, 1, None)),
    **dict.fromkeys(("npgettext", "npgettext_lazy"), (0, 1, 2)),
}
# The calls that `templatize` makes of a template's tags; what is round them is no Python.
CALL = re.compile(r"""(?<!\w)(n?p?gettext|_)(\((?:u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[\s,]*)+)(?:count)?\)""")
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[sdf]")
WIDTH = 120

# allauth's German is as friendly as ours except here. A language may say these anew, and what it says comes first.
THEIRS = (
    gettext_noop("Use your password"),
    gettext_noop("Use authenticator app or code"),
    gettext_noop("Use a security key"),
    gettext_noop("You cannot add an email address to an account protected by two-factor authentication."),
    gettext_noop("You cannot deactivate two-factor authentication."),
    gettext_noop("You cannot generate recovery codes without having two-factor authentication enabled."),
    gettext_noop("You cannot activate two-factor authentication until you have verified your email address."),
    gettext_noop("You cannot disconnect your last remaining third-party account."),
)

Key = tuple[str, str]


def find() -> dict[Key, polib.POEntry]:
    """Return every sentence that is to be translated, by its context and its English words."""
    found: dict[Key, polib.POEntry] = {}
    for file, context, words, several in [*_in_python(), *_in_templates(), *_in_presets()]:
        entry = found.setdefault((context, words), polib.POEntry(msgid=words, msgctxt=context or None))
        if several:
            entry.msgid_plural, entry.msgstr_plural = several, {0: "", 1: ""}
        if PLACEHOLDER.search(words):
            entry.flags = ["python-format"]
        # Without lines: they change with everything.
        place = (file.relative_to(settings.BASE_DIR).as_posix(), "")
        if place not in entry.occurrences:
            entry.occurrences.append(place)
    return found


def update(language: str) -> polib.POFile:
    """Write a language's catalogue anew: what is new comes in empty, what is gone goes out, what was said stays."""
    catalogue = load(language)
    known = {key(entry): entry for entry in catalogue}
    catalogue.clear()
    for name, entry in find().items():
        if before := known.get(name):
            entry.msgstr, entry.tcomment = before.msgstr, before.tcomment
            entry.msgstr_plural = entry.msgstr_plural and (before.msgstr_plural or entry.msgstr_plural)
        catalogue.append(entry)
    path(language).parent.mkdir(parents=True, exist_ok=True)
    catalogue.save(str(path(language)))
    return catalogue


def compile_all() -> None:
    """Make of every catalogue what gettext reads. Processes may do it at once, and others may be reading."""
    for folder in settings.LOCALE_PATHS:
        for catalogue in Path(folder).glob("*/LC_MESSAGES/*.po"):
            half = catalogue.with_suffix(f".{secrets.token_hex(4)}.mo")
            half.write_bytes(polib.pofile(str(catalogue)).to_binary())
            half.replace(catalogue.with_suffix(".mo"))


def languages() -> list[str]:
    """Return the languages that the product is translated into."""
    return [code for code, _ in settings.LANGUAGES if code != settings.LANGUAGE_CODE]


def path(language: str) -> Path:
    return Path(settings.LOCALE_PATHS[0]) / to_locale(language) / "LC_MESSAGES" / "django.po"


def load(language: str) -> polib.POFile:
    """Read a language's catalogue; a new one begins with what Django knows of the language's plurals."""
    if path(language).exists():
        return polib.pofile(str(path(language)), wrapwidth=WIDTH)
    theirs = Path(django.__file__).parent / "conf" / "locale" / to_locale(language) / "LC_MESSAGES" / "django.po"
    catalogue = polib.POFile(wrapwidth=WIDTH)
    catalogue.metadata = {
        "Language": to_locale(language),
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
        "Plural-Forms": polib.pofile(str(theirs)).metadata["Plural-Forms"],
    }
    return catalogue


def key(entry: polib.POEntry) -> Key:
    return entry.msgctxt or "", entry.msgid


Found = Iterator[tuple[Path, str, str, str]]


def _in_python() -> Found:
    for app in APPS:
        for file in sorted((settings.BASE_DIR / app).rglob("*.py")):
            if {"tests", "migrations"} & set(file.relative_to(settings.BASE_DIR).parts):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    words = [argument.value if isinstance(argument, ast.Constant) else None for argument in node.args]
                    yield from _call(file, name, words)


def _in_templates() -> Found:
    for file in sorted((settings.BASE_DIR / "templates").rglob("*.*")):
        for name, arguments in CALL.findall(templatize(file.read_text(), origin=str(file))):
            words = ast.literal_eval(f"{arguments.rstrip().rstrip(',')},)")
            yield from _call(file, name, words)


def _in_presets() -> Found:
    """Yield what is said about the presets; their names are the same everywhere."""
    file = settings.BASE_DIR / "generation" / "presets.json"
    for preset in json.loads(file.read_text()):
        yield file, "", preset["description"], ""


def _call(file: Path, name: str, words: Sequence[object]) -> Found:
    if name not in CALLS:
        return
    context, one, several = ("" if at is None else next(iter(words[at:]), None) for at in CALLS[name])
    # What is no constant was marked where it is written down.
    if isinstance(context, str) and isinstance(one, str) and isinstance(several, str) and one:
        yield file, context, one, several
