"""Where everything is."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from .api import api
from .orders.hooks import payment_received

urlpatterns = [
    path("", RedirectView.as_view(url="api/docs")),
    path("admin/", admin.site.urls),
    path("api/", api.urls),
    path("hooks/payments", payment_received),
    path("", include("svc_infra_django.observability.urls")),
    path("", include("svc_infra_django.accounts.urls")),
]

if settings.IS_LOCAL:
    # The demo's receiver shows everybody what it heard, customers' addresses too.
    urlpatterns.append(path("demo/", include("example_project.demo.urls")))

handler404 = "svc_infra_django.api.errors.handler404"
handler500 = "svc_infra_django.api.errors.handler500"
