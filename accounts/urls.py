from django.contrib.auth.decorators import login_not_required
from django.urls import include, path

from accounts import views

urlpatterns = [
    path("profile/", views.profile, name="profile"),
    path("login/", login_not_required(views.SignInView.as_view()), name="account_login"),
    path("signup/", login_not_required(views.SignUpView.as_view()), name="account_signup"),
    path("", include("allauth.account.urls")),
]
