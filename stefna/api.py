"""Every address of the API."""

from csp.decorators import csp_update
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import SimpleRouter

from accounts.api import PingView
from generation.api import BatchViewSet, ModeViewSet, PhotoViewSet, PresetViewSet, RunViewSet
from generation.api_profile import ExportView, ProfileView
from notifications.api import NotificationViewSet
from stefna import problems

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("presets", PresetViewSet, basename="preset")
router.register("modes", ModeViewSet, basename="mode")
router.register("photos", PhotoViewSet, basename="photo")
router.register("runs", RunViewSet, basename="run")
router.register("batches", BatchViewSet, basename="batch")
router.register("notifications", NotificationViewSet, basename="notification")

v1 = [
    path("ping", PingView.as_view(), name="ping"),
    path("profile", ProfileView.as_view(), name="profile"),
    path("profile/export", ExportView.as_view(), name="export"),
    *router.urls,
]
# Its script is a file of its own; the styles that it sets while it runs need a word of permission, on this page only.
docs = csp_update({"style-src": ["'unsafe-inline'"]})(
    SpectacularSwaggerSplitView.as_view(url_name="schema", http_method_names=["get", "head"])
)
urlpatterns = [
    path("v1/", include((v1, "api"))),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", docs, name="docs"),
    path("<path:rest>", csrf_exempt(login_not_required(problems.nothing_here))),
]
