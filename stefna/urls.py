"""Every address of the site."""

from django.contrib import admin
from django.urls import include, path

from stefna.manifest import manifest

urlpatterns = [
    path("", include("generation.urls")),
    path("", include("notifications.urls")),
    path("manifest.webmanifest", manifest, name="manifest"),
    path("account/", include("accounts.urls")),
    path("admin/", admin.site.urls),
    path("_allauth/", include("allauth.headless.urls")),
    path("api/", include("stefna.api")),
]

handler400 = "stefna.problems.bad_request"
handler403 = "stefna.problems.permission_denied"
handler404 = "stefna.problems.page_not_found"
handler500 = "stefna.problems.server_error"
