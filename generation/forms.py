"""What the studio sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms

from generation.exceptions import PhotoRequired
from generation.models import MAX_SEED, MAX_STRENGTH, MIN_STRENGTH, Photo, Preset
from generation.modes import BATCHES
from generation.photos import SAMPLES, Upload

if TYPE_CHECKING:
    from accounts.models import User


class StudioForm(forms.Form):
    """One photo, from one of three sources, and what to make of it: a preset's slug or a mode's."""

    photo = forms.FileField(required=False, allow_empty_file=True, max_length=None)
    photo_id = forms.UUIDField(required=False)
    sample = forms.ChoiceField(choices=list(SAMPLES.items()), required=False)
    look = forms.CharField(max_length=50, error_messages={"required": "Pick a look first."})
    strength = forms.FloatField(min_value=MIN_STRENGTH, max_value=MAX_STRENGTH, required=False)
    seed = forms.IntegerField(min_value=1, max_value=MAX_SEED, required=False)
    key = forms.CharField(max_length=255)

    def clean_look(self) -> Preset | str:
        look: str = self.cleaned_data["look"]
        if look in BATCHES:
            return look
        preset = Preset.objects.looks().filter(slug=look).first()
        if preset is None:
            raise forms.ValidationError("There is no such look. Please pick another one.")
        return preset

    def chosen_photo(self, user: User) -> Photo | Upload:
        """Return the photo that was chosen. Raise PhotoRequired when there is none, or it is not theirs."""
        data: dict[str, Any] = self.cleaned_data
        if file := data["photo"]:
            return Upload(file.read(), file.name)
        if sample := data["sample"]:
            return Upload.sample(sample)
        if data["photo_id"]:
            photo = Photo.objects.for_user(user).filter(pk=data["photo_id"]).first()
            if photo:
                return photo
        raise PhotoRequired
