from allauth.socialaccount.views import login_error
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path

from accounts import views

urlpatterns = [
    path("login/", login_not_required(views.SignInView.as_view()), name="account_login"),
    path("signup/", login_not_required(views.SignUpView.as_view()), name="account_signup"),
    path("password/set/", views.set_password, name="account_set_password"),
    path("sessions/", views.DevicesView.as_view(), name="usersessions_list"),
    # allauth sends visitors here, whom it then does not let in.
    path("3rdparty/login/error/", login_not_required(login_error)),
    path("", include("allauth.urls")),
]
