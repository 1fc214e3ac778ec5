"""The API that the tests of this folder call: each operation once sync and once async."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import DataError
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from ninja import Form, Query, Router, Status
from ninja import Schema as NinjaSchema
from ninja.errors import HttpError, Throttled

from svc_infra_django.api import (
    ApiRequest,
    Page,
    PageQuery,
    Problem,
    Schema,
    Text,
    apaginated,
    create_api,
    not_delegated,
    paginated,
    requires,
)
from svc_infra_django.errors import (
    ConfigurationError,
    ConflictError,
    FieldProblem,
    UnavailableError,
    ValidationError,
)

router = Router(tags=["things"])


class Address(Schema):
    street: Annotated[str, Text(min_length=1, max_length=20)]


class Thing(Schema):
    name: str
    count: int = 0
    addresses: list[Address] = []


class GroupOut(Schema):
    id: int
    name: str


class TooMany(ConflictError):
    """There are too many things."""

    code = "things.too_many"


def raised(kind: str) -> Exception:
    return {
        "conflict": TooMany(limit=3),
        "fields": ValidationError(errors=[FieldProblem("/body/a~1b", "bad", "No.")]),
        "missing": Http404("secret path"),
        "model": ModelValidationError({"name": ["Too short."]}),
        "bug": ZeroDivisionError("secret detail"),
        "recursion": RecursionError(),
        "ninja": HttpError(418, "Short and stout."),
        "throttled": Throttled(wait=7),
        "denied": PermissionDenied("secret reason"),
        "suspicious": SuspiciousOperation("secret reason"),
        "too_big": RequestDataTooBig(),
        "unavailable": UnavailableError(),
        "misconfigured": ConfigurationError("secret setting"),
        "range": DataError("secret value"),
        "overflow": OverflowError("secret detail"),
    }[kind]


@router.get("/me")
def me(request: ApiRequest) -> dict[str, Any]:
    return {"name": request.user.username, "method": request.principal.method}


@router.get("/ame")
async def ame(request: ApiRequest) -> dict[str, Any]:
    same = (await request.auser()) == request.user
    return {"name": request.user.username, "method": request.principal.method, "same": same}


@router.post("/things", response={201: Thing})
def make(request: ApiRequest, payload: Thing) -> Status[Thing]:
    return Status(201, payload)


@router.post("/athings", response={201: Thing})
async def amake(request: ApiRequest, payload: Thing) -> Status[Thing]:
    return Status(201, payload)


@router.get("/guarded")
@requires("auth.add_group")
def guarded(request: ApiRequest, number: int = 0) -> dict[str, Any]:
    """Something guarded."""
    return {"number": number}


@router.get("/aguarded")
@requires("auth.add_group", delegated=False)
async def aguarded(request: ApiRequest, number: int = 0) -> dict[str, Any]:
    return {"number": number}


@router.get("/personal")
@not_delegated
def personal(request: ApiRequest) -> dict[str, Any]:
    return {}


@router.get("/errors/{kind}", auth=None)
def fail(request: ApiRequest, kind: str) -> None:
    raise raised(kind)


@router.get("/aerrors/{kind}", auth=None)
async def afail(request: ApiRequest, kind: str) -> None:
    raise raised(kind)


@router.get("/public/{name}", auth=None)
def public(request: ApiRequest, name: str, q: str = "") -> dict[str, str]:
    return {"name": name, "q": q}


class OwnError(NinjaSchema):
    reason: str


@router.get("/own-error", response={200: None, 400: OwnError, 404: Problem}, auth=None)
def own_error(request: ApiRequest) -> Status[OwnError]:
    return Status(400, OwnError(reason="mine"))


class Filters(NinjaSchema):
    tags: list[int] = []


@router.get("/filtered", auth=None)
def filtered(request: ApiRequest, filters: Query[Filters]) -> dict[str, Any]:
    return {"tags": filters.tags}


@router.post("/form", auth=None)
def form(request: ApiRequest, name: Form[str]) -> dict[str, str]:
    return {"name": name}


@router.post("/both", auth=None)
def both(request: ApiRequest, thing: Thing, address: Address) -> dict[str, str]:
    return {}


@router.get("/numbered/{uuid:pk}", auth=None)
def numbered(request: ApiRequest, pk: UUID) -> dict[str, str]:
    return {"pk": str(pk)}


@router.post("/duplicate", auth=None)
def duplicate(request: ApiRequest) -> None:
    Group.objects.create(name="twice")
    Group.objects.create(name="twice")


@router.get("/groups", response=Page[GroupOut], auth=None)
def groups(request: ApiRequest, page: Query[PageQuery]) -> dict[str, Any]:
    return paginated(Group.objects.all(), page, order=("name",))


@router.get("/agroups", response=Page[GroupOut], auth=None)
async def agroups(request: ApiRequest, page: Query[PageQuery]) -> dict[str, Any]:
    return await apaginated(Group.objects.all(), page, order=("-name", "-id"))


@router.get("/users", response=Page[dict], auth=None)
def users(request: ApiRequest, page: Query[PageQuery]) -> dict[str, Any]:
    found = paginated(get_user_model().objects.all(), page, order=("-date_joined",))
    return {**found, "items": [{"name": each.username} for each in found["items"]]}


api = create_api(title="Things", urls_namespace="things")
api.add_router("", router)


def plain(request: HttpRequest) -> HttpResponse:
    raise TooMany()


urlpatterns = [path("things/", api.urls), path("plain", plain)]

handler404 = "svc_infra_django.api.errors.handler404"
handler500 = "svc_infra_django.api.errors.handler500"
