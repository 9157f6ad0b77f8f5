"""What the API takes and gives. Fields are a contract: clients are built on them."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext as _
from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema_field,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.request import Request

from accounts import limits
from accounts.api_fields import ShortListField
from accounts.limits import Limit
from generation import photos, pictures, services, showing
from generation.exceptions import PhotoRequired
from generation.models import MAX_PROMPT_LENGTH, MAX_SEED, MAX_STRENGTH, MIN_STRENGTH, Photo, Preset, Run
from generation.modes import BATCH_CHOICES, Mode

MAX_SLUG_LENGTH = 50
EXAMPLE_ID = "3f0c7d52-2a0f-4a4e-9a0a-6a4f3f0f7c11"


# -- What is answered ----------------------------------------------------------------------------------------


def absolute(context: dict[str, Any], path: str) -> str:
    """Make an address that works without signing in, for some minutes, from anywhere.

    The rows of an answer are all of the user who asks, so none of them is read for it. Outside of a request nobody has
    asked, and the address is not signed.
    """
    request: Request | None = context.get("request")
    if request is None:
        return f"{settings.SITE_URL}{path}"
    return request.build_absolute_uri(pictures.signed(path, request.user))


class PresetSerializer(serializers.ModelSerializer):
    preview = serializers.SerializerMethodField()
    supports = serializers.SerializerMethodField()

    class Meta:
        model = Preset
        fields = ("slug", "name", "tag", "category", "description", "strength", "default_seed", "preview", "supports")

    def to_representation(self, preset: Preset) -> dict[str, Any]:
        data: dict[str, Any] = super().to_representation(preset)
        return data | {"description": _(data["description"])}

    def get_preview(self, preset: Preset) -> dict[str, str]:
        request: Request = self.context["request"]
        before = request.build_absolute_uri(reverse("preview_before"))
        return {"before": before, "after": request.build_absolute_uri(preset.get_preview_url())}

    def get_supports(self, preset: Preset) -> dict[str, bool]:
        return {"strength": True, "seed": True, "prompt": services.takes_prompts()}


class PresetBriefSerializer(serializers.Serializer):
    slug = serializers.CharField()
    name = serializers.CharField()
    tag = serializers.CharField()


class ModeSerializer(serializers.Serializer):
    slug = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    members = PresetSerializer(many=True)


class PhotoSerializer(serializers.ModelSerializer):
    url = serializers.SerializerMethodField()
    thumbnail_url = serializers.SerializerMethodField()

    class Meta:
        model = Photo
        fields = ("id", "url", "thumbnail_url", "width", "height", "bytes", "content_type", "created_at")

    def get_url(self, photo: Photo) -> str:
        return absolute(self.context, reverse("photo", args=[photo.pk, "picture"]))

    def get_thumbnail_url(self, photo: Photo) -> str:
        return absolute(self.context, reverse("photo", args=[photo.pk, "thumbnail"]))


class ResultSerializer(serializers.Serializer):
    url = serializers.URLField()
    thumbnail_url = serializers.URLField()
    download_url = serializers.URLField()
    width = serializers.IntegerField()
    height = serializers.IntegerField()
    bytes = serializers.IntegerField()
    content_type = serializers.CharField()


class RunErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    retryable = serializers.BooleanField()


class TimingsSerializer(serializers.Serializer):
    queue_ms = serializers.IntegerField(allow_null=True)
    upload_ms = serializers.IntegerField(allow_null=True)
    model_ms = serializers.IntegerField(allow_null=True)
    store_ms = serializers.IntegerField(allow_null=True)
    total_ms = serializers.IntegerField(allow_null=True)


class RunSerializer(serializers.ModelSerializer):
    mode = serializers.ChoiceField(choices=Mode.choices, read_only=True)
    preset = serializers.SerializerMethodField()
    photo = PhotoSerializer(read_only=True)
    result = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()
    provider = serializers.ChoiceField(choices=["embedded", "aiml"], read_only=True)
    counted = serializers.BooleanField(read_only=True)
    timings = TimingsSerializer(source="*", read_only=True)
    queue_position = serializers.IntegerField(allow_null=True, read_only=True)
    expected_ms = serializers.SerializerMethodField()
    poll_after_ms = serializers.SerializerMethodField()

    class Meta:
        model = Run
        fields = (
            "id", "status", "phase", "mode", "batch", "preset", "prompt", "strength", "seed", "photo", "result",
            "error", "attempts", "cached", "provider", "counted", "favourite", "timings", "created_at", "started_at",
            "finished_at", "queue_position", "expected_ms", "poll_after_ms",
        )  # fmt: skip
        read_only_fields = tuple(name for name in fields if name != "favourite")

    @extend_schema_field(PresetBriefSerializer(allow_null=True))
    def get_preset(self, run: Run) -> dict[str, str] | None:
        # Of the snapshot: what the run was made from, whatever has become of the preset.
        if not run.preset_slug:
            return None
        return {"slug": run.preset_slug, "name": run.preset_name, "tag": run.preset_tag}

    @extend_schema_field(ResultSerializer(allow_null=True))
    def get_result(self, run: Run) -> dict[str, Any] | None:
        if not run.result:
            return None
        return {
            "url": absolute(self.context, reverse("result", args=[run.pk, "picture"])),
            "thumbnail_url": absolute(self.context, reverse("result", args=[run.pk, "thumbnail"])),
            "download_url": absolute(self.context, reverse("download", args=[run.pk])),
            "width": run.width,
            "height": run.height,
            "bytes": run.bytes,
            "content_type": run.content_type,
        }

    @extend_schema_field(RunErrorSerializer(allow_null=True))
    def get_error(self, run: Run) -> dict[str, Any] | None:
        if run.status != Run.Status.FAILED:
            return None
        return {"code": run.error_code, "message": _(run.error_message), "retryable": run.error_retryable}

    def get_expected_ms(self, run: Run) -> int | None:
        return showing.usual_ms().get(run.preset_slug) if run.is_active else None

    def get_poll_after_ms(self, run: Run) -> int | None:
        return run.poll_after_ms


# -- What is asked -------------------------------------------------------------------------------------------


def plain_number(value: Any, pattern: str) -> bool:
    """Say whether a value is a number as JSON or a form writes it: true is none, and neither are nan, 1_0 or ７."""
    if isinstance(value, str):
        return bool(re.fullmatch(pattern, value))
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class StrictFloatField(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if not plain_number(data, r"-?[0-9]{1,9}(\.[0-9]{1,17})?"):
            self.fail("invalid")
        number: float = super().to_internal_value(data)
        return number


class StrictIntegerField(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if not plain_number(data, r"-?[0-9]{1,20}"):
            self.fail("invalid")
        number: int = super().to_internal_value(data)
        return number


class PhotoSource(serializers.Serializer):
    """A photo: the file itself, or the id of one that was sent before."""

    photo = serializers.FileField(required=False, allow_empty_file=True, use_url=False)
    photo_id = serializers.UUIDField(required=False)

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "photo" in fields and "photo_id" in fields:
            raise serializers.ValidationError(_("Send photo or photo_id, not both."))
        return fields

    def chosen(self) -> Photo | photos.Upload:
        """Return the photo that was sent or named. Raises PhotoRequired; another's photo is as missing as none."""
        fields = self.validated_data
        if file := fields.get("photo"):
            limits.hit(self.context["request"], Limit.UPLOADS)
            return photos.Upload(file.read(), file.name)
        if photo_id := fields.get("photo_id"):
            photo = Photo.objects.for_user(self.context["request"].user).filter(pk=photo_id).first()
            if photo is None:
                raise serializers.ValidationError({"photo_id": [_("There is no such photo.")]})
            return photo
        if "photo" in fields:
            return photos.Upload(b"")
        raise PhotoRequired


class ActivePreset(serializers.SlugRelatedField):
    def __init__(self, **options: Any) -> None:
        # One that was switched off is found and refused by the service: it was there a moment ago.
        super().__init__(slug_field="slug", queryset=Preset.objects.looks(), **options)

    def to_internal_value(self, data: Any) -> Preset:
        if not isinstance(data, str) or len(data) > MAX_SLUG_LENGTH:
            self.fail("invalid")
        preset: Preset = super().to_internal_value(data)
        return preset


class PresetsField(ShortListField):
    """Slugs of presets, which are found by one query."""

    child = serializers.CharField(max_length=MAX_SLUG_LENGTH)

    def run_child_validation(self, data: list[Any]) -> list[Preset]:
        slugs = super().run_child_validation(data)
        found = Preset.objects.looks().in_bulk(slugs, field_name="slug")
        unknown = ActivePreset.default_error_messages["does_not_exist"]
        errors = {
            number: [unknown.format(slug_name="slug", value=slug)]
            for number, slug in enumerate(slugs)
            if slug not in found
        }
        if errors:
            raise serializers.ValidationError(errors)
        return [found[slug] for slug in slugs]


class RunRequestSerializer(PhotoSource):
    preset = ActivePreset(required=False)
    prompt = serializers.CharField(required=False, max_length=MAX_PROMPT_LENGTH)
    strength = StrictFloatField(required=False, min_value=MIN_STRENGTH, max_value=MAX_STRENGTH)
    seed = StrictIntegerField(required=False, min_value=1, max_value=MAX_SEED)
    fresh = serializers.BooleanField(required=False, default=False)

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if ("preset" in fields) == ("prompt" in fields):
            raise serializers.ValidationError({"preset": [_("Send either preset or prompt.")]})
        return super().validate(fields)


class BatchRequestSerializer(PhotoSource):
    mode = serializers.ChoiceField(choices=BATCH_CHOICES, required=False)
    presets = PresetsField(required=False, min_length=2, max_length=12)
    preset = ActivePreset(required=False)
    variations = StrictIntegerField(required=False, min_value=2, max_value=4)

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        asked = [name for name in ("mode", "presets", "preset") if name in fields]
        if len(asked) != 1 or ("variations" in fields) != (asked == ["preset"]):
            raise serializers.ValidationError({"mode": [_("Send mode, or presets, or preset with variations.")]})
        if len({preset.pk for preset in fields.get("presets", [])}) != len(fields.get("presets", [])):
            raise serializers.ValidationError({"presets": [_("Each preset once.")]})
        return super().validate(fields)

    @property
    def number_of_runs(self) -> int:
        fields: dict[str, Any] = self.validated_data
        if "mode" in fields:
            return Preset.objects.active().members(fields["mode"]).count()
        return len(fields.get("presets", [])) or int(fields.get("variations", 1))


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A preset",
            {"photo_id": EXAMPLE_ID, "preset": "express_enhance", "strength": 0.7, "seed": 7},
            request_only=True,
        ),
        OpenApiExample("Your own words", {"photo_id": EXAMPLE_ID, "prompt": "as a watercolour"}, request_only=True),
    ]
)
class RunByIdSerializer(RunRequestSerializer):
    """The same in JSON, which carries no file."""

    photo = None


@extend_schema_serializer(
    examples=[
        OpenApiExample("Three moods", {"photo_id": EXAMPLE_ID, "mode": "moodmorph"}, request_only=True),
        OpenApiExample(
            "Several looks", {"photo_id": EXAMPLE_ID, "presets": ["noir_classic", "vivid_pop"]}, request_only=True
        ),
        OpenApiExample(
            "Several seeds", {"photo_id": EXAMPLE_ID, "preset": "oil_painting", "variations": 3}, request_only=True
        ),
    ]
)
class BatchByIdSerializer(BatchRequestSerializer):
    """The same in JSON, which carries no file."""

    photo = None


class FavouriteSerializer(serializers.ModelSerializer):
    class Meta:
        model = Run
        fields = ("favourite",)
        extra_kwargs: ClassVar[dict[str, Any]] = {"favourite": {"required": False}}


class BatchSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    mode = serializers.ChoiceField(choices=Mode.choices)
    status = serializers.ChoiceField(choices=["running", "succeeded", "partial", "failed"])
    runs = RunSerializer(many=True)
