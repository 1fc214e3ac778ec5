"""Everything that the suite serves: `path("", include("svc_infra_django.urls"))`.

The API with all installed apps that have an `api_prefix` (the project's own too) under `api/`, and the
probes, metrics and public keys beside it. For other options or another path, make the API with `create_api`.
"""

from __future__ import annotations

from django.apps import apps
from django.urls import include, path

from .api import create_api, mount_installed_apps

api = create_api()
mount_installed_apps(api)

urlpatterns = [path("api/", api.urls), path("", include("svc_infra_django.observability.urls"))]
if apps.is_installed("svc_infra_django.accounts"):
    urlpatterns.append(path("", include("svc_infra_django.accounts.urls")))
