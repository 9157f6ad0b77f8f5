"""What was told, at the owner's desk: to look at only."""

import uuid

import pytest
from django.urls import reverse

from conftest import asked_for
from notifications.models import Notification

pytestmark = pytest.mark.django_db

LIST = reverse("admin:notifications_notification_changelist")


def news(user, **values):
    given = {"kind": "run_failed", "subject": uuid.uuid4(), "message": "It did not work.", "url": "/runs/"}
    return Notification.objects.create(user=user, **given | values)


def test_list_asks_the_same_for_one_three_and_a_hundred(owner, alice):
    asked = []
    for number in (1, 2, 97):
        for _ in range(number):
            news(alice)
        asked.append(asked_for(owner, LIST))
    assert asked == [asked[0]] * 3
    assert asked[0] < 12


def test_news_are_filtered_and_shown_as_they_are(owner, alice):
    news(alice, message="<script>alert('x')</script>")
    news(alice, kind="batch_done")
    text = owner.get(f"{LIST}?kind__exact=run_failed").content.decode()
    assert "&lt;script&gt;alert" in text
    assert "<script>alert" not in text
    assert "1 notification" in text


def test_nothing_can_be_changed_and_only_staff_who_may_look(owner, client, alice, staff):
    one = news(alice)
    for part in ("change", "delete"):
        page = reverse(f"admin:notifications_notification_{part}", args=[one.pk])
        assert owner.post(page, {"message": "x"}).status_code == 403
    assert owner.get(reverse("admin:notifications_notification_add")).status_code == 403
    assert reverse("account_login") in client.get(LIST).url
    client.force_login(alice)
    assert client.get(LIST, follow=True).status_code == 403
    assert staff("view_run").get(LIST).status_code == 403
    assert staff("view_notification").get(LIST).status_code == 200
