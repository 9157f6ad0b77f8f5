"""Every address of the site."""

from allauth.headless.constants import Client
from django.contrib import admin
from django.urls import include, path

from accounts.headless import AppChangePasswordView, AppRequestCodeView, AppRequestResetView, AppSignUpView
from generation import views_metrics
from stefna import health
from stefna.manifest import manifest

urlpatterns = [
    path("", include("generation.urls")),
    path("", include("notifications.urls")),
    path("manifest.webmanifest", manifest, name="manifest"),
    path("healthz/live", health.live, name="live"),
    path("healthz/ready", health.ready, name="ready"),
    path("metrics", health.metrics, name="metrics"),
    path("account/", include("accounts.urls")),
    path("admin/metrics/", admin.site.admin_view(views_metrics.page), name="metrics_page"),
    path("admin/metrics/<slug:table>.csv", admin.site.admin_view(views_metrics.download), name="metrics_csv"),
    path("admin/", admin.site.urls),
    path("_allauth/app/v1/auth/signup", AppSignUpView.as_api_view(client=Client.APP)),
    path("_allauth/app/v1/auth/code/request", AppRequestCodeView.as_api_view(client=Client.APP)),
    path("_allauth/app/v1/auth/password/request", AppRequestResetView.as_api_view(client=Client.APP)),
    path("_allauth/app/v1/account/password/change", AppChangePasswordView.as_api_view(client=Client.APP)),
    path("_allauth/", include("allauth.headless.urls")),
    path("api/", include("stefna.api")),
]

handler400 = "stefna.problems.bad_request"
handler403 = "stefna.problems.permission_denied"
handler404 = "stefna.problems.page_not_found"
handler500 = "stefna.problems.server_error"
