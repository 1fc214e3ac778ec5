"""The shop's back room."""

from __future__ import annotations

from django.contrib import admin

from svc_infra_django.admin import MachineRowAdmin

from .models import DailyReport, Order


@admin.register(Order)
class OrderAdmin(MachineRowAdmin):
    list_display = [
        "item", "quantity", "total", "customer_email", "owner", "created_at", "receipt_sent_at", "paid_at",
    ]  # fmt: skip
    list_select_related = ["owner"]
    search_fields = ["=id"]
    date_hierarchy = "created_at"
    ordering = ["-created_at"]


@admin.register(DailyReport)
class DailyReportAdmin(MachineRowAdmin):
    list_display = ["day", "orders", "total", "written_at"]
