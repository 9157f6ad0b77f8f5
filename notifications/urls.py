from django.urls import path

from notifications import views

urlpatterns = [
    path("notifications/", views.notification_list, name="notification_list"),
    path("notifications/read", views.mark_all_read, name="notifications_read"),
    path("notifications/<uuid:pk>/open", views.open_notification, name="notification_open"),
]
