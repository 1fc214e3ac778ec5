"""One `SVC_INFRA` dict in the project's settings, a typed section of it for each app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ConfigurationError

SectionT = TypeVar("SectionT", bound="Section")

_loaded: dict[type[Section], Section] = {}
_lazy: list[_LazySection] = []


class BadSettings(ConfigurationError):
    """SVC_INFRA has mistakes; `manage.py check` lists them all."""

    code = "config.bad_settings"


class Section(BaseModel):
    """Base of an app's settings. The docstring under a field is its documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    section: ClassVar[str]
    """The key in SVC_INFRA."""


def section_settings(cls: type[SectionT]) -> SectionT:
    """The section as a lazy object: read when first used, again after `override_settings`."""
    return cast(SectionT, _LazySection(cls))


def load(cls: type[SectionT]) -> SectionT:
    """Validate the section now. Raises BadSettings with every mistake in it."""
    if cls not in _loaded:
        try:
            _loaded[cls] = cls.model_validate(raw_section(cls.section))
        except ValidationError as error:
            raise BadSettings("\n".join(mistakes(cls.section, error))) from None
    return cast(SectionT, _loaded[cls])


def raw_section(name: str) -> Any:
    """What the project wrote for the section; an empty dict if nothing."""
    written = getattr(django_settings, "SVC_INFRA", {})
    if not isinstance(written, Mapping):
        raise BadSettings("SVC_INFRA must be a dict of sections.")
    return written.get(name, {})


def mistakes(section: str, error: ValidationError) -> list[str]:
    """One line a mistake, each naming the path in SVC_INFRA and never the value."""
    return [
        "SVC_INFRA" + "".join(f"[{part!r}]" for part in (section, *problem["loc"])) + f": {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    ]


class _LazySection:
    """Keeps the values as attributes of its own, so that reading one costs no call, until they change."""

    def __init__(self, cls: type[Section]) -> None:
        vars(self)["_cls"] = cls
        _lazy.append(self)

    def __getattr__(self, name: str) -> Any:
        section = load(self._cls)
        vars(self).update(vars(section))
        return getattr(section, name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        # It would hide the setting for the rest of the process, whatever SVC_INFRA says.
        raise AttributeError(
            f"Set SVC_INFRA[{self._cls.section!r}][{name!r}] instead; tests have `svc_settings`."
        )

    def __repr__(self) -> str:
        return f"<settings {self._cls.section}>"


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "SVC_INFRA":
        _loaded.clear()
        for lazy in _lazy:
            for name in vars(lazy).keys() - {"_cls"}:
                del vars(lazy)[name]


setting_changed.connect(_forget, dispatch_uid="svc_infra_django.config.sections")
