"""What a phone needs to know to install the site: a view, for hashed names and the visitor's language."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import get_language, gettext
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

# The light page's background, as css/stefna.css has it. A manifest knows one colour; pages say theirs for both themes.
BACKGROUND = "#fbfbfa"
ICONS = [
    ("img/icon-192.png", 192, "any"),
    ("img/icon-512.png", 512, "any"),
    ("img/icon-maskable-512.png", 512, "maskable"),
]


@login_not_required
@require_safe
@vary_on_headers("Accept-Language")
@cache_control(max_age=3600, private=True)
def manifest(request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {
            "id": "/",
            "name": "Stefna",
            "short_name": "Stefna",
            "description": gettext("Give your photos a new look."),
            "lang": get_language(),
            "start_url": "/",
            "scope": "/",
            "display": "standalone",
            "theme_color": BACKGROUND,
            "background_color": BACKGROUND,
            "categories": ["photo"],
            "icons": [
                {"src": static(path), "sizes": f"{side}x{side}", "type": "image/png", "purpose": purpose}
                for path, side, purpose in ICONS
            ],
            "shortcuts": [{"name": gettext("History"), "url": reverse("history")}],
        },
        content_type="application/manifest+json",
    )
