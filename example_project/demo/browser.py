"""A browser small enough to read: cookies, forms, JSON; used by the tour to do what a person would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPMessage
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Page:
    """What came back; `url` is where redirects led."""

    url: str
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Keeps cookies between requests and fills in the forms that pages bring, CSRF token included."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        # No proxy: what we talk to is on this machine.
        self.opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))

    def get(self, path: str, **headers: str) -> Page:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, document: Any = None, **headers: str) -> Page:
        """POST a JSON document."""
        headers = {"Content-Type": "application/json", **headers}
        return self.send("POST", path, body=json.dumps(document).encode(), headers=headers)

    def answers(self, path: str) -> bool:
        """Whether there is somebody, and they say 200."""
        try:
            return self.get(path).status == 200
        except OSError:
            return False

    def submit(self, path: str, fields: Mapping[str, Any], *, button: str = "") -> Page:
        """Open the page, fill `fields` into the form that has them, press `button` (its name) and follow."""
        page = self.get(path)
        form = next((form for form in forms_in(page.text) if form.keys() >= fields.keys()), None)
        if form is None:
            raise LookupError(f"No form at {page.url} ({page.status}) has the fields {sorted(fields)}.")
        filled = {name: value for name, value in (form | dict(fields)).items() if value is not None}
        if button:
            filled[button] = "1"
        return self.send(
            "POST",
            page.url,
            body=urlencode(filled, doseq=True).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Referer": page.url},
        )

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Page:
        url = urljoin(self.base_url, path)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(url, data=body, headers=sent, method=method)  # noqa: S310  our own http address
        try:
            with self.opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                return Page(response.url, response.status, response.headers, response.read())
        except HTTPError as refusal:
            with refusal:
                return Page(refusal.url, refusal.code, refusal.headers, refusal.read())


def forms_in(html: str) -> list[dict[str, Any]]:
    """The forms of a page: each as its fields with the values they have now; None for an unticked box."""
    reader = _FormReader()
    reader.feed(html)
    return reader.forms


class _FormReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.fields: dict[str, Any] = {}
        self.select = ""
        self.textarea = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        name = values.get("name") or ""
        match tag:
            case "form":
                self.fields = {}
                self.forms.append(self.fields)
            case "input" if name and values.get("type") not in ("submit", "button"):
                self.read_input(name, values)
            case "textarea":
                self.textarea = name
                self.fields[name] = ""
            case "select":
                self.select = name
                self.fields[name] = [] if "multiple" in values else ""
            case "option" if self.select and "selected" in values:
                self.choose(values.get("value") or "")

    def read_input(self, name: str, values: dict[str, str | None]) -> None:
        is_box = values.get("type") in ("checkbox", "radio")
        if not is_box or "checked" in values:
            self.fields[name] = values.get("value") or ("on" if is_box else "")
        else:
            self.fields.setdefault(name, None)

    def choose(self, value: str) -> None:
        chosen = self.fields[self.select]
        self.fields[self.select] = [*chosen, value] if isinstance(chosen, list) else value

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self.select = ""
        elif tag == "textarea":
            self.textarea = ""

    def handle_data(self, data: str) -> None:
        if self.textarea:
            self.fields[self.textarea] += data
