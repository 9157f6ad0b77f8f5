"""How the API's lists are read, page after page."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request


class NewestFirst(CursorPagination):
    """Newest first, by a unique order, so that page 1,000 costs what page 1 costs."""

    ordering = ("-created_at", "-id")
    page_size = 25
    page_size_query_param = "page_size"
    max_page_size = 100

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Return where a page begins. The library takes any text for a position, and the database does not."""
        try:
            cursor: Any = super().decode_cursor(request)
            if cursor and cursor.position is not None:
                _check_time(cursor.position)
        except (NotFound, ValueError, OverflowError) as error:
            raise ValidationError({self.cursor_query_param: [_("This is not a cursor of ours.")]}) from error
        return cursor


def _check_time(text: str) -> None:
    """Raise ValueError or OverflowError for what is no moment that a database knows."""
    moment = parse_datetime(text)
    if moment is None:
        raise ValueError(text)
    moment.astimezone(UTC)
