"""Every address of the site."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path
from django.utils.translation import gettext_lazy as _

from stefna.manifest import manifest

# Sign-in to the admin site goes through the same rate limits as every other sign-in.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
admin.site.site_header = admin.site.site_title = "Stefna"
admin.site.index_title = _("The owner's desk")

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
