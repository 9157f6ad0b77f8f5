from django.urls import path

from notifications import views

urlpatterns = [
    path("notifications/", views.notification_list, name="notification_list"),
    path("notifications/read", views.mark_all_read, name="notifications_read"),
    path("notifications/<uuid:pk>/read", views.mark_read, name="notification_read"),
    path("notifications/off/<str:token>", views.switch_off, name="notifications_off"),
]
