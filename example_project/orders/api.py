"""The shop's door: guard, one call, return."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Query, Router, Status

from svc_infra_django.api import Page, PageQuery, paginated, requires

from .models import Order
from .reporter import summarise
from .schemas import NewOrder, OrderOut, SummaryOut
from .services.placing import place_order

router = Router(tags=["orders"])


@router.post("", response={201: OrderOut}, summary="Place an order")
@requires("orders.add_order")
def place(request: Any, body: NewOrder) -> Any:
    return Status(201, place_order(**body.model_dump(), principal=request.principal))


@router.get("", response=Page[OrderOut], summary="My orders, newest first")
@requires("orders.view_order")
def list_orders(request: Any, page: Query[PageQuery]) -> Any:
    return paginated(Order.objects.owned_by(request.principal), page)


@router.get("/summary", response=SummaryOut, summary="What today came to")
@requires("orders.view_order")
def summary(request: Any) -> Any:
    return summarise(timezone.now().date(), request.principal.tenant)


@router.get("/{uuid:order_id}", response=OrderOut, summary="One of my orders")
@requires("orders.view_order")
def get_order(request: Any, order_id: UUID) -> Any:
    return get_object_or_404(Order.objects.owned_by(request.principal), pk=order_id)
