"""English first, every sentence through gettext, German complete as the proof."""

import gettext
import re
from html.parser import HTMLParser
from pathlib import Path

import polib
import pytest
from django.core import mail
from django.core.management import call_command
from django.template.base import Lexer, TokenType
from django.urls import reverse

from generation import services
from generation.exceptions import UpstreamTimeout
from generation.models import Run
from generation.providers.embedded import EmbeddedProvider
from notifications.models import Notification
from stefna import catalogues

GERMAN = {"HTTP_ACCEPT_LANGUAGE": "de-AT,de;q=0.9,en;q=0.5"}
ENGLISH = {"HTTP_ACCEPT_LANGUAGE": "en"}
ROOT = Path(__file__).parents[2]
# Attributes that are read out or shown. What scripts say comes from data attributes.
SPOKEN = ("alt", "aria-label", "aria-description", "aria-valuetext", "placeholder", "title")
MEASURES = ("value", "min", "max", "step", "width", "height", "viewbox", "x", "y", "hx-trigger")
TEMPLATES = sorted(path for path in (ROOT / "templates").rglob("*.*") if "admin" not in path.parts)
# Of what Django and allauth say in German, the polite form; ours are friends.
FORMAL = re.compile(r"\b(Sie|Ihnen|Ihre?[mnrs]?)\b")
# The same words in every language: names, and what files and browsers call themselves.
NAMES = (
    r"\b(?:Stefna|MoodMorph|English|Deutsch|JPEG|PNG|WebP|HEIC|alice@example\.com|alice"
    r"|Seed|Details|Name|Code|API|UTC|ms|kB|MB)\b"
)


# -- The catalogues ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", catalogues.languages())
def test_every_sentence_is_translated(language):
    wanted = catalogues.find()
    known = {catalogues.key(entry): entry for entry in catalogues.load(language)}
    assert len(wanted) > 200
    assert {"missing": wanted.keys() - known, "gone": known.keys() - wanted.keys()} == {"missing": set(), "gone": set()}
    assert [words for (_, words), entry in known.items() if entry.fuzzy or not entry.translated()] == []
    assert [words for name, entry in wanted.items() if (words := entry.msgid_plural) != known[name].msgid_plural] == []


@pytest.mark.parametrize("language", catalogues.languages())
def test_translations_have_the_placeholders_and_line_ends_of_the_sentence(language):
    for entry in catalogues.load(language):
        for number, said in (entry.msgstr_plural or {None: entry.msgstr}).items():
            words = entry.msgid_plural if number else entry.msgid
            wanted, given = (sorted(set(catalogues.PLACEHOLDER.findall(text))) for text in (words, said))
            # "1 look" may be "ein Look".
            assert given == wanted or (number == 0 and not given), entry.msgid
            assert [said[:1].isspace(), said[-1:].isspace()] == [words[:1].isspace(), words[-1:].isspace()], entry.msgid
            assert said.replace("%%", "").count("%") == len(re.findall(catalogues.PLACEHOLDER, said)), entry.msgid


@pytest.fixture
def elsewhere(settings, tmp_path):
    settings.LOCALE_PATHS = [tmp_path]
    return tmp_path / "de" / "LC_MESSAGES" / "django.po"


def test_makemessages_keeps_what_was_said_and_leaves_out_what_is_gone(elsewhere):
    call_command("makemessages")
    catalogue = polib.pofile(str(elsewhere))
    assert catalogue.metadata["Plural-Forms"] == "nplurals=2; plural=(n != 1);"
    assert len(catalogue) == len(catalogues.find()) == len(catalogue.untranslated_entries())
    catalogue.find("Waiting").msgstr = "Wartet"
    catalogue.append(polib.POEntry(msgid="Nobody says this any more", msgstr="Alt"))
    catalogue.save()
    call_command("makemessages")
    catalogue = polib.pofile(str(elsewhere))
    assert catalogue.find("Waiting").msgstr == "Wartet"
    assert catalogue.find("Nobody says this any more") is None
    before = elsewhere.read_text()
    call_command("makemessages")
    assert elsewhere.read_text() == before


def test_compilemessages_makes_what_gettext_reads(elsewhere):
    catalogue = catalogues.load("de")
    catalogue.append(polib.POEntry(msgid="Waiting", msgstr="Wartet"))
    catalogue.append(polib.POEntry(msgid="look", msgid_plural="looks", msgstr_plural={0: "Look", 1: "Looks"}))
    catalogue.append(polib.POEntry(msgid="Guessed", msgstr="Geraten", flags=["fuzzy"]))
    elsewhere.parent.mkdir(parents=True)
    catalogue.save(str(elsewhere))
    call_command("compilemessages")
    assert sorted(path.name for path in elsewhere.parent.iterdir()) == ["django.mo", "django.po"]
    compiled = gettext.GNUTranslations(elsewhere.with_suffix(".mo").open("rb"))
    said = [compiled.gettext("Waiting"), compiled.ngettext("look", "looks", 2), compiled.gettext("Guessed")]
    assert said == ["Wartet", "Looks", "Guessed"]


def test_sentences_are_found_wherever_they_stand():
    found = catalogues.find()
    places = {words: [file for file, _ in entry.occurrences] for (_, words), entry in found.items()}
    assert "generation/exceptions.py" in places["Choose a photo first."]
    assert "generation/presets.json" in places["Brush strokes on canvas."]
    assert "templates/base.html" in places["Skip to the content"]
    assert found["", "Up to %(count)d look at once, please."].msgid_plural == "Up to %(count)d looks at once, please."


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_template_says_nothing_that_gettext_does_not_see(path):
    """Its pages may not all be reached by a test."""
    words, inside = [], False
    for token in Lexer(path.read_text()).tokenize():
        if token.token_type == TokenType.BLOCK and "blocktranslate" in token.contents.split()[0]:
            inside = not token.contents.startswith("end")
        if token.token_type == TokenType.TEXT and not inside:
            words.append(token.contents)
    left = [re.sub(NAMES, "", said) for said in Page("".join(words)).said]
    assert [said for said in left if re.search(r"[A-Za-z]{2}", said)] == []


# -- The pages -----------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page says and what it measures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.measures: list[tuple[str, str, str]] = []
        self.language = ""
        self._silent = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self._silent += tag in ("script", "style")
        if tag == "html":
            self.language = given.get("lang", "")
        self.said += [given[name] for name in SPOKEN if name in given]
        self.said += [value for name, value in given.items() if name.startswith("data-") and " " in value]
        for name, value in given.items():
            if name in MEASURES or name.startswith("data-"):
                self.measures.append((tag, name, value))
        if tag == "input" and given.get("type") in ("number", "range"):
            for name in ("value", "min", "max", "step"):
                if given.get(name):
                    float(given[name])

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._silent and data.strip():
            self.said.append(" ".join(data.split()))


@pytest.fixture
def failed(start, work, monkeypatch):
    """A run whose service did not answer."""

    def transform(provider, request):
        raise UpstreamTimeout(detail="too late")

    monkeypatch.setattr(EmbeddedProvider, "transform", transform)
    run = start()
    work()
    monkeypatch.undo()
    return Run.objects.get(pk=run.pk)


@pytest.fixture
def everything(alice, photo, preset, start, work, failed):
    """Alice has something on every page; returns the pages' paths."""
    done, waiting = start(strength=0.7), start(seed=5)
    batch = services.start_batch(user=alice, photo=photo, mode="moodmorph")[0].batch
    Run.objects.exclude(pk=done.pk).filter(status="queued").update(run_after="2100-01-01T00:00Z")
    work()
    assert Run.objects.get(pk=done.pk).status == "succeeded"
    # News stay in the language that they were told in.
    Notification.objects.update(message="MoodMorph")
    return [
        reverse("studio"),
        reverse("history"),
        f"{reverse('history')}?status=cancelled",
        *(reverse(name) for name in MEMBERS_PAGES),
        *(reverse("run", args=[run.pk]) for run in (done, waiting, failed)),
        reverse("batch", args=[batch]),
        "/nowhere",
    ]


MEMBERS_PAGES = [
    "profile", "delete_account", "notification_list", "account_email", "account_change_password",
    "account_logout", "account_reauthenticate", "mfa_index", "mfa_activate_totp", "mfa_list_webauthn",
    "mfa_add_webauthn", "socialaccount_connections",
]  # fmt: skip
STRANGERS_PAGES = [
    "studio", "account_login", "account_signup", "account_request_login_code", "account_reset_password",
    "account_reset_password_done", "account_reset_password_from_key_done", "account_inactive",
    "account_email_verification_sent", "socialaccount_login_cancelled", "socialaccount_login_error",
]  # fmt: skip


def check(client, path, catalogue):
    """Read a page in both languages: what is the same in both is English that gettext never saw."""
    answers = [client.get(path, **language) for language in (GERMAN, ENGLISH)]
    assert all(answer.status_code in (200, 401, 404) for answer in answers), (path, answers)
    german, english = (Page(answer.text) for answer in answers)
    assert (german.language, english.language) == ("de", "en"), path
    for said in german.said:
        assert said not in catalogue or catalogue[said] == said, f"{path} says “{said}”"
    names = re.compile(NAMES)
    parts = {part for said in set(german.said) & set(english.said) for part in re.split(r" [·:] |, ", said)}
    same = {names.sub("", part) for part in parts - {*catalogue.values()}}
    assert [part for part in same if re.search(r"[A-Za-z]{3}", part)] == [], path
    assert [said for said in german.said if FORMAL.search(said)] == [], path
    assert [measure for measure in german.measures if re.search(r"\d,\d", measure[2])] == [], path


@pytest.fixture
def spoken(catalogue):
    """German by English; what has the same words in both is a name, and so are the presets' names."""
    said = {entry.msgid: entry.msgstr for entry in catalogues.load("de") if not entry.msgid_plural}
    return said | {name: name for name in catalogue.values_list("name", flat=True)}


def test_pages_speak_german(client, alice, everything, spoken):
    client.force_login(alice)
    # Some pages want to know that it was not long ago.
    client.post(reverse("account_reauthenticate"), {"password": "a-password-of-alice"})
    for path in everything:
        check(client, path, spoken)


def test_pages_for_strangers_speak_german(client, spoken):
    for name in STRANGERS_PAGES:
        check(client, reverse(name), spoken)


def test_failed_run_says_in_german_what_happened(client, alice, failed):
    assert failed.error_message == "The picture service took too long to answer."
    client.force_login(alice)
    said = Page(client.get(failed.get_absolute_url(), **GERMAN).text).said
    assert "Der Bilddienst hat zu lange nicht geantwortet." in " ".join(said)


def test_forms_refuse_in_german(client, catalogue):
    client.get(reverse("studio"))
    refused = client.post(reverse("create"), {"key": "k", "look": ["express_enhance"]}, **GERMAN)
    assert "Bitte wähle zuerst ein Foto aus." in refused.text
    refused = client.post(reverse("account_login"), {"login": "a@example.com", "password": "no"}, **GERMAN)
    assert FORMAL.search(refused.text) is None


# -- Whose language ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "browser", "spoken"),
    [("de", ENGLISH, "de"), ("en", GERMAN, "en"), ("", GERMAN, "de"), ("", ENGLISH, "en"), ("", {}, "en"),
     ("de-CH", ENGLISH, "de"), ("is", GERMAN, "de"), ("../de", ENGLISH, "en")],
)  # fmt: skip
def test_language_of_the_profile_wins_over_the_browser(client, alice, chosen, browser, spoken):
    alice.profile.locale = chosen
    alice.profile.save()
    client.force_login(alice)
    for path in (reverse("history"), "/nowhere"):
        response = client.get(path, **browser)
        assert (Page(response.text).language, response["Content-Language"]) == (spoken, spoken)
    assert "Accept-Language" in response["Vary"]


def test_language_of_one_request_is_not_the_next_ones(client, alice, db):
    alice.profile.locale = "de"
    alice.profile.save()
    client.force_login(alice)
    client.get(reverse("history"))
    client.logout()
    assert Page(client.get(reverse("account_login")).text).language == "en"


def test_language_chosen_in_the_profile_is_spoken_at_once(client, alice):
    client.force_login(alice)
    for locale, words in [("de", "Dein Profil wurde gespeichert."), ("", "Your profile was saved.")]:
        sent = {"display_name": "Alice", "locale": locale, "email_notifications": "on"}
        page = client.post(reverse("profile"), sent, follow=True, **ENGLISH)
        assert words in Page(page.text).said


def test_body_that_is_too_large_is_refused_in_german(client):
    refused = client.generic("POST", reverse("create"), b"", CONTENT_LENGTH="999999999", **GERMAN)
    assert (refused.status_code, Page(refused.text).language) == (413, "de")
    assert "Dieses Foto ist zu groß." in refused.text


def test_language_costs_no_query(client, alice, django_assert_num_queries):
    client.force_login(alice)
    with django_assert_num_queries(2):  # the session, and the account with its profile
        client.get("/api/v1/ping")


# -- Where no browser is -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "asked_in", "told"),
    [("de", ENGLISH, "Express Enhance ist fertig."), ("", GERMAN, "Express Enhance ist fertig."),
     ("en", GERMAN, "Express Enhance is ready."), ("", ENGLISH, "Express Enhance is ready.")],
)  # fmt: skip
def test_news_are_told_in_the_users_language(client, alice, preset, work, chosen, asked_in, told):
    alice.profile.locale = chosen
    alice.profile.save()
    client.force_login(alice)
    client.post(reverse("create"), {"key": "k", "look": ["express_enhance"], "sample": "coffee"}, **asked_in)
    work()
    assert [news.message for news in Notification.objects.for_user(alice)] == [told]


def test_errors_are_stored_in_english_and_said_in_the_readers_language(client, alice, failed):
    client.force_login(alice)
    path = f"/api/v1/runs/{failed.pk}"
    said = [client.get(path, **language).json()["error"]["message"] for language in (ENGLISH, GERMAN)]
    assert said == ["The picture service took too long to answer.", "Der Bilddienst hat zu lange nicht geantwortet."]
    assert Run.objects.get(pk=failed.pk).error_message == said[0]


def test_api_answers_in_english_unless_asked_for_german(client, alice, catalogue):
    client.force_login(alice)
    details = [client.get("/api/v1/nothing", **language).json()["detail"] for language in ({}, ENGLISH, GERMAN)]
    assert details == ["There is nothing at this address."] * 2 + ["Unter dieser Adresse gibt es nichts."]
    looks = client.get("/api/v1/presets", **GERMAN).json()
    described = {look["slug"]: (look["name"], look["description"]) for look in looks}
    assert described["oil_painting"] == ("Oil Painting", "Pinselstriche auf Leinwand.")
    for member in client.get("/api/v1/modes", **GERMAN).json():
        assert member["description"] == "Dein Foto in drei Stimmungen auf einmal."


def test_own_words_have_their_name_in_every_language(client, alice, photo, settings):
    settings.AIML_API_KEY = "key"
    client.force_login(alice)
    asked = {"photo_id": str(photo.pk), "prompt": "as a watercolour"}
    client.post("/api/v1/runs", asked, content_type="application/json", HTTP_IDEMPOTENCY_KEY="k", **GERMAN)
    run = Run.objects.get()
    assert (run.preset_name, run.language) == ("Your own words", "de")
    assert "Deine eigenen Worte" in client.get(run.get_absolute_url(), **GERMAN).text


def test_email_speaks_the_language_of_the_page(client, db, settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    client.post(reverse("account_signup"), {"email": "carol@example.com", "password1": "a-password-of-carol"}, **GERMAN)
    assert [message.subject for message in mail.outbox] == ["Willkommen bei Stefna: Bestätige deine E-Mail-Adresse"]
