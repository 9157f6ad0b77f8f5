from django.urls import path, register_converter
from django.urls.converters import StringConverter

from generation import pictures, views, views_history, views_profile


class SizeConverter(StringConverter):
    regex = "picture|thumbnail"


register_converter(SizeConverter, "size")

urlpatterns = [
    path("", views.studio, name="studio"),
    path("runs/", views_history.history, name="history"),
    path("runs/new", views.create, name="create"),
    path("runs/<uuid:pk>/", views.run, name="run"),
    path("runs/selected", views_history.change_selected, name="change_selected"),
    path("runs/restore", views_history.restore, name="restore"),
    path("sketches", views.sketch, name="sketch"),
    path("activity", views_history.activity, name="activity"),
    path("runs/<uuid:pk>/vary", views.vary, name="vary"),
    path("runs/<uuid:pk>/cancel", views.cancel, name="cancel"),
    path("runs/<uuid:pk>/retry", views.retry, name="retry"),
    path("runs/<uuid:pk>/favourite", views.favourite, name="favourite"),
    path("runs/<uuid:pk>/delete", views_history.delete, name="delete"),
    path("runs/<uuid:pk>/download", pictures.download, name="download"),
    path("runs/<uuid:pk>/<size:size>", pictures.result, name="result"),
    path("batches/<uuid:pk>/", views.batch, name="batch"),
    path("photos/<uuid:pk>/<size:size>", pictures.photo, name="photo"),
    path("account/profile/", views_profile.profile, name="profile"),
    path("account/profile/picture", views_profile.change_picture, name="change_picture"),
    path("account/profile/export", views_profile.export, name="export"),
    path("account/profile/export/<uuid:pk>", pictures.export, name="export_download"),
    path("account/profile/delete", views_profile.delete_account, name="delete_account"),
    path("account/email/undo/", views_profile.undo_email_change, name="undo_email_change"),
    path("account/<int:pk>/avatar", pictures.avatar, name="avatar"),
    path("presets/sheet", pictures.preset_sheet, name="preset_sheet"),
    path("presets/sample", pictures.preview_before, name="preview_before"),
    path("presets/<slug:slug>/preview", pictures.preview, name="preview"),
]
