"""Users manage their own keys; a key manages none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from ninja import Query, Router, Status

from ..api import Page, PageQuery, not_delegated, paginated
from ..api.guards import demand_step_up
from ..errors import NotFoundError
from .conf import settings
from .models import ApiKey
from .schemas import (
    ApiKeyChange,
    ApiKeyOut,
    ApiKeyRotation,
    ApiKeyUsage,
    ApiKeyUsagePeriod,
    IssuedApiKey,
    NewApiKey,
)
from .services.issuing import change_key, issue_key, revoke_key, rotate_key

router = Router(tags=["API keys"])


@router.get("", response=Page[ApiKeyOut], summary="My keys, newest first")
@not_delegated
def list_keys(request: Any, page: Query[PageQuery]) -> Any:
    return paginated(ApiKey.objects.owned_by(request.principal), page)


@router.post("", response={201: IssuedApiKey}, summary="Make a key; it is shown in this answer only")
@not_delegated
def create_key(request: Any, body: NewApiKey) -> Any:
    _demand_step_up(request)
    issued = issue_key(
        owner=request.user,
        name=body.name,
        scopes=body.scopes,
        tenant=request.principal.tenant,
        expires_at=body.expires_at,
        allowed_networks=body.allowed_networks,
        rate=body.rate,
        quota=body.quota,
        environment=body.environment,
        actor=request.principal,
    )
    return Status(201, _shown_once(*issued))


@router.get("/{uuid:key_id}", response=ApiKeyOut, summary="One of my keys")
@not_delegated
def get_key(request: Any, key_id: UUID) -> Any:
    return _own(request, key_id)


@router.patch("/{uuid:key_id}", response=ApiKeyOut, summary="Change a key's name, networks and limits")
@not_delegated
def change(request: Any, key_id: UUID, body: ApiKeyChange) -> Any:
    _demand_step_up(request)
    return change_key(_own(request, key_id), **body.model_dump(exclude_none=True), actor=request.principal)


@router.get("/{uuid:key_id}/usage", response=ApiKeyUsage, summary="How often a key was used, by the hour")
@not_delegated
def usage(request: Any, key_id: UUID, period: Query[ApiKeyUsagePeriod]) -> Any:
    since = timezone.now() - timedelta(days=period.days)
    hours = list(_own(request, key_id).hours.filter(hour__gte=since).order_by("hour"))
    return {
        "used": sum(hour.used for hour in hours),
        "refused": sum(hour.refused for hour in hours),
        "hours": hours,
    }


@router.post("/{uuid:key_id}/rotate", response={201: IssuedApiKey}, summary="Make a successor for a key")
@not_delegated
def rotate(request: Any, key_id: UUID, body: ApiKeyRotation) -> Any:
    _demand_step_up(request)
    grace = None if body.grace_seconds is None else timedelta(seconds=body.grace_seconds)
    issued = rotate_key(_own(request, key_id), grace=grace, actor=request.principal)
    return Status(201, _shown_once(*issued))


@router.post("/{uuid:key_id}/revoke", response=ApiKeyOut, summary="Stop a key for good, at once")
@not_delegated
def revoke(request: Any, key_id: UUID) -> Any:
    return revoke_key(_own(request, key_id), actor=request.principal)


def _demand_step_up(request: Any) -> None:
    if settings.step_up_seconds is not None:
        demand_step_up(request.principal, max_age=settings.step_up_seconds)


def _own(request: Any, key_id: UUID) -> ApiKey:
    key = ApiKey.objects.owned_by(request.principal).filter(pk=key_id).first()
    if key is None:
        raise NotFoundError("API key", key_id)
    return key


@sensitive_variables("secret")
def _shown_once(key: ApiKey, secret: str) -> dict[str, Any]:
    return {"api_key": key, "key": secret}
