"""What goes in and out of the orders API."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from pydantic import AfterValidator, Field

from svc_infra_django.api import Schema, Text


def looks_like_an_address(text: str) -> str:
    """Django's own judgement of an e-mail address, as a pydantic validator."""
    try:
        validate_email(text)
    except ValidationError as error:
        raise ValueError(error.message) from None
    return text


EmailAddress = Annotated[Text(max_length=254), AfterValidator(looks_like_an_address)]


class NewOrder(Schema):
    customer_email: EmailAddress
    item: Text(max_length=200, min_length=1)
    quantity: Annotated[int, Field(ge=1, le=1000)] = 1
    unit_price: Annotated[Decimal, Field(ge=0, max_digits=10, decimal_places=2)]


class OrderOut(Schema):
    id: UUID
    customer_email: str
    item: str
    quantity: int
    unit_price: Decimal
    total: Decimal
    created_at: datetime
    receipt_sent_at: datetime | None


class SummaryOut(Schema):
    day: date
    orders: int
    total: Decimal
