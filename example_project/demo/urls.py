from django.urls import path

from . import views

urlpatterns = [
    path("webhooks/<slug:slug>", views.webhooks, name="demo-webhooks"),
]
