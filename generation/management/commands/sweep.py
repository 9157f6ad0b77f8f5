from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from generation import sweep


class Command(BaseCommand):
    help = "Take over lost runs; remove orphaned files, unfinished uploads, expired keys, sessions, exports and guests."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--orphans",
            action="store_true",
            help="Only list the stored pictures that no row refers to; delete nothing.",
        )
        parser.add_argument(
            "--confirm", action="store_true", help="With --orphans: delete them, however many they are."
        )

    def handle(self, *, orphans: bool, confirm: bool, **options: Any) -> None:
        if confirm and not orphans:
            raise CommandError("--confirm goes with --orphans.")
        if orphans:
            self._orphans(confirm)
            return
        self.stdout.write(f"lost runs: {sweep.take_over_lost_runs()}")
        for what, count in sweep.clean_up().items():
            self.stdout.write(f"{what.replace('_', ' ')}: {count}")

    def _orphans(self, confirm: bool) -> None:
        if confirm:
            self.stdout.write(f"deleted: {sweep.delete_orphans(confirmed=True)}")
            return
        for found in sweep.find_orphans():
            for name in found.names:
                self.stdout.write(name)
            held = ", held back until --confirm" if found.is_doubtful else ""
            self.stdout.write(f"{found.folder}: {len(found.names)} of {found.stored} stored pictures have no row{held}")
