"""The one API object of a project, and the apps mounted on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any, cast

import orjson
from django.apps import apps
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import NinjaAPI
from ninja import errors as ninja_errors
from ninja.constants import NOT_SET
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation
from ninja.parser import Parser
from ninja.renderers import JSONRenderer
from ninja.responses import NinjaJSONEncoder
from ninja.router import BoundRouter
from pydantic import TypeAdapter

from ..errors import FieldProblem, ValidationError
from .authentication import (
    Authentication,
    SessionAuthenticator,
    active_authenticators,
    identified,
    nobody,
    session_scheme,
)
from .caching import keep_to_the_caller
from .conf import settings
from .errors import (
    CONTENT_TYPE,
    ERRORS_SHOWN,
    UnreadableBody,
    UnsupportedMediaType,
    UrlTooLong,
    field_problem,
    problem,
    roll_back_request,
)
from .schemas import Problem

JSON_TYPE = re.compile(r"application/(json|[\w.+-]+\+json)")
# Django's encoder writes these, so that they look as they always did: milliseconds, and Z for UTC.
AS_DJANGO = (
    orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS
)
_ENCODER = NinjaJSONEncoder()

NUL_MESSAGE = "must not contain NUL characters"


def create_api(**ninja_options: Any) -> NinjaAPI:
    """A NinjaAPI whose operations want a signed-in caller and whose errors are problem+json.

    Takes all options of NinjaAPI; `auth=None` opens every operation that does not say otherwise. A
    second API needs its own `urls_namespace`.
    """
    return SuiteAPI(
        **{
            "title": settings.title,
            "version": settings.version,
            "urls_namespace": "api",
            "auth": Authentication(),
            "parser": StrictParser(),
            "renderer": QuickRenderer(),
            **ninja_options,
        }
    )


def mount_installed_apps(api: NinjaAPI) -> None:
    """Add `<app>.api.router` at the `api_prefix` of every installed app whose config has one.

    What its `api_routers` name is added too. An app with a prefix and no `api` module is left out; the
    check svc_api.W003 names it.
    """
    for app in apps.get_app_configs():
        prefix = getattr(app, "api_prefix", "").strip("/")
        if prefix and find_spec(f"{app.name}.api"):
            api.add_router(f"/{prefix}", import_module(f"{app.name}.api").router)
        for prefix, module in getattr(app, "api_routers", {}).items():
            api.add_router(f"/{prefix.strip('/')}", import_module(module, app.name).router)


class SuiteAPI(NinjaAPI):
    """What `create_api` makes; the differences from Ninja's own."""

    def set_default_exception_handlers(self) -> None:
        self.add_exception_handler(Exception, self._answer)

    def _answer(self, request: HttpRequest, error: Any) -> HttpResponse:
        # Ninja has answered the error, so Django would not see it and would commit.
        if not getattr(error, "keeps_writes", False):
            roll_back_request()
        return problem(request, error)

    def _get_bound_routers(self) -> list[BoundRouter]:
        is_new = self._bound_routers_cache is None
        routers = super()._get_bound_routers()
        if is_new:
            for router in routers:
                for view in router.path_operations.values():
                    for operation in view.operations:
                        _spare_the_search(operation)
                        _keep_to_the_caller(operation)
        return routers

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:
        """Called by every operation before it reads its parameters: refuses URLs that nothing could keep."""
        query = request.META.get("QUERY_STRING", "")
        if max(len(request.path), len(query)) > settings.max_url_length:
            raise UrlTooLong()
        if "\x00" in request.path:
            raise ValidationError.at("/path", NUL_MESSAGE, code="nul")
        return super().create_temporal_response(request)

    def validation_error_from_error_contexts(
        self, error_contexts: list[ninja_errors.ValidationErrorContext[Any]]
    ) -> Any:
        return ValidationError(
            errors=[each for context in error_contexts for each in _field_problems(context)]
        )

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """`orders_place` for `place` in `orders/api.py`, short enough for generated clients."""
        module = operation.view_func.__module__.removesuffix(".api").rpartition(".")[2]
        return f"{module}_{operation.view_func.__name__}"

    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        prefix = self.get_root_path(path_params or {}) if path_prefix is None else path_prefix
        return SuiteOpenAPI(self, prefix)


def _spare_the_search(operation: Operation) -> None:
    """Ninja looks at each request whether a callback is a coroutine function; ours is known not to be one.

    Nor is the operation, so its user can be read when it asks for more of them.
    Another version of Ninja that does not know the method simply goes on as it does.
    """
    callbacks = operation.auth_callbacks
    if operation.is_async or len(callbacks) != 1 or type(callbacks[0]) is not Authentication:
        return

    def authenticate(request: HttpRequest) -> HttpResponse | None:
        try:
            principal = request.auth = identified(request)  # type: ignore[attr-defined]  # as Ninja does
            if principal is None:
                raise nobody()
        except Exception as error:
            return operation.api.on_exception(request, error)
        return None

    operation._run_authentication = authenticate  # type: ignore[method-assign]


def _keep_to_the_caller(operation: Operation) -> None:
    # Here and not in the middleware alone: Django's own cache of pages is a middleware too, and further in.
    respond = operation._result_to_response

    def result_to_response(
        request: HttpRequest, result: Any, temporal_response: HttpResponse
    ) -> HttpResponseBase:
        response = respond(request, result, temporal_response)
        keep_to_the_caller(request, response)
        return response

    operation._result_to_response = result_to_response  # type: ignore[method-assign]


class QuickRenderer(JSONRenderer):
    """Ninja's JSON by orjson: the same values, without blanks and escapes, in a tenth of the time."""

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> Any:
        """Bytes; what orjson has no form for, such as a key or a number of any size, Ninja writes as ever."""
        try:
            return orjson.dumps(data, default=_ENCODER.default, option=AS_DJANGO)
        except TypeError:
            return super().render(request, data, response_status=response_status)


class StrictParser(Parser):
    """Reads JSON bodies with orjson, which refuses NaN, lone surrogates and endless nesting."""

    def parse_body(self, request: HttpRequest) -> Any:
        """Raises UnsupportedMediaType, UnreadableBody, or ValidationError at each NUL character."""
        if not JSON_TYPE.fullmatch(request.content_type or ""):
            raise UnsupportedMediaType()
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise UnreadableBody() from None
        if b"\\u0000" in request.body:
            _refuse_nul(body, "body")
        return body

    def parse_querydict(self, data: Any, list_fields: list[str], request: HttpRequest) -> dict[str, Any]:
        place = "query" if data is request.GET else "form"
        for name, values in data.lists():
            if any("\x00" in str(text) for text in (name, *values)):
                raise ValidationError(errors=[field_problem((place, name), "nul", NUL_MESSAGE)])
        return super().parse_querydict(data, list_fields, request)


class SuiteOpenAPI(OpenAPISchema):
    """Ninja's OpenAPI document, with the security schemes and problems of the suite."""

    def operation_security(self, operation: Operation) -> list[dict[str, Any]] | None:
        if not any(isinstance(callback, Authentication) for callback in operation.auth_callbacks):
            return super().operation_security(operation)
        schemes = {
            each.name: session_scheme() if isinstance(each, SessionAuthenticator) else each.scheme
            for each in active_authenticators()
        }
        self.securitySchemes.update(schemes)
        return [{name: []} for name in schemes]

    def responses(self, operation: Operation) -> dict[int, dict[str, Any]]:
        found = cast(dict[Any, dict[str, Any]], super().responses(operation))
        schema = TypeAdapter(Problem).json_schema(ref_template="#/components/schemas/{model}")
        self.add_schema_definitions(schema.pop("$defs", {}))
        self.add_schema_definitions({"Problem": schema})
        content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for status in found:
            if status >= 400 and _is_problem(operation.response_models[status]):
                found[status]["content"] = content
        for statuses, description in (
            ("4XX", "The request was refused."),
            ("5XX", "It went wrong on our side."),
        ):
            found[statuses] = {"description": description, "content": content}
        return found


def _is_problem(model: Any) -> bool:
    return model is None or model is NOT_SET or model.model_fields["response"].annotation is Problem


def _field_problems(context: ninja_errors.ValidationErrorContext[Any]) -> Iterable[FieldProblem]:
    model = context.model
    flattened = getattr(model, "__ninja_flatten_map_reverse__", {})
    single = getattr(model, "__read_from_single_attr__", None)
    for error in context.pydantic_validation_error.errors(
        include_url=False, include_input=False, include_context=False
    ):
        location = error["loc"]
        if single is not None and location[:1] == (single,):
            location = location[1:]
        for length in range(len(location), 0, -1):
            if location[:length] in flattened:
                location = flattened[location[:length]] + location[length:]
                break
        yield field_problem((model.__ninja_param_source__, *location), error["type"], error["msg"])


def _refuse_nul(value: Any, *location: object) -> None:
    places = islice(_nul_places(value, location), ERRORS_SHOWN)
    problems = [field_problem(place, "nul", NUL_MESSAGE) for place in places]
    if problems:
        raise ValidationError(errors=problems)


def _nul_places(value: Any, start: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
    # The caller chooses how deep and how broad this goes: no recursion, and no path before it is needed.
    heap: list[tuple[Any, Any]] = [(value, None)]
    while heap:
        value, steps = heap.pop()
        match value:
            case str() if "\x00" in value:
                yield (*start, *_path(steps))
            case dict():
                if any("\x00" in name for name in value):
                    yield (*start, *_path(steps))
                heap += ((inner, (steps, name)) for name, inner in reversed(value.items()))
            case list():
                heap += ((inner, (steps, index)) for index, inner in reversed([*enumerate(value)]))


def _path(steps: Any) -> list[object]:
    names = []
    while steps is not None:
        steps, name = steps
        names.append(name)
    return names[::-1]
