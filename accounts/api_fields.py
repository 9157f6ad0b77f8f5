"""Fields that the APIs of every app share."""

from typing import Any

from rest_framework import serializers


class ShortListField(serializers.ListField):
    """A list of at most `max_length` items, which are counted before any of them is checked.

    A ListField checks every item first, and then their number.
    """

    def __init__(self, *, max_length: int, **options: Any) -> None:
        super().__init__(max_length=max_length, **options)

    def run_child_validation(self, data: list[Any]) -> list[Any]:
        if len(data) > self.max_length:
            message = self.error_messages["max_length"].format(max_length=self.max_length)
            raise serializers.ValidationError(message, code="max_length")
        return super().run_child_validation(data)
