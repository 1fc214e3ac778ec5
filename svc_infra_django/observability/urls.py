"""`path("", include("svc_infra_django.observability.urls"))`."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("startupz", views.readyz, name="startupz"),
    path("metrics", views.metrics, name="metrics"),
]
