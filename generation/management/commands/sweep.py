from typing import Any

from django.core.management.base import BaseCommand

from generation import sweep


class Command(BaseCommand):
    help = "Take over lost runs; remove orphaned files, unfinished uploads, expired keys, sessions, exports and guests."

    def handle(self, **options: Any) -> None:
        self.stdout.write(f"lost runs: {sweep.take_over_lost_runs()}")
        for what, count in sweep.clean_up().items():
            self.stdout.write(f"{what.replace('_', ' ')}: {count}")
