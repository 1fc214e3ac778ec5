from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from svc_infra_django.api import create_api, mount_installed_apps

api = create_api()
mount_installed_apps(api)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", api.urls),
    path("", include("svc_infra_django.observability.urls")),
    path("", include("svc_infra_django.accounts.urls")),
]

handler400 = "svc_infra_django.api.errors.handler400"
handler403 = "svc_infra_django.api.errors.handler403"
handler404 = "svc_infra_django.api.errors.handler404"
handler500 = "svc_infra_django.api.errors.handler500"
