from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pytest
from django.test import override_settings
from pydantic import BaseModel, Field, IPvAnyNetwork, SecretStr

from svc_infra_django.config import Secret, Section, section_settings
from svc_infra_django.config.sections import BadSettings, load
from svc_infra_django.observability.conf import ObservabilitySettings
from svc_infra_django.observability.conf import settings as observability

VALUE = "hunter2-hunter2"


class Provider(BaseModel):
    client_id: str
    client_secret: Secret


class TeaSettings(Section):
    section: ClassVar[str] = "tea"

    pots: Annotated[int, Field(gt=0)] = 1
    """How many."""

    kind: Literal["green", "black"] = "green"
    networks: tuple[IPvAnyNetwork, ...] = ()
    password: Secret | None = None
    pin: SecretStr | None = None
    providers: dict[str, Provider] = {}
    ratio: float = 0.5
    names: tuple[str, ...] = ()


tea = section_settings(TeaSettings)


def written(**values: Any) -> Any:
    return override_settings(SVC_INFRA={"tea": values})


def test_defaults_need_nothing_written() -> None:
    with override_settings(SVC_INFRA={}):
        assert (tea.pots, tea.kind) == (1, "green")


def test_settings_are_read_again_after_an_override() -> None:
    assert tea.pots == 1
    with written(pots=3):
        assert tea.pots == 3
        with written(pots=4):
            assert tea.pots == 4
        assert tea.pots == 3
    assert tea.pots == 1


def test_a_typed_section_may_be_given() -> None:
    with override_settings(SVC_INFRA={"tea": TeaSettings(pots=5)}):
        assert tea.pots == 5


def test_all_mistakes_are_told_at_once_with_their_path() -> None:
    with written(pots=0, kind="white", colour="brown", names=[1]), pytest.raises(BadSettings) as refusal:
        load(TeaSettings)

    lines = str(refusal.value).splitlines()
    assert len(lines) == 4
    for path in ("['tea']['pots']", "['tea']['kind']", "['tea']['colour']", "['tea']['names'][0]"):
        assert any(line.startswith(f"SVC_INFRA{path}: ") for line in lines)


@pytest.mark.parametrize(
    "field", ["pots", "kind", "networks", "password", "providers", "ratio", "names", "unknown"]
)
@pytest.mark.parametrize(
    "shape", [VALUE, [VALUE], {"x": VALUE}, {"x": {"client_id": "a", "client_secret": VALUE}}]
)
def test_no_mistake_shows_a_value(field, shape) -> None:
    with written(**{field: shape}):
        try:
            load(TeaSettings)
        except BadSettings as refusal:
            assert VALUE not in str(refusal)
            assert refusal.__cause__ is None
        else:
            assert (field, shape) == ("names", [VALUE])


def test_the_error_does_not_drag_the_value_along_in_its_traceback() -> None:
    import traceback

    with written(password=VALUE), pytest.raises(BadSettings) as refusal:
        load(TeaSettings)

    assert VALUE not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("nonsense", [[], "text", 7, None])
def test_a_section_or_a_whole_that_is_no_dict_is_told(nonsense) -> None:
    with override_settings(SVC_INFRA=nonsense), pytest.raises(BadSettings, match="dict"):
        load(TeaSettings)
    with (
        override_settings(SVC_INFRA={"tea": nonsense}),
        pytest.raises(BadSettings, match=r"SVC_INFRA\['tea'\]"),
    ):
        load(TeaSettings)


def test_a_section_cannot_be_changed_behind_the_settings_back() -> None:
    with pytest.raises(AttributeError, match=r"SVC_INFRA\['tea'\]\['pots'\]"):
        tea.pots = 9
    with pytest.raises(Exception, match="frozen"):
        load(TeaSettings).pots = 9
    assert tea.pots == 1


def test_an_unknown_field_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        tea.saucers  # noqa: B018 asking is the act


def test_its_repr_shows_the_section_only() -> None:
    assert repr(tea) == "<settings tea>"


def test_every_field_of_the_suite_is_documented() -> None:
    assert all(field.description for field in ObservabilitySettings.model_fields.values())
    assert observability.metrics_label_limit == 1000


@pytest.mark.parametrize(
    "values",
    [
        {"metrics_label_limit": 0},
        {"health_timeout_seconds": 0},
        {"trusted_proxies": ["10.0.0.1/8"]},
        {"metrics_token": VALUE},
    ],
)
def test_values_that_could_not_work_are_refused(svc_settings, values) -> None:
    svc_settings(observability=values)

    with pytest.raises(BadSettings):
        load(ObservabilitySettings)
