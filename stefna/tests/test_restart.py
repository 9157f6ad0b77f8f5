import time

QUEUE = """
from accounts.models import User
from generation import photos, services
from generation.models import Preset
user = User.objects.create_user("kill@example.com")
user.profile.__class__.objects.update(daily_run_limit=0)
photo = photos.accept(user, photos.Upload.sample("landscape"))
for preset in Preset.objects.looks()[:8]:
    services.start_run(user=user, photo=photo, preset=preset)
"""
COUNT = """
from collections import Counter
from generation.models import Run
print(dict(Counter(Run.objects.values_list("status", flat=True))))
"""
ENDED = """
from generation.models import Run
from notifications.models import Notification
from django.db.models import Count
print([Run.objects.filter(status="succeeded").exclude(result="").count(), Run.objects.count(),
       Notification.objects.count(), Notification.objects.values("subject").distinct().count()])
"""


def test_killed_process_loses_no_run(server):
    server.start()
    server.shell(QUEUE)
    # Wait until some are running; then the process dies without a word.
    deadline = time.monotonic() + 30
    while "running" not in server.shell(COUNT):
        assert time.monotonic() < deadline
    server.kill()
    left = eval(server.shell(COUNT))
    assert left.get("running", 0) + left.get("queued", 0) > 0
    server.start()
    deadline = time.monotonic() + 60
    while eval(server.shell(COUNT)) != {"succeeded": 8}:
        assert time.monotonic() < deadline, server.shell(COUNT)
    assert server.shell(ENDED) == "[8, 8, 8, 8]"
