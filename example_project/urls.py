"""Where everything is."""

from django.contrib import admin
from django.urls import include, path

from .api import api

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", api.urls),
    path("demo/", include("example_project.demo.urls")),
    path("", include("svc_infra_django.observability.urls")),
]

handler404 = "svc_infra_django.api.errors.handler404"
handler500 = "svc_infra_django.api.errors.handler500"
