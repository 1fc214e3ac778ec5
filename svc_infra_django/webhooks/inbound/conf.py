"""Settings of the inbound webhooks: who may send them, and with which secrets."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...config.secrets import Secret
from ...config.sections import Section, section_settings

SOURCE_LENGTH = 64


class Source(BaseModel):
    """A service that sends us webhooks."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    preset: str = "standard"
    """How it signs: standard, stripe, github, shopify, slack, simple, or the dotted path of a Preset."""

    secrets: tuple[Secret, ...] = ()
    """What it signs with; several while it rotates them. A webhook that one of them signed is genuine."""

    tolerance_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """How far a signed timestamp may lie from our clock, on either side."""

    dedupe_by: Literal["id", "body"] = "id"
    """What makes two webhooks one: the sender's id, or the body, where the id is not signed."""


class InboundSettings(Section):
    section: ClassVar[str] = "inbound"

    sources: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=SOURCE_LENGTH)], Source] = {}
    """Who sends webhooks to us, by names of your own: each with `preset`, `secrets`, `tolerance_seconds` and
    `dedupe_by`."""

    max_body_bytes: Annotated[int, Field(gt=0)] = 1_048_576
    """The largest body that is read; a larger one is refused before anything is computed over it."""

    retention_days: Annotated[float, Field(gt=0)] = 30.0
    """How long a webhook stays in the inbox, and is known again, once it is handled or has failed."""


settings = section_settings(InboundSettings)
