from django.urls import path, register_converter
from django.urls.converters import StringConverter

from generation import pictures, views


class SizeConverter(StringConverter):
    regex = "picture|thumbnail"


register_converter(SizeConverter, "size")

urlpatterns = [
    path("", views.studio, name="studio"),
    path("runs/", views.history, name="history"),
    path("runs/new", views.create, name="create"),
    path("runs/<uuid:pk>/", views.run, name="run"),
    path("runs/<uuid:pk>/cancel", views.cancel, name="cancel"),
    path("runs/<uuid:pk>/retry", views.retry, name="retry"),
    path("runs/<uuid:pk>/favourite", views.favourite, name="favourite"),
    path("runs/<uuid:pk>/delete", views.delete, name="delete"),
    path("runs/<uuid:pk>/download", pictures.download, name="download"),
    path("runs/<uuid:pk>/<size:size>", pictures.result, name="result"),
    path("batches/<uuid:pk>/", views.batch, name="batch"),
    path("photos/<uuid:pk>/<size:size>", pictures.photo, name="photo"),
    path("account/<int:pk>/avatar", pictures.avatar, name="avatar"),
    path("presets/sample", pictures.preview_before, name="preview_before"),
    path("presets/<slug:slug>/preview", pictures.preview, name="preview"),
]
