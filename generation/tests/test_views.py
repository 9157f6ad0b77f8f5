import uuid
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from conftest import small
from generation import attempts, pictures, services
from generation.images import provenance
from generation.models import Photo, Preset, Run
from generation.modes import Mode
from notifications.models import Notification

pytestmark = pytest.mark.django_db


@pytest.fixture
def alices(client, alice):
    client.force_login(alice)
    return client


@pytest.fixture
def bobs(bob):
    client = Client()
    client.force_login(bob)
    return client


def fields(**changes):
    return {"key": uuid.uuid4().hex, "look": "express_enhance", "sample": "coffee"} | changes


def file(data, name="photo.jpg"):
    return SimpleUploadedFile(name, data, "image/jpeg")


def test_photo_goes_in_and_a_picture_comes_out(alices, catalogue, work):
    answer = alices.post(reverse("create"), fields(sample="", photo=file(small("portrait"))))
    run = Run.objects.get()
    assert answer.url == run.get_absolute_url()
    waiting = alices.get(run.get_absolute_url()).content.decode()
    assert 'hx-trigger="every 1s"' in waiting
    assert "Waiting" in waiting
    work()
    done = alices.get(run.get_absolute_url(), headers={"HX-Request": "true"}).content.decode()
    assert "hx-trigger" not in done
    assert reverse("result", args=[run.pk, "picture"]) in done
    picture = alices.get(reverse("result", args=[run.pk, "picture"]))
    assert provenance.read(picture.getvalue()) == "algorithmicallyEnhanced"
    download = alices.get(reverse("download", args=[run.pk]) + "?format=webp")
    assert (
        download["Content-Disposition"]
        == f'attachment; filename="stefna-express-enhance-{timezone.now():%Y-%m-%d}.webp"'
    )
    assert provenance.read(download.content) == "algorithmicallyEnhanced"
    assert not Notification.objects.unread().exists()


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"sample": ""}, 400, "Choose a photo first."),
        ({"look": "nothing"}, 400, "There is no such look."),
        ({"look": ""}, 400, "Pick a look first."),
        ({"strength": "0.01"}, 400, "greater than or equal to 0.05"),
        ({"strength": "nan"}, 400, "number"),
        ({"seed": "0"}, 400, "greater than or equal to 1"),
        ({"sample": "../secret"}, 400, "valid choice"),
        ({"sample": "", "photo_id": str(uuid.uuid4())}, 400, "Choose a photo first."),
        ({"sample": "", "photo_id": "x"}, 400, "UUID"),
        ({"sample": "", "photo": b""}, 422, "empty"),
        ({"sample": "", "photo": b"<svg/>"}, 415, "not a photo we can read"),
        ({"sample": "", "photo": small("coffee")[:999]}, 422, "damaged"),
        ({"key": ""}, 400, "required"),
    ],
)
@pytest.mark.parametrize("htmx", [True, False])
def test_bad_input_gets_its_sentence_and_leaves_nothing(alices, catalogue, settings, changes, status, sentence, htmx):
    if isinstance(changes.get("photo"), bytes):
        changes = changes | {"photo": file(changes["photo"])}
    answer = alices.post(reverse("create"), fields(**changes), headers={"HX-Request": "true"} if htmx else {})
    assert answer.status_code == status
    assert sentence in answer.content.decode()
    assert (b"<html" in answer.content) is not htmx
    assert [Photo.objects.count(), Run.objects.count()] == [0, 0]
    assert [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()] == []


def test_look_hidden_since_the_page_was_made_is_409(alices, catalogue):
    Preset.objects.filter(slug="express_enhance").update(is_active=False)
    assert alices.post(reverse("create"), fields()).status_code == 409
    assert Photo.objects.count() == 0


def test_body_too_large_is_413_before_it_is_read(client, settings):
    settings.MAX_PHOTO_BYTES = 1000
    answer = client.post(reverse("create"), {"photo": file(b"x" * 300_000)})
    assert (answer.status_code, Photo.objects.count()) == (413, 0)
    assert b"too large" in answer.content


def test_studio_says_the_limit_that_is_set(client, settings):
    settings.MAX_PHOTO_BYTES = 3_000_000
    page = client.get(reverse("studio")).content.decode()
    assert "up to 3 MB" in page
    assert 'data-max-bytes="3000000"' in page


def test_chunked_body_is_411(client):
    answer = client.post(reverse("create"), headers={"Transfer-Encoding": "chunked"})
    assert answer.status_code == 411


def test_double_submit_is_one_run(alices, catalogue):
    sent = fields()
    assert alices.post(reverse("create"), sent).url == alices.post(reverse("create"), sent).url
    assert Run.objects.count() == 1


def test_moodmorph_page_shows_three_and_one_that_failed_is_retried_in_its_place(alices, catalogue, work):
    answer = alices.post(reverse("create"), fields(look="moodmorph"))
    sad = Run.objects.get(preset_slug="sad")
    Run.objects.filter(pk=sad.pk).update(recipe=None)
    work()
    page = alices.get(answer.url)
    assert [run.status for run in page.context["runs"]] == ["succeeded", "failed", "succeeded"]
    assert alices.post(reverse("retry", args=[sad.pk])).url == answer.url
    Run.objects.filter(retry_of=sad).update(recipe=Preset.objects.get(slug="sad").recipe)
    work()
    page = alices.get(answer.url)
    assert [(run.preset_slug, run.status) for run in page.context["runs"]] == [
        ("happy", "succeeded"),
        ("sad", "succeeded"),
        ("cinematic", "succeeded"),
    ]


def test_failed_run_says_not_charged_and_offers_try_again(alices, start):
    run = start()
    attempts.fail_run(run, code="x", message="It broke.")
    page = alices.get(run.get_absolute_url()).content.decode()
    assert "It broke. You were not charged." in " ".join(page.split())
    assert reverse("retry", args=[run.pk]) in page


def test_cancel_favourite_and_delete(alices, start, work):
    cancelled, kept = start(), start()
    alices.post(reverse("cancel", args=[cancelled.pk]))
    work()
    cancelled.refresh_from_db()
    assert cancelled.status == "cancelled"
    alices.post(reverse("favourite", args=[kept.pk]))
    assert [run.pk for run in alices.get(reverse("history") + "?status=favourite").context["page"]] == [kept.pk]
    alices.post(reverse("delete", args=[kept.pk]))
    assert alices.get(kept.get_absolute_url()).status_code == 404


def test_others_see_nothing(bobs, client, start, work, alice, photo):
    run = services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH)[0]
    work()
    news = Notification.objects.first()
    gets = [
        reverse("run", args=[run.pk]),
        reverse("batch", args=[run.batch]),
        reverse("result", args=[run.pk, "picture"]),
        reverse("result", args=[run.pk, "thumbnail"]),
        reverse("photo", args=[photo.pk, "picture"]),
        reverse("download", args=[run.pk]),
    ]
    posts = [reverse(name, args=[run.pk]) for name in ("cancel", "retry", "favourite", "delete")]
    posts.append(reverse("notification_read", args=[news.pk]))
    assert [bobs.get(url).status_code for url in gets] == [404] * len(gets)
    assert [bobs.post(url).status_code for url in posts] == [404] * len(posts)
    assert [client.get(url).status_code for url in gets] == [302, 302, 404, 404, 404, 404]


def test_signed_address_shows_one_picture_for_a_while(client, photo, time_machine):
    url = pictures.signed(reverse("photo", args=[photo.pk, "picture"]), photo.user)
    other = url.replace("picture?", "thumbnail?")
    assert [client.get(url).status_code, client.get(other).status_code] == [200, 404]
    time_machine.move_to(timezone.now() + timedelta(seconds=pictures.SIGNATURE_SECONDS + 1))
    assert client.get(url).status_code == 404


def test_preview_is_made_once(client, preset):
    first = client.get(preset.get_preview_url())
    assert (first.status_code, first["Content-Type"]) == (200, "image/webp")
    assert first.getvalue() == client.get(preset.get_preview_url()).getvalue()
    assert client.get(reverse("preview", args=["nothing"])).status_code == 404


def test_poll_without_a_session_leads_to_signing_in_and_back(client, start):
    run = start()
    answer = client.get(
        run.get_absolute_url(),
        headers={"HX-Request": "true", "HX-Current-URL": f"http://testserver{run.get_absolute_url()}"},
    )
    assert answer["HX-Redirect"] == f"/account/login/?next=%2Fruns%2F{run.pk}%2F"


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("page", "queries"), [("history", 7), ("notification_list", 6), ("studio", 6)])
def test_lists_cost_the_same_however_long(alices, start, work, rows, page, queries, django_assert_max_num_queries):
    for _ in range(rows):
        start()
    work()
    with django_assert_max_num_queries(queries):
        assert alices.get(reverse(page)).status_code == 200


def test_news_are_marked_as_read_one_or_all(alices, start, work):
    runs = [start(), start(), start()]
    work()
    assert b'class="count">3' in alices.get(reverse("notification_list")).content
    one = Notification.objects.get(subject=runs[0].pk)
    assert alices.post(reverse("notification_read", args=[one.pk])).url == reverse("notification_list")
    assert Notification.objects.unread().count() == 2
    alices.post(reverse("notifications_read"))
    assert not Notification.objects.unread().exists()


def test_security_headers(client):
    headers = client.get("/").headers
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for part in ("default-src 'none'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Request-ID"]


def test_admin_shows_every_list(client, start, work):
    owner = User.objects.create_superuser("owner@example.com", "x")
    client.force_login(owner)
    run = start()
    work()
    for name in ("accounts_user", "generation_preset", "generation_run", "notifications_notification"):
        assert client.get(reverse(f"admin:{name}_changelist")).status_code == 200, name
    assert client.get(reverse("admin:generation_run_change", args=[run.pk])).status_code == 200
    assert client.post(reverse("admin:generation_run_change", args=[run.pk]), {}).status_code == 403
    assert client.get(reverse("admin:accounts_user_change", args=[owner.pk])).status_code == 200
    preset = Preset.objects.first()
    url = reverse("admin:generation_preset_change", args=[preset.pk])
    form = client.get(url).context["adminform"].form.initial
    sent = {key: "" if value is None else value for key, value in form.items()} | {
        "recipe": '{"version": 1, "steps": [{"op": "melt"}]}'
    }
    assert "there is no op &quot;melt&quot;" in client.post(url, sent).content.decode()


@pytest.mark.django_db(transaction=True)
def test_command_line_makes_a_picture(catalogue, tmp_path, capsys):
    photo, out = tmp_path / "in.jpg", tmp_path / "out.webp"
    photo.write_bytes(small("coffee"))
    call_command("generate", photo, preset="noir_classic", output=out, seed=3)
    said = capsys.readouterr()
    assert said.err.split()[-1] == "Done"
    assert "Noir Classic, 320 × 213" in said.out
    assert provenance.read(out.read_bytes()) == "algorithmicallyEnhanced"


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        (small("coffee"), {"preset": "nothing"}, "There is no preset nothing"),
        (small("coffee"), {"output": "out.bmp"}, "must end in"),
        (small("coffee"), {"strength": 2.0}, "--strength must be between"),
        (small("coffee"), {"seed": 0}, "--seed must be between"),
        (b"nothing", {}, "not a photo"),
        (None, {}, "cannot be read"),
    ],
)
def test_command_line_says_what_is_wrong(catalogue, tmp_path, data, options, sentence):
    photo = tmp_path / "in.jpg"
    if data is not None:
        photo.write_bytes(data)
    output = tmp_path / options.pop("output", "out.jpg")
    with pytest.raises(CommandError, match=sentence):
        call_command("generate", photo, **({"preset": "noir_classic", "output": output} | options))
    assert not output.exists()


def test_poll_is_304_until_something_changes(alices, start, work):
    run = start()
    page = alices.get(run.get_absolute_url())
    headers = {"HX-Request": "true", "If-None-Match": f'"{page.context["etag"]}"'}
    assert page.context["etag"] in page.content.decode()
    assert alices.get(run.get_absolute_url(), headers=headers).status_code == 304
    work()
    answer = alices.get(run.get_absolute_url(), headers=headers)
    assert (answer.status_code, answer["HX-Trigger"]) == (200, "ended")


def test_several_looks_are_one_batch(alices, catalogue):
    answer = alices.post(reverse("create"), fields(look=["noir_classic", "vivid_pop", "noir_classic"]))
    assert list(Run.objects.order_by("preset_slug").values_list("preset_slug", flat=True)) == [
        "noir_classic",
        "vivid_pop",
    ]
    assert answer.url == Run.objects.first().get_batch_url()


@pytest.mark.parametrize("looks", [["moodmorph", "vivid_pop"], ["vivid_pop", "nothing"]])
def test_looks_that_do_not_go_together_are_refused(alices, catalogue, looks):
    assert alices.post(reverse("create"), fields(look=looks)).status_code == 400
    assert not Run.objects.exists()


def test_too_many_looks_at_once_are_refused(alices, catalogue):
    slugs = list(Preset.objects.looks().values_list("slug", flat=True)[:13])
    answer = alices.post(reverse("create"), fields(look=slugs))
    assert answer.status_code == 400
    assert "Up to 12 looks" in answer.content.decode()


def test_own_words_are_taken_where_the_service_reads_them(alices, catalogue, settings):
    assert 'name="prompt"' not in alices.get(reverse("studio")).content.decode()
    assert alices.post(reverse("create"), fields(prompt="A foggy morning")).status_code == 400
    settings.AIML_API_KEY = "key"
    assert 'name="prompt"' in alices.get(reverse("studio")).content.decode()
    alices.post(reverse("create"), fields(prompt="A foggy morning", look=""))
    run = Run.objects.get()
    assert (run.mode, run.prompt, run.preset) == ("custom", "A foggy morning", None)


@pytest.mark.parametrize(("change", "strength"), [("gentler", 0.55), ("bolder", 0.85), ("seed", 0.7)])
def test_once_more_with_a_change(alices, start, work, change, strength):
    run = start()
    work()
    sent = {"change": change, "key": uuid.uuid4().hex}
    page = alices.post(reverse("vary", args=[run.pk]), sent)
    assert alices.post(reverse("vary", args=[run.pk]), sent).url == page.url
    new = Run.objects.exclude(pk=run.pk).get()
    assert (page.url, new.strength, new.photo, new.preset_slug) == (
        new.get_absolute_url(), strength, run.photo, run.preset_slug,
    )  # fmt: skip
    assert (new.seed == run.seed) is (change != "seed")
    assert new.fingerprint != run.fingerprint


def test_once_more_without_a_known_change_is_404(alices, start):
    assert alices.post(reverse("vary", args=[start().pk]), {"change": "x"}).status_code == 404


def test_signed_out_in_the_middle_leads_back_to_the_same_studio(client, catalogue, settings):
    settings.ALLOW_GUESTS = False
    answer = client.post(reverse("create"), fields(look=["noir_classic", "vivid_pop"], sample="coffee"))
    assert answer.url == ("/account/login/?next=%2F%3Fsample%3Dcoffee%26look%3Dnoir_classic%26look%3Dvivid_pop")
