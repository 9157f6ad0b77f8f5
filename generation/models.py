"""Presets, photos and runs. What a row may hold is said here by constraints, and how a run's status may change."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from django.conf import settings
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import connection, connections, models
from django.db.models import Case, Count, Exists, ExpressionWrapper, F, OuterRef, Q, Subquery, Sum, When
from django.db.models.functions import Coalesce, Now
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from generation.engine import recipes
from generation.exceptions import ContentFiltered
from generation.modes import Mode

if TYPE_CHECKING:
    from accounts.models import User

log = structlog.get_logger("generation")

MIN_STRENGTH, MAX_STRENGTH = 0.05, 1.0
MAX_SEED = 2_147_483_647
MAX_PROMPT_LENGTH = 2_000
SAY_AGAIN_SECONDS = 60
SUSPECT_CRASHES = 2
EXPORT_FAILED = gettext_noop("Your export could not be made. Please try again later.")

strength_validators = [MinValueValidator(MIN_STRENGTH), MaxValueValidator(MAX_STRENGTH)]
seed_validators = [MinValueValidator(1), MaxValueValidator(MAX_SEED)]


def validate_recipe(value: object) -> None:
    problems = recipes.problems(value)
    if problems:
        raise ValidationError(problems)


def spoken_language() -> str:
    """Return the language that is being spoken: the user's of this request, or the installation's."""
    return translation.get_language() or settings.LANGUAGE_CODE


def database_time(plus: timedelta = timedelta()) -> models.Expression:
    """Now by the database's clock: workers' clocks differ, and leases must not."""
    return ExpressionWrapper(Now() + plus, output_field=models.DateTimeField())


def database_now() -> datetime:
    """Return the time by the database's clock."""
    statement = "SELECT CURRENT_TIMESTAMP"
    if connection.vendor == "sqlite":
        statement = "SELECT strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"
    with connection.cursor() as cursor:
        cursor.execute(statement)
        (now,) = cursor.fetchone()
    return datetime.fromisoformat(now) if isinstance(now, str) else now


def release_connections() -> None:
    """Give this thread's database connections back: whoever waits for somebody else may wait long."""
    for used in connections.all(initialized_only=True):
        if not used.in_atomic_block:
            used.close()


class PresetQuerySet(models.QuerySet["Preset"]):
    def active(self) -> PresetQuerySet:
        return self.filter(is_active=True)

    def looks(self) -> PresetQuerySet:
        """The presets that are picked one at a time."""
        return self.filter(mode=Mode.PRESET)

    def members(self, mode: str) -> PresetQuerySet:
        return self.filter(mode=mode)

    def sound(self) -> PresetQuerySet:
        """Leave out the rows that nothing can be made with, and log them: one bad row hides no good one."""
        broken = [preset for preset in self if preset.problems]
        for preset in broken:
            # Pages ask all the time; once in a while is enough to be heard.
            if cache.add(f"preset_skipped:{preset.pk}", 1, SAY_AGAIN_SECONDS):
                log.warning("preset_skipped", preset_id=preset.slug, detail=" ".join(preset.problems))
        return self.exclude(pk__in=[preset.pk for preset in broken]) if broken else self


class Preset(models.Model):
    """A named look, or a member of a mode such as a mood."""

    class Category(models.TextChoices):
        MINIMALIST = "minimalist", _("Minimalist")
        CINEMATIC = "cinematic", _("Cinematic")
        VIBRANT = "vibrant", _("Vibrant")
        VINTAGE = "vintage", _("Vintage")
        TRAVEL = "travel", _("Travel")
        URBAN = "urban", _("Urban")
        BLACK_WHITE = "black_white", _("Black & White")
        SOFT = "soft", _("Soft")
        WARM = "warm", _("Warm")
        COOL = "cool", _("Cool")
        EDITORIAL = "editorial", _("Editorial")
        PORTRAIT = "portrait", _("Portrait")
        NATURE = "nature", _("Nature")
        MOODY = "moody", _("Moody")
        ARTISTIC = "artistic", _("Artistic")

    slug = models.CharField(
        max_length=50,
        unique=True,
        validators=[RegexValidator(r"^[a-z][a-z0-9_]*$", _("Small letters, digits and underscores."))],
        help_text=_("Never changes: clients and past runs refer to it."),
    )
    name = models.CharField(max_length=80)
    tag = models.CharField(max_length=40)
    category = models.CharField(max_length=20, choices=Category.choices)
    mode = models.CharField(
        max_length=20,
        choices=[(Mode.PRESET.value, _("Preset")), (Mode.MOODMORPH.value, _("A mood of MoodMorph"))],
        default=Mode.PRESET,
    )
    description = models.CharField(max_length=200, blank=True)
    prompt = models.TextField(max_length=MAX_PROMPT_LENGTH)
    negative_prompt = models.TextField(
        max_length=MAX_PROMPT_LENGTH,
        blank=True,
        help_text=_("Models without one get it folded into the prompt."),
    )
    strength = models.FloatField(
        validators=strength_validators, help_text=_("How far the picture may move from the photo, 0.05 to 1.")
    )
    default_seed = models.PositiveIntegerField(null=True, blank=True, validators=seed_validators)
    recipe = models.JSONField(validators=[validate_recipe], help_text=_("What the built-in engine does."))
    is_active = models.BooleanField(_("active"), default=True)
    position = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = PresetQuerySet.as_manager()

    class Meta:
        ordering = ["position", "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(strength__gte=MIN_STRENGTH, strength__lte=MAX_STRENGTH),
                name="preset_strength_in_range",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def problems(self) -> list[str]:
        """Say what is wrong with the row, which somebody may have changed by hand: none when it can be used."""
        try:
            self.clean_fields()
        except ValidationError as error:
            return [f"{name}: {'; '.join(messages)}" for name, messages in error.message_dict.items()]
        return []

    @property
    def is_usable(self) -> bool:
        return self.is_active and not self.problems

    def get_preview_url(self) -> str:
        # The number changes with the row, so a browser may keep the picture.
        return f"{reverse('preview', args=[self.slug])}?v={int(self.updated_at.timestamp())}"


def random_path(folder: str, extension: str) -> str:
    """Return a new name in the storage that says nothing about whose picture it is."""
    name = uuid.uuid4().hex
    return f"{folder}/{name[:2]}/{name}.{extension}"


class PhotoQuerySet(models.QuerySet["Photo"]):
    def for_user(self, user: User) -> PhotoQuerySet:
        return self.filter(user=user, deleted_at=None)


class Photo(models.Model):
    """The picture that came in, normalised and stored; one per user and content."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="photos")
    sha256 = models.CharField(max_length=64, help_text="Of the bytes as they were sent.")
    name = models.CharField(max_length=200, blank=True, help_text="What the user called the file; text only.")
    file = models.FileField(max_length=200)
    thumbnail = models.FileField(max_length=200)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    bytes = models.PositiveIntegerField()
    content_type = models.CharField(max_length=20)
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, blank=True)
    # Known only to who has just stored it; a photo that was there already cost no upload.
    upload_ms: int | None = None

    objects = PhotoQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["user", "sha256"], name="photo_once_per_user")]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_new(self) -> bool:
        """Whether this request stored it."""
        return self.upload_ms is not None


class RunQuerySet(models.QuerySet["Run"]):
    def for_user(self, user: User) -> RunQuerySet:
        return self.filter(user=user, deleted_at=None)

    def active(self) -> RunQuerySet:
        return self.filter(status__in=Run.ACTIVE)

    def last_tries(self) -> RunQuerySet:
        """Leave out what was tried again."""
        return self.filter(~Exists(Run.objects.filter(retry_of=OuterRef("pk"))))

    def older_than(self, run: Run) -> RunQuerySet:
        """What follows a run in a list that has the newest first, found at once however long the list is."""
        return self.filter(created_at__lte=run.created_at).exclude(created_at=run.created_at, id__gte=run.pk)

    def counted_today(self) -> RunQuerySet:
        """The runs that use up today's limit (contracts.md, section 2). `Run.counted` says the same of one run."""
        filtered = Q(billed_calls__gt=0, error_code=ContentFiltered.code)
        cancelled = Q(status=Run.Status.CANCELLED) & (Q(billed_calls__gt=0) | Q(possible_cost__gt=0))
        wanted = Q(status__in=[*Run.ACTIVE, Run.Status.SUCCEEDED])
        return self.today().filter(wanted | cancelled | filtered, cached=False)

    def today(self) -> RunQuerySet:
        """The runs that were asked for since midnight, UTC."""
        return self.filter(created_at__gte=timezone.now().replace(hour=0, minute=0, second=0, microsecond=0))

    def filtered_today(self) -> RunQuerySet:
        """Today's runs that a service was paid for and whose picture its safety filter hid, also if cancelled."""
        return self.today().filter(billed_calls__gt=0, error_code=ContentFiltered.code)

    def billed_calls_today(self) -> int:
        """Count the calls of today's runs that are or may be billed: made, never answered, or still to be made."""
        waiting = self._billed_today().filter(status=Run.Status.QUEUED, billed_calls=0)
        return self.calls_made_today() + waiting.count()

    def calls_made_today(self) -> int:
        """Count the calls of today's runs that were or may have been made."""
        runs = self._billed_today()
        made = runs.aggregate(calls=Coalesce(Sum(F("billed_calls") + F("possible_cost")), 0))["calls"]
        return int(made) + runs.filter(status=Run.Status.RUNNING, billed_calls=0).count()

    def _billed_today(self) -> RunQuerySet:
        return self.today().filter(cached=False).exclude(provider="embedded")

    def due(self) -> RunQuerySet:
        """Queued runs that may start now, oldest first."""
        return self.filter(Q(run_after=None) | Q(run_after__lte=Now()), status=Run.Status.QUEUED).order_by(
            "created_at", "id"
        )

    def renew_leases(self, worker: str, run_ids: Iterable[uuid.UUID]) -> int:
        """Renew the leases of runs that a worker holds, by the database's clock.

        Not of all rows that name it: of a claim whose confirmation was lost the worker does not know.
        """
        until = database_time(timedelta(seconds=settings.RUN_LEASE_SECONDS))
        return self.filter(pk__in=run_ids, status=Run.Status.RUNNING, worker=worker).update(leased_until=until)

    def with_place(self) -> RunQuerySet:
        """Count for each queued run how many stand before it, in the query that reads them."""
        before = Run.objects.filter(status=Run.Status.QUEUED, created_at__lt=OuterRef("created_at")).order_by()
        counted = Subquery(before.values("status").annotate(count=Count("pk")).values("count"))
        return self.annotate(queued_ahead=Case(When(status=Run.Status.QUEUED, then=Coalesce(counted, 0)), default=0))

    def binned(self) -> RunQuerySet:
        """Runs that were taken away and whose pictures are still there."""
        return self.filter(deleted_at__isnull=False).exclude(result="")

    def lost(self) -> RunQuerySet:
        """Running runs whose worker stopped renewing its lease."""
        return self.filter(status=Run.Status.RUNNING, leased_until__lt=Now())

    def reusable(self, fingerprint: str) -> RunQuerySet:
        """Earlier results that a run with this fingerprint would only repeat."""
        return self.filter(fingerprint=fingerprint, status=Run.Status.SUCCEEDED, deleted_at=None).exclude(result="")

    def suspects(self) -> RunQuerySet:
        """Runs that were held by two workers when these died: the next one works on nothing else meanwhile."""
        return self.filter(crashes__gte=SUSPECT_CRASHES)

    def claim(self, run_id: uuid.UUID, worker: str, *, alone: bool = False) -> Run | None:
        """Take a queued run for a worker, or return None if another was faster.

        A suspect is taken only by a worker that holds nothing else, and says so by `alone`.
        """
        claimed = (
            (self.due().suspects() if alone else self.due().filter(crashes__lt=SUSPECT_CRASHES))
            .filter(pk=run_id)
            .order_by()
            .update(
                status=Run.Status.RUNNING,
                phase=Run.Phase.SUBMITTING,
                attempts=F("attempts") + 1,
                worker=worker,
                leased_until=database_time(timedelta(seconds=settings.RUN_LEASE_SECONDS)),
                started_at=Coalesce("started_at", Now()),
                run_after=None,
            )
        )
        if not claimed:
            return None
        run = self.select_related("photo").annotate(claimed_at=Now()).get(pk=run_id)
        run.claimed_at_tick = time.monotonic()
        return run


class Run(models.Model):
    """One request to turn one photo into one result: record, queue entry, cache entry and metric."""

    class Status(models.TextChoices):
        QUEUED = "queued", _("Waiting")
        RUNNING = "running", _("Creating")
        SUCCEEDED = "succeeded", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    class Phase(models.TextChoices):
        QUEUED = "queued", _("Waiting")
        SUBMITTING = "submitting", _("Preparing")
        GENERATING = "generating", _("Creating")
        STORING = "storing", _("Saving")
        DONE = "done", _("Done")

    ACTIVE = (Status.QUEUED, Status.RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # The index of the history begins with it.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="runs", db_index=False)
    photo = models.ForeignKey(Photo, on_delete=models.CASCADE, related_name="runs")
    mode = models.CharField(max_length=20, choices=Mode.choices, default=Mode.PRESET)
    batch = models.UUIDField(null=True, blank=True, db_index=True)
    retry_of = models.OneToOneField("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="retried_by")

    # Where it stands.
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    phase = models.CharField(max_length=10, choices=Phase.choices, default=Phase.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    crashes = models.PositiveIntegerField(default=0, help_text=_("Attempts whose worker died."))
    error_code = models.CharField(max_length=40, blank=True)
    error_message = models.CharField(max_length=200, blank=True)
    error_retryable = models.BooleanField(default=True)
    worker = models.CharField(max_length=100, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    run_after = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)

    # The snapshot: what it is made from, whatever happens to the preset.
    preset = models.ForeignKey(Preset, on_delete=models.SET_NULL, null=True, blank=True, related_name="runs")
    preset_slug = models.CharField(max_length=50)
    preset_name = models.CharField(max_length=80)
    preset_tag = models.CharField(max_length=40)
    prompt = models.TextField(blank=True)
    negative_prompt = models.TextField(blank=True)
    strength = models.FloatField()
    seed = models.PositiveIntegerField()
    recipe = models.JSONField(null=True, blank=True)
    provider = models.CharField(max_length=20)
    model = models.CharField(max_length=80, blank=True)
    steps = models.PositiveIntegerField(null=True, blank=True)
    guidance = models.FloatField(null=True, blank=True)
    fingerprint = models.CharField(max_length=64)

    # What the service said. Written before the picture is fetched, so that nobody pays for it twice.
    result_url = models.TextField(blank=True, help_text=_("Where the service keeps the picture until we have it."))
    endpoint = models.CharField(max_length=100, blank=True)
    upstream_request_id = models.CharField(max_length=100, blank=True)
    upstream_seed = models.PositiveBigIntegerField(null=True, blank=True)
    possible_cost = models.PositiveIntegerField(default=0, help_text=_("Calls that were sent and never answered."))
    billed_calls = models.PositiveIntegerField(
        default=0, db_default=0, help_text=_("Calls that were answered and have to be paid.")
    )

    # What came out.
    result = models.FileField(max_length=200, blank=True)
    thumbnail = models.FileField(max_length=200, blank=True)
    width = models.PositiveIntegerField(null=True, blank=True)
    height = models.PositiveIntegerField(null=True, blank=True)
    bytes = models.PositiveIntegerField(null=True, blank=True)
    content_type = models.CharField(max_length=20, blank=True)
    source_type = models.CharField(max_length=60, blank=True, help_text=_("The mark of generated content."))
    cached = models.BooleanField(default=False, help_text=_("Answered with an earlier result; costs nothing."))
    favourite = models.BooleanField(default=False)

    # What its user was spoken to in: a worker, which writes the news, has nobody's browser to go by.
    language = models.CharField(max_length=10, default=spoken_language, editable=False)

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    deleted_at = models.DateTimeField(null=True, blank=True)
    queue_ms = models.PositiveIntegerField(null=True, blank=True)
    upload_ms = models.PositiveIntegerField(null=True, blank=True)
    model_ms = models.PositiveIntegerField(null=True, blank=True)
    store_ms = models.PositiveIntegerField(null=True, blank=True)
    total_ms = models.PositiveIntegerField(null=True, blank=True)

    # Said by services to whoever asked: the same request with the same key had been accepted before.
    replayed = False
    claimed_at_tick = 0.0

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["user", "-created_at", "-id"], name="run_history"),
            models.Index(fields=["user"], condition=Q(status__in=["queued", "running"]), name="run_active"),
            models.Index(fields=["-created_at", "-id"], name="run_newest"),
            models.Index(fields=["created_at", "id"], condition=Q(status="queued"), name="run_queue"),
            models.Index(fields=["leased_until"], condition=Q(status="running"), name="run_leases"),
            models.Index(fields=["fingerprint"], condition=Q(status="succeeded"), name="run_reusable"),
            models.Index(fields=["result"], condition=~Q(result=""), name="run_result"),
            models.Index(fields=["-created_at"], condition=Q(status="succeeded", cached=False), name="run_recent"),
            models.Index(fields=["finished_at"], condition=Q(finished_at__isnull=False), name="run_ended"),
            models.Index(
                fields=["deleted_at"], condition=Q(deleted_at__isnull=False) & ~Q(result=""), name="run_binned"
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(strength__gte=MIN_STRENGTH, strength__lte=MAX_STRENGTH),
                name="run_strength_in_range",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running"], finished_at=None)
                | Q(status__in=["succeeded", "failed", "cancelled"], finished_at__isnull=False),
                name="run_finished_when_ended",
            ),
            models.CheckConstraint(
                condition=Q(status="running", leased_until__isnull=False) | ~Q(status="running") & Q(leased_until=None),
                name="run_leased_while_running",
            ),
            models.CheckConstraint(
                condition=~Q(status="succeeded") | Q(deleted_at__isnull=False) | ~Q(result=""),
                name="run_succeeded_with_result",
            ),
            models.CheckConstraint(condition=~Q(status="failed") | ~Q(error_code=""), name="run_failed_with_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.look} · {self.get_status_display()}"

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.pk])

    def get_batch_url(self) -> str:
        return reverse("batch", args=[self.batch])

    @property
    def look(self) -> str:
        """What it is called: a preset's name, the same in every language, or that it was made from the user's words."""
        return gettext(self.preset_name)

    @property
    def is_active(self) -> bool:
        return self.status in self.ACTIVE

    @property
    def can_retry(self) -> bool:
        return self.status in (self.Status.FAILED, self.Status.CANCELLED)

    def stronger(self, step: float) -> float:
        return round(min(MAX_STRENGTH, max(MIN_STRENGTH, self.strength + step)), 2)

    @property
    def counted(self) -> bool:
        """Whether it uses up some of the day's limit: what was paid for does, whatever its user wants of it."""
        if self.cached:
            return False
        if self.status == self.Status.CANCELLED:
            return self.billed_calls + self.possible_cost > 0
        filtered = self.billed_calls > 0 and self.error_code == ContentFiltered.code
        return filtered or self.status in (*self.ACTIVE, self.Status.SUCCEEDED)

    @property
    def deadline(self) -> datetime:
        return self.created_at + timedelta(seconds=settings.RUN_DEADLINE_SECONDS)

    @property
    def seconds_left(self) -> float:
        """What is left until the deadline, by the database's clock from the claim on: a worker's own may be wrong."""
        now = timezone.now()
        if claimed_at := getattr(self, "claimed_at", None):
            now = claimed_at + timedelta(seconds=time.monotonic() - self.claimed_at_tick)
        return (self.deadline - now).total_seconds()

    @property
    def queue_position(self) -> int | None:
        if self.status != self.Status.QUEUED:
            return None
        ahead: int | None = getattr(self, "queued_ahead", None)
        if ahead is None:
            ahead = Run.objects.filter(status=self.Status.QUEUED, created_at__lt=self.created_at).count()
        return ahead + 1

    @property
    def poll_after_ms(self) -> int | None:
        """How long to wait before asking again: a second at first, and more the longer it takes."""
        if not self.is_active:
            return None
        age = (timezone.now() - self.created_at).total_seconds()
        return 1000 if age < 20 else 2000 if age < 60 else 5000

    @property
    def etag(self) -> str:
        """Name the state that polls show: while it is the same, so is the answer, but for signed addresses."""
        got_to = (self.pk, self.status, self.phase, self.attempts, self.queue_position, self.error_code)
        told = (self.cancel_requested_at, self.favourite, self.poll_after_ms, translation.get_language())
        return hashlib.sha256(repr((got_to, told)).encode()).hexdigest()[:32]

    # Every change of status names the status and the attempt that it leaves. A worker that slept through its lease
    # changes no row, is told so by False, and its result is dropped.

    def _mine(self) -> RunQuerySet:
        return Run.objects.filter(pk=self.pk, status=self.Status.RUNNING, attempts=self.attempts)

    def enter(self, phase: Phase, **facts: Any) -> bool:
        """Say how far this attempt is; False when the run is no longer this worker's."""
        self.phase = phase
        for name, value in facts.items():
            setattr(self, name, value)
        return bool(self._mine().update(phase=phase, **facts))

    def succeed(self, **result: Any) -> bool:
        wanted = self._mine().filter(cancel_requested_at=None)
        return self._end(wanted, self.Status.SUCCEEDED, error_code="", error_message="", **result)

    def fail(self, *, code: str, message: str, retryable: bool = True, possible_cost: bool = False) -> bool:
        return self._end(
            self._as_seen().filter(status__in=self.ACTIVE, cancel_requested_at=None),
            self.Status.FAILED,
            error_code=code,
            error_message=message[:200],
            error_retryable=retryable,
            possible_cost=F("possible_cost") + int(possible_cost),
        )

    def requeue(
        self, *, code: str = "", message: str = "", after: timedelta = timedelta(), crashed: bool = False
    ) -> bool:
        """Hand the run back to the queue, to be tried again after a while.

        A picture that the service has already made needs only to be fetched and stored, and the page goes on saying so.
        """
        return bool(
            self._mine()
            .filter(cancel_requested_at=None)
            .update(
                status=self.Status.QUEUED,
                phase=self.Phase.STORING if self.result_url else self.Phase.QUEUED,
                error_code=code,
                error_message=message[:200],
                leased_until=None,
                worker="",
                crashes=F("crashes") + int(crashed),
                possible_cost=F("possible_cost") + int(self.is_unanswered and (crashed or code == "worker_stopped")),
                run_after=database_time(after) if after else None,
            )
        )

    @property
    def is_unanswered(self) -> bool:
        """Whether this attempt has sent a call that may be billed, and knows of no answer."""
        return self.phase == self.Phase.GENERATING and not self.result_url and self.provider != "embedded"

    def cancel(self, *, possible_cost: bool = False) -> bool:
        """End a waiting run, or one whose cancelling was asked for while it was running."""
        waiting = Q(status=self.Status.QUEUED) | Q(status=self.Status.RUNNING, cancel_requested_at__isnull=False)
        cost = F("possible_cost") + int(possible_cost)
        return self._end(self._as_seen().filter(waiting), self.Status.CANCELLED, possible_cost=cost)

    def request_cancel(self) -> bool:
        """Mark a running run, so that its worker drops the result when it comes."""
        return bool(self._mine().filter(cancel_requested_at=None).update(cancel_requested_at=Now()))

    def _as_seen(self) -> RunQuerySet:
        return Run.objects.filter(pk=self.pk, status=self.status, attempts=self.attempts)

    def _end(self, wanted: RunQuerySet, status: Status, **facts: Any) -> bool:
        now = timezone.now()
        ended = wanted.update(
            status=status,
            phase=self.Phase.DONE,
            result_url="",
            leased_until=None,
            run_after=None,
            finished_at=now,
            total_ms=max(0, round((now - self.created_at).total_seconds() * 1000)),
            **facts,
        )
        if ended:
            self.status, self.error_code = status, facts.get("error_code", self.error_code)
        return bool(ended)


class ExportQuerySet(models.QuerySet["Export"]):
    def for_user(self, user: User) -> ExportQuerySet:
        return self.filter(user=user)

    def active(self) -> ExportQuerySet:
        return self.filter(state__in=Export.ACTIVE)

    def ready(self) -> ExportQuerySet:
        return self.filter(state=Export.State.READY, expires_at__gt=Now())

    def outdated(self) -> ExportQuerySet:
        """Exports whose file is still there after its time."""
        return self.filter(state=Export.State.READY, expires_at__lte=Now())

    def claim(self, worker: str, dead_workers: Iterable[str] = ()) -> Export | None:
        """Take the oldest export that is due, or that a dead worker left; None if there is none."""
        waiting = Q(state=Export.State.QUEUED) & (Q(run_after=None) | Q(run_after__lte=Now()))
        lost = Q(state=Export.State.RUNNING) & (Q(leased_until__lt=Now()) | Q(worker__in=list(dead_workers)))
        for export in self.filter(waiting | lost).order_by("created_at")[:10]:
            claimed = self.filter(pk=export.pk, state=export.state, attempts=export.attempts).update(
                state=Export.State.RUNNING,
                attempts=F("attempts") + 1,
                failures=F("failures") + int(export.state == Export.State.RUNNING),
                worker=worker,
                leased_until=database_time(Export.LEASE),
                run_after=None,
            )
            if claimed:
                return self.get(pk=export.pk)
        return None


class Export(models.Model):
    """Everything that we hold about a user, as a file for a few days: record and queue entry."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        READY = "ready"
        FAILED = "failed"
        EXPIRED = "expired"

    ACTIVE = (State.QUEUED, State.RUNNING)
    # Longer than storing the file may take, during which no lease is renewed.
    LEASE = timedelta(minutes=10)
    LIFETIME = timedelta(days=7)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # Without a constraint: code of the release before this table deletes accounts beside it. Clean-up finds the rows.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="exports", db_constraint=False
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0, help_text=_("Attempts that failed or whose worker died."))
    error_code = models.CharField(max_length=40, blank=True)
    worker = models.CharField(max_length=100, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    run_after = models.DateTimeField(null=True, blank=True)
    file = models.FileField(max_length=200, blank=True)
    bytes = models.PositiveBigIntegerField(null=True, blank=True)
    language = models.CharField(max_length=10, default=spoken_language, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = ExportQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["user", "-created_at"], name="export_list"),
            models.Index(fields=["created_at"], condition=Q(state__in=["queued", "running"]), name="export_queue"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["user"], condition=Q(state__in=["queued", "running"]), name="export_one_at_a_time"
            ),
            models.CheckConstraint(
                condition=~Q(state="ready") | (~Q(file="") & Q(expires_at__isnull=False)),
                name="export_ready_with_file",
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_active(self) -> bool:
        return self.state in self.ACTIVE

    @property
    def is_ready(self) -> bool:
        return self.state == self.State.READY and self.expires_at is not None and self.expires_at > timezone.now()

    # As with runs: a worker that lost its lease matches no row.

    def _mine(self) -> ExportQuerySet:
        return Export.objects.filter(pk=self.pk, state=self.State.RUNNING, attempts=self.attempts)

    def renew_lease(self) -> bool:
        return bool(self._mine().update(leased_until=database_time(self.LEASE)))

    def finish(self, *, file: str, size: int) -> bool:
        now = timezone.now()
        ended = {"finished_at": now, "expires_at": now + self.LIFETIME, "leased_until": None}
        return bool(self._mine().update(state=self.State.READY, file=file, bytes=size, error_code="", **ended))

    def requeue(self, *, code: str = "", after: timedelta = timedelta()) -> bool:
        """Hand the export back to the queue; with a code it counts as a failed attempt."""
        changes = {"leased_until": None, "worker": "", "run_after": database_time(after) if after else None}
        failures = F("failures") + int(bool(code))
        return bool(self._mine().update(state=self.State.QUEUED, error_code=code, failures=failures, **changes))

    def fail(self, code: str) -> bool:
        ended = {"finished_at": timezone.now(), "leased_until": None}
        return bool(self._mine().update(state=self.State.FAILED, error_code=code, **ended))

    def expire(self) -> bool:
        """Mark a ready export as one whose file is deleted."""
        ready = Export.objects.filter(pk=self.pk, state=self.State.READY)
        return bool(ready.update(state=self.State.EXPIRED, file=""))


class IdempotencyKey(models.Model):
    """A request that was accepted once. Written in the transaction that makes its runs, so it is never half done."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="Of the request: the same key with another one is refused.")
    runs = models.JSONField(help_text="Ids of the runs that the request made.")
    answer = models.JSONField(null=True, help_text="What the API answered; the pages need none.")
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once_per_user")]

    def __str__(self) -> str:
        return self.key


class BilledDay(models.Model):
    """A day (UTC) of calls that the installation pays for: its row is the lock of whoever counts them.

    Calls are counted on the runs. Here are those on no run: of accounts that were deleted since, and of preset trials.
    """

    day = models.DateField(primary_key=True)
    other_calls = models.PositiveIntegerField(default=0, db_default=0)

    def __str__(self) -> str:
        return str(self.day)


class CountedRuns(models.Model):
    """The numbers of all runs that ended in one hour or day (UTC), so that nobody has to read their rows again."""

    class Step(models.TextChoices):
        HOUR = "hour"
        DAY = "day"

    step = models.CharField(max_length=4, choices=Step.choices)
    start = models.DateTimeField()
    numbers = models.JSONField(help_text="By preset and by user; generation/metrics.py writes and reads them.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["step", "start"], name="runs_counted_once")]

    def __str__(self) -> str:
        return f"{self.step} of {self.start:%Y-%m-%d %H:%M}"
