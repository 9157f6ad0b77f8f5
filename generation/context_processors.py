from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from generation.models import Run


def active(request: HttpRequest) -> dict[str, object]:
    """Give every page the number of pictures that are being made, counted only where the page shows it."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"active_count": SimpleLazyObject(lambda: Run.objects.for_user(user).active().count())}
