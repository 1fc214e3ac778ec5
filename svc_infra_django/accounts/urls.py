"""What stands at a fixed place, outside the API: `path("", include("svc_infra_django.accounts.urls"))`."""

from __future__ import annotations

from django.urls import path

from .views import jwks

urlpatterns = [path(".well-known/jwks.json", jwks, name="jwks")]
