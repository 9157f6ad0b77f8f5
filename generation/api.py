"""The API of presets, photos, runs and batches. A view finds, checks, calls one service, answers."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import django_filters
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Q, QuerySet
from django.http import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    inline_serializer,
)
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import limits
from accounts.limits import Limit
from accounts.pagination import NewestFirst
from accounts.throttling import ThrottledByMethod
from generation import photos, pictures, services
from generation.exceptions import IdempotencyKeyInvalid, IdempotencyKeyRequired, PhotoRequired
from generation.long_polls import places
from generation.models import (
    IdempotencyKey,
    Photo,
    Preset,
    PresetQuerySet,
    Run,
    release_connections,
)
from generation.modes import BATCHES, Mode
from generation.serializers import (
    BatchByIdSerializer,
    BatchRequestSerializer,
    BatchSerializer,
    FavouriteSerializer,
    ModeSerializer,
    PhotoSerializer,
    PresetSerializer,
    RunByIdSerializer,
    RunRequestSerializer,
    RunSerializer,
)
from notifications.emails import looks_at

MAX_WAIT_SECONDS = 25
LOOK_SECONDS = 0.25

KEY_HEADER = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, required=True, description="1–255 visible ASCII characters."
)


class RunFilter(django_filters.FilterSet):
    status = django_filters.ChoiceFilter(choices=Run.Status.choices)
    preset = django_filters.CharFilter(field_name="preset_slug")
    batch = django_filters.UUIDFilter()
    favourite = django_filters.BooleanFilter()

    class Meta:
        model = Run
        fields = ("status", "preset", "batch", "favourite")


class PresetFilter(django_filters.FilterSet):
    category = django_filters.ChoiceFilter(choices=Preset.Category.choices)
    tag = django_filters.CharFilter(lookup_expr="iexact")
    q = django_filters.CharFilter(method="search", label="Words of the name, tag or description")

    class Meta:
        model = Preset
        fields = ("category", "tag", "q")

    def search(self, presets: QuerySet[Preset], name: str, words: str) -> QuerySet[Preset]:
        for word in words.split()[:5]:
            found = Q(name__icontains=word) | Q(tag__icontains=word) | Q(description__icontains=word)
            presets = presets.filter(found)
        return presets


def idempotency_key(request: Request) -> str:
    """Return the request's key. Raises IdempotencyKeyRequired and IdempotencyKeyInvalid."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        raise IdempotencyKeyRequired
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise IdempotencyKeyInvalid
    return key


def _preferred_wait(request: Request) -> int:
    """Return how many seconds the client prefers to wait, at most 25; 0 for not at all."""
    preferred = re.search(r"\bwait=(\d{1,3})\b", request.headers.get("Prefer", ""), re.ASCII)
    return min(MAX_WAIT_SECONDS, int(preferred[1])) if preferred else 0


# -- Views ---------------------------------------------------------------------------------------------------


class PresetViewSet(viewsets.ReadOnlyModelViewSet):
    """The looks that a photo can be given."""

    queryset = Preset.objects.active().looks()
    serializer_class = PresetSerializer
    lookup_field = "slug"
    lookup_value_converter = "slug"
    filterset_class = PresetFilter
    pagination_class = None

    def get_queryset(self) -> PresetQuerySet:
        return super().get_queryset().sound()


class ModeViewSet(viewsets.ViewSet):
    """Modes make several runs of one photo."""

    @extend_schema(responses=ModeSerializer(many=True))
    def list(self, request: Request) -> Response:
        members = Preset.objects.active().filter(mode__in=list(BATCHES)).sound()
        modes = [
            {
                "slug": mode.slug,
                "name": mode.name,
                "description": mode.description,
                "members": [member for member in members if member.mode == mode.mode],
            }
            for mode in BATCHES.values()
        ]
        return Response(ModeSerializer(modes, many=True, context={"request": request}).data)


class PhotoViewSet(ThrottledByMethod, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """The photos that you sent. They are kept until you delete them."""

    lookup_value_converter = "uuid"
    queryset = Photo.objects.none()
    serializer_class = PhotoSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Photo]:
        return Photo.objects.for_user(self.request.user) if self.request.user.is_authenticated else self.queryset

    @extend_schema(
        request={"multipart/form-data": inline_serializer("PhotoUpload", {"photo": serializers.FileField()})},
        responses={201: PhotoSerializer, 200: PhotoSerializer},
    )
    def create(self, request: Request) -> Response:
        """Store a photo. The same bytes are the same photo, and are then answered with 200."""
        if not isinstance(request.data, dict) or not isinstance(file := request.data.get("photo"), UploadedFile):
            raise PhotoRequired
        limits.hit(request, Limit.UPLOADS)
        photo = services.accept_photo(request.user, photos.Upload(file.read(), file.name or ""))
        status = 201 if photo.is_new else 200
        headers = {"Location": reverse("api:photo-detail", args=[photo.pk])}
        return Response(self.get_serializer(photo).data, status=status, headers=headers)

    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Delete a photo and everything that was made of it, at the storage too."""
        services.delete_photo(self.get_object())
        return Response(status=204)


class RunViewSet(
    ThrottledByMethod,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    viewsets.GenericViewSet,
):
    """Runs: one request each to turn a photo into a picture."""

    lookup_value_converter = "uuid"
    queryset = Run.objects.none()
    serializer_class = RunSerializer
    pagination_class = NewestFirst
    filterset_class = RunFilter
    http_method_names: ClassVar = ["get", "post", "patch", "delete", "head", "options"]

    def get_queryset(self) -> QuerySet[Run]:
        if not self.request.user.is_authenticated:
            return self.queryset
        return Run.objects.for_user(self.request.user).select_related("photo").with_place()

    def filter_queryset(self, queryset: QuerySet[Run]) -> QuerySet[Run]:
        # The list's filters; a run that is asked for by its id has nothing to be filtered by, and polls come often.
        return super().filter_queryset(queryset) if self.action == "list" else queryset

    @extend_schema(
        request={"multipart/form-data": RunRequestSerializer, "application/json": RunByIdSerializer},
        responses={202: RunSerializer},
        parameters=[KEY_HEADER],
    )
    def create(self, request: Request) -> Response:
        """Accept a run. From then on it has a row, and its address answers until it has ended and after."""
        key = idempotency_key(request)
        asked = RunRequestSerializer(data=request.data, context=self.get_serializer_context())
        asked.is_valid(raise_exception=True)
        fields, photo = asked.validated_data, asked.chosen()
        limits.hit(request, Limit.RUNS)
        run = services.start_run(
            user=request.user,
            photo=photo,
            preset=fields.get("preset"),
            prompt=fields.get("prompt", ""),
            strength=fields.get("strength"),
            seed=fields.get("seed"),
            fresh=fields["fresh"],
            key=key,
        )
        location = reverse("api:run-detail", args=[run.pk])
        return accepted(request, key, run.replayed, lambda: self.get_serializer(run).data, location)

    @extend_schema(
        parameters=[
            OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER),
            OpenApiParameter(
                "Prefer", str, OpenApiParameter.HEADER, description="wait=N: wait up to 25 s for a change"
            ),
        ],
        responses={200: RunSerializer, 304: None},
    )
    def retrieve(self, request: Request, pk: uuid.UUID) -> Response:
        """Look at a run; with `Prefer: wait=N`, as soon as it ends or gets further.

        Without `Preference-Applied` in the response too many requests were waiting, and this one did not wait.
        """
        run = self.get_object()
        headers = {"Cache-Control": "private, no-cache"}
        if seconds := _preferred_wait(request):
            run, waited = self._wait_for_change(run, seconds)
            headers |= {"Preference-Applied": f"wait={seconds}"} if waited else {}
        if run.is_active:
            looks_at(run.batch or run.pk)
        # The addresses in the answer expire: who polls gets new ones in time.
        etag = headers["ETag"] = f'"{run.etag}-{pictures.window()}"'
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
        if etag in known:
            return Response(status=304, headers=headers)
        return Response(self.get_serializer(run).data, headers=headers)

    def _wait_for_change(self, run: Run, seconds: int) -> tuple[Run, bool]:
        """Return the run when it has got further or the time is up, and whether there was a place to wait in."""
        if not run.is_active:
            return run, True
        with places.place(self.request.user.pk) as is_held:
            if not is_held:
                return run, False
            looks_at(run.batch or run.pk, seconds=MAX_WAIT_SECONDS)
            return self._changed(run, seconds), True

    def _changed(self, run: Run, seconds: int) -> Run:
        until = time.monotonic() + seconds
        state = [(run.status, run.phase)]
        while time.monotonic() < until:
            # A request that waits holds no connection to the database.
            release_connections()
            time.sleep(LOOK_SECONDS)
            now = list(Run.objects.for_user(self.request.user).filter(pk=run.pk).values_list("status", "phase"))
            if now != state:
                return self.get_object()
        return run

    @extend_schema(request=FavouriteSerializer, responses=RunSerializer)
    def partial_update(self, request: Request, pk: uuid.UUID) -> Response:
        """Mark as a favourite, or not any more."""
        run = self.get_object()
        asked = FavouriteSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        if "favourite" in asked.validated_data:
            run.favourite = asked.validated_data["favourite"]
            Run.objects.filter(pk=run.pk).update(favourite=run.favourite)
        return Response(self.get_serializer(run).data)

    def destroy(self, request: Request, pk: uuid.UUID) -> Response:
        """Delete a run and its stored result; one that is running is cancelled."""
        services.delete_run(self.get_object())
        return Response(status=204)

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: uuid.UUID) -> Response:
        """Cancel a run: a waiting one ends at once, a running one drops its result when it comes."""
        run = services.cancel_run(self.get_object())
        return Response(self.get_serializer(run).data)

    @extend_schema(request=None, responses={202: RunSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: uuid.UUID) -> Response:
        """Make a new run from the photo and snapshot of one that failed or was cancelled."""
        found = self.get_object()
        limits.hit(request, Limit.RUNS)
        run = services.retry_run(found)
        headers = {"Location": reverse("api:run-detail", args=[run.pk])}
        return Response(self.get_serializer(run).data, status=202, headers=headers)

    @extend_schema(
        parameters=[OpenApiParameter("format", str, enum=["original", "jpeg", "webp", "png"], default="original")],
        responses={(200, "image/*"): bytes},
    )
    @action(detail=True, methods=["get"])
    def download(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        """Download the result, in the format that is asked for, under a readable name."""
        run = self.get_object()
        if not run.result:
            raise NotFound
        content_type = photos.download_type(run, request.query_params.get("format", "original"))
        if content_type is None:
            raise serializers.ValidationError({"format": [_("One of original, jpeg, webp, png.")]})
        return pictures.attachment(request, run, content_type)


class BatchViewSet(ThrottledByMethod, viewsets.ViewSet):
    """Batches: several runs of one photo, asked for at once. Each ends, counts and is retried on its own."""

    lookup_value_converter = "uuid"

    @extend_schema(
        request={"multipart/form-data": BatchRequestSerializer, "application/json": BatchByIdSerializer},
        responses={202: BatchSerializer},
        parameters=[KEY_HEADER],
    )
    def create(self, request: Request) -> Response:
        key = idempotency_key(request)
        asked = BatchRequestSerializer(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        fields, photo = asked.validated_data, asked.chosen()
        limits.hit(request, Limit.RUNS, amount=asked.number_of_runs)
        runs = services.start_batch(
            user=request.user,
            photo=photo,
            mode=Mode(fields["mode"]) if "mode" in fields else None,
            presets=fields.get("presets") or [one for one in [fields.get("preset")] if one],
            variations=fields.get("variations", 1),
            key=key,
        )
        location = reverse("api:batch-detail", args=[runs[0].batch])
        return accepted(request, key, runs[0].replayed, lambda: self._data(request, runs), location)

    @extend_schema(responses=BatchSerializer, parameters=[OpenApiParameter("id", uuid.UUID, OpenApiParameter.PATH)])
    def retrieve(self, request: Request, pk: uuid.UUID) -> Response:
        runs = list(Run.objects.for_user(request.user).select_related("photo").with_place().filter(batch=pk))
        if not runs:
            raise NotFound
        looks_at(pk)
        return Response(self._data(request, runs[::-1]))

    def _data(self, request: Request, runs: list[Run]) -> dict[str, Any]:
        latest = [run for run in runs if not any(other.retry_of_id == run.pk for other in runs)]
        good = sum(run.status == Run.Status.SUCCEEDED for run in latest)
        status = "partial" if good else "failed"
        if any(run.is_active for run in latest):
            status = "running"
        elif good == len(latest):
            status = "succeeded"
        batch = {"id": runs[0].batch, "mode": runs[0].mode, "status": status, "runs": runs}
        data: dict[str, Any] = BatchSerializer(batch, context={"request": request}).data
        return data


def accepted(request: Request, key: str, replayed: bool, data: Callable[[], Any], location: str) -> Response:
    """Answer 202; the same request with the same key is answered with the same words and fresh addresses."""
    known = IdempotencyKey.objects.filter(user=request.user, key=key)
    headers = {"Location": location}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
        given = known.values_list("answer", flat=True).first()
        said = pictures.signed_again(given, request.user) if given else data()
        return Response(said, status=202, headers=headers)
    said = json.loads(JSONRenderer().render(data()))
    known.update(answer=said)
    return Response(said, status=202, headers=headers)
