"""What the studio sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from generation.exceptions import PhotoRequired
from generation.models import MAX_PROMPT_LENGTH, MAX_SEED, MAX_STRENGTH, MIN_STRENGTH, Photo, Preset
from generation.modes import BATCHES, Mode
from generation.photos import SAMPLES, Upload

if TYPE_CHECKING:
    from accounts.models import User

MOST_LOOKS = 12


class PhotoForm(forms.Form):
    """One photo, from one of three sources."""

    photo = forms.FileField(required=False, allow_empty_file=True, max_length=None)
    photo_id = forms.UUIDField(required=False)
    sample = forms.ChoiceField(choices=list(SAMPLES.items()), required=False)

    def chosen_photo(self, user: User | None) -> Photo | Upload:
        """Return the photo that was chosen. Raise PhotoRequired when there is none, or it is not theirs."""
        data: dict[str, Any] = self.cleaned_data
        if file := data["photo"]:
            return Upload(file.read(), file.name)
        if sample := data["sample"]:
            return Upload.sample(sample)
        if data["photo_id"] and user:
            photo = Photo.objects.for_user(user).filter(pk=data["photo_id"]).first()
            if photo:
                return photo
        raise PhotoRequired


class LooksField(forms.Field):
    """The slugs that were picked, as many as there are."""

    widget = forms.MultipleHiddenInput

    def to_python(self, value: list[str] | None) -> list[str]:
        return [slug for slug in dict.fromkeys(value or []) if slug]


class StudioForm(PhotoForm):
    """A photo and what to make of it: a look, several, a mode, or the user's own words."""

    look = LooksField(required=False)
    prompt = forms.CharField(max_length=MAX_PROMPT_LENGTH, required=False)
    strength = forms.FloatField(min_value=MIN_STRENGTH, max_value=MAX_STRENGTH, required=False)
    seed = forms.IntegerField(min_value=1, max_value=MAX_SEED, required=False)
    key = forms.CharField(max_length=255)

    def clean(self) -> dict[str, Any]:
        """Turn the slugs into `mode` or `presets`; both are empty when the user's own words say what to make."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        slugs = data.get("look", [])
        data |= {"mode": None, "presets": []}
        if data.get("prompt"):
            return data
        if not slugs:
            raise forms.ValidationError(_("Pick a look first."))
        if len(slugs) == 1 and slugs[0] in BATCHES:
            return data | {"mode": Mode(slugs[0])}
        if len(slugs) > MOST_LOOKS:
            sentence = ngettext(
                "Up to %(count)d look at once, please.", "Up to %(count)d looks at once, please.", MOST_LOOKS
            )
            raise forms.ValidationError(sentence % {"count": MOST_LOOKS})
        presets = {preset.slug: preset for preset in Preset.objects.looks().filter(slug__in=slugs)}
        if len(presets) < len(slugs):
            raise forms.ValidationError(_("There is no such look. Please pick another one."))
        return data | {"presets": [presets[slug] for slug in slugs]}

    @property
    def number_of_runs(self) -> int:
        data = self.cleaned_data
        return Preset.objects.active().members(data["mode"]).count() if data["mode"] else max(1, len(data["presets"]))
