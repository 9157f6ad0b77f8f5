"""The page of news: what it shows, what it leads to, and what marks news as read."""

import re
import uuid

import pytest
from django.urls import reverse
from django.utils import timezone

from notifications import views
from notifications.models import Notification

pytestmark = pytest.mark.django_db


@pytest.fixture
def alices(client, alice):
    client.force_login(alice)
    return client


@pytest.fixture
def tell(alice):
    """Write some news for Alice, the last of them the newest."""

    def write(count, kind=Notification.Kind.RUN_SUCCEEDED):
        news = []
        for _ in range(count):
            subject = uuid.uuid4()
            url = reverse("run", args=[subject])
            message = f"Look {len(news)} is ready."
            news.append(Notification(user=alice, kind=kind, subject=subject, message=message, url=url))
        for one in news:
            one.save()
        return news

    return write


def rows(answer):
    """What the page lists: message and address of each, and whether it is marked as new."""
    news = answer.content.decode().partition('<ul class="news">')[2]
    items = re.findall(r"<li( class=\"unread\")?>\s*<a href=\"([^\"]+)\">(.*?)</a>", news, re.DOTALL)
    return [(re.search(r"Look \d+ is ready\.", text)[0], url, bool(new)) for new, url, text in items]


def test_news_are_listed_newest_first_and_lead_to_their_runs(alices, tell):
    old, read, new = tell(3)
    Notification.objects.filter(pk=read.pk).update(read_at=timezone.now())
    answer = alices.get(reverse("notification_list"))
    assert rows(answer) == [(new.message, new.url, True), (read.message, read.url, False), (old.message, old.url, True)]
    assert answer.content.decode().count("New: </span>") == 2


def test_looking_at_the_run_marks_its_news_as_read(alices, start, work):
    run = start()
    work()
    (news,) = Notification.objects.all()
    assert f'<a href="{news.url}">' in alices.get(reverse("notification_list")).content.decode()
    assert alices.get(news.url).status_code == 200
    news.refresh_from_db()
    assert (news.subject, news.read_at is not None) == (run.pk, True)


def test_one_is_marked_as_read_without_going_there(alices, tell):
    first, second = tell(2)
    answer = alices.post(reverse("notification_read", args=[first.pk]), {"page": "1"})
    assert (answer.status_code, answer["Location"]) == (302, "/notifications/")
    assert [row[2] for row in rows(alices.get(reverse("notification_list")))] == [True, False]
    assert Notification.objects.unread().get() == second


def test_one_that_is_marked_on_a_later_page_leads_back_to_that_page(alices, tell):
    (news,) = tell(1)
    url = reverse("notification_read", args=[news.pk])
    pages = [alices.post(url, {"page": page})["Location"] for page in ("2", "x", "//evil.example", "")]
    assert pages == ["/notifications/?page=2", "/notifications/", "/notifications/", "/notifications/"]


def test_all_are_marked_as_read(alices, tell, bob):
    tell(3)
    bobs = Notification.objects.create(
        user=bob, kind=Notification.Kind.RUN_FAILED, subject=uuid.uuid4(), message="Bob's", url="/"
    )
    assert "Mark all as read" in alices.get(reverse("notification_list")).content.decode()
    alices.post(reverse("notifications_read"))
    assert Notification.objects.unread().get() == bobs
    assert "Mark all as read" not in alices.get(reverse("notification_list")).content.decode()


def test_anothers_news_are_neither_shown_nor_marked(client, bob, tell):
    (news,) = tell(1)
    client.force_login(bob)
    assert rows(client.get(reverse("notification_list"))) == []
    assert client.post(reverse("notification_read", args=[news.pk])).status_code == 404
    client.post(reverse("notifications_read"))
    assert Notification.objects.unread().count() == 1


def test_looking_at_the_list_or_a_get_marks_nothing(alices, tell):
    (news,) = tell(1)
    alices.get(reverse("notification_list"))
    assert alices.get(reverse("notification_read", args=[news.pk])).status_code == 405
    assert alices.get(reverse("notifications_read")).status_code == 405
    assert Notification.objects.unread().count() == 1


def test_many_news_are_paged(alices, tell, monkeypatch):
    monkeypatch.setattr(views, "PAGE_SIZE", 2)
    news = tell(5)
    first, second, last = [alices.get(reverse("notification_list"), {"page": page}) for page in (1, 2, 3)]
    assert [row[0] for row in rows(first) + rows(second) + rows(last)] == [one.message for one in reversed(news)]
    links = [re.findall(r'rel="(prev|next)" href="([^"]+)"', page.content.decode()) for page in (first, second, last)]
    assert links == [[("next", "?page=2")], [("prev", "?page=1"), ("next", "?page=3")], [("prev", "?page=2")]]


def test_nobodys_news_say_what_to_do(alices):
    answer = alices.get(reverse("notification_list")).content.decode()
    assert "No news yet." in answer
    assert f'<a href="{reverse("studio")}" role="button">' in answer


def test_list_costs_the_same_however_long(alices, tell, django_assert_max_num_queries):
    counts = []
    for more in (1, 2):
        tell(more)
        # Session, user, profile for the language, runs under way, unread, count, page.
        with django_assert_max_num_queries(7) as captured:
            alices.get(reverse("notification_list"))
        counts.append(len(captured))
    assert counts[0] == counts[1]
