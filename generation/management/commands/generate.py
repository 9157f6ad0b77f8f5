import threading
import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError, connections

from accounts.models import Profile, User
from generation import photos, services, tasks
from generation.exceptions import GenerationError
from generation.models import MAX_SEED, MAX_STRENGTH, MIN_STRENGTH, Preset, Run

# Runs from the command line belong to an account of their own, which has no daily limit.
ACCOUNT = "command-line"
CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
LOOK_SECONDS = 0.1


class Command(BaseCommand):
    help = "Make one picture of one photo, through the same pipeline as the pages."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("photo", type=Path)
        parser.add_argument("--preset", required=True, metavar="SLUG")
        parser.add_argument("-o", "--output", required=True, type=Path, help="its ending picks the format")
        parser.add_argument("--strength", type=float, help=f"{MIN_STRENGTH} to {MAX_STRENGTH:g}; default: the preset's")
        parser.add_argument("--seed", type=int, help="for the same picture again")

    def handle(self, *, output: Path, strength: float | None, seed: int | None, **options: Any) -> None:
        content_type = CONTENT_TYPES.get(output.suffix.lower())
        if content_type is None:
            raise CommandError(f"{output} must end in {', '.join(CONTENT_TYPES)}.")
        if strength is not None and not MIN_STRENGTH <= strength <= MAX_STRENGTH:
            raise CommandError(f"--strength must be between {MIN_STRENGTH} and {MAX_STRENGTH:g}.")
        if seed is not None and not 1 <= seed <= MAX_SEED:
            raise CommandError(f"--seed must be between 1 and {MAX_SEED}.")
        try:
            run = self._start(options["photo"], options["preset"], strength, seed)
            self._follow(run)
            if run.status != Run.Status.SUCCEEDED:
                raise CommandError(f"{run.get_status_display()}. {run.error_message}")
            data = photos.download(run, content_type)
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(f"The database is not ready: {error}. Run `manage.py migrate` first.") from error
        except GenerationError as error:
            raise CommandError(error.message) from error
        try:
            output.write_bytes(data)
        except OSError as error:
            raise CommandError(f"{output} cannot be written: {error.strerror}.") from error
        size = f"{run.width} × {run.height}, {len(data) / 1000:.0f} kB"
        self.stdout.write(f"{output}: {run.preset_name}, {size}, {(run.total_ms or 0) / 1000:.1f} s, seed {run.seed}")

    def _start(self, photo: Path, slug: str, strength: float | None, seed: int | None) -> Run:
        preset = Preset.objects.filter(slug=slug).first()
        if preset is None:
            slugs = ", ".join(Preset.objects.active().values_list("slug", flat=True))
            raise CommandError(
                f"There is no preset {slug}. There are: {slugs or 'none; run `manage.py load_presets`'}."
            )
        try:
            upload = photos.Upload(photo.read_bytes(), photo.name)
        except OSError as error:
            raise CommandError(f"{photo} cannot be read: {error.strerror}.") from error
        user = User.objects.guest(ACCOUNT)
        Profile.objects.filter(user=user).update(daily_run_limit=0)
        return services.start_run(user=user, photo=upload, preset=preset, strength=strength, seed=seed, fresh=True)

    def _follow(self, run: Run) -> None:
        """Work on the run beside, and say what its row says until it has ended. Ctrl-C cancels it."""

        def work() -> None:
            try:
                tasks.process(run.pk)
            finally:
                connections.close_all()

        worker = threading.Thread(target=work, name="generate")
        worker.start()
        said = ""
        try:
            while run.is_active:
                run.refresh_from_db()
                if run.get_phase_display() != said:
                    said = run.get_phase_display()
                    self.stderr.write(said)
                if run.status == Run.Status.QUEUED and not worker.is_alive():
                    tasks.process(run.pk)  # it was handed back to be tried again
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            services.cancel_run(run)
            raise CommandError("Cancelled.", returncode=130) from None
        finally:
            worker.join()
