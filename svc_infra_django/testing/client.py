"""Django's test client for a JSON API. Its signatures are looser than Django's, hence the ignores."""

from __future__ import annotations

from typing import Any

from django.test import Client

JSON = "application/json"


class JsonClient(Client):
    """Sends bodies as JSON unless told otherwise, and accepts JSON."""

    def generic(self, method: str, path: str, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        headers = {"Accept": JSON, **(options.pop("headers", None) or {})}
        return super().generic(method, path, *args, headers=headers, **options)

    def post(self, path: str, data: Any = None, content_type: str = JSON, **options: Any) -> Any:  # type: ignore[override]
        return super().post(path, _body(data), content_type, **options)

    def put(self, path: str, data: Any = None, content_type: str = JSON, **options: Any) -> Any:  # type: ignore[override]
        return super().put(path, _body(data), content_type, **options)

    def patch(self, path: str, data: Any = None, content_type: str = JSON, **options: Any) -> Any:  # type: ignore[override]
        return super().patch(path, _body(data), content_type, **options)


def _body(data: Any) -> Any:
    return {} if data is None else data
