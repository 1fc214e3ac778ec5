"""Settings of the api app."""

from __future__ import annotations

from typing import ClassVar

from ..config.sections import Section, section_settings


class ApiSettings(Section):
    section: ClassVar[str] = "api"

    title: str = "API"
    """The title of the API in its documentation."""

    version: str = "1.0.0"
    """The version of the API in its documentation."""

    authenticators: tuple[str, ...] | None = None
    """Dotted paths of authenticator classes in the order they are tried. None: those that the
    installed apps bring, then Django's session."""

    problem_type_base: str = ""
    """Put before a problem's code to make its `type` URI; empty makes every type `about:blank`."""

    max_url_length: int = 8192
    """Longest path and longest query string, in characters; more is a 414."""


settings = section_settings(ApiSettings)
