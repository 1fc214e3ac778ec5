"""What the inbox refuses."""

from __future__ import annotations

from ...errors import ConfigurationError, SvcInfraError, ValidationError


class UnreadableWebhook(ValidationError):
    """The webhook is signed, but its body cannot be read."""

    code = "inbound.unreadable"


class UnknownSource(ConfigurationError):
    """No such source is configured: SVC_INFRA["inbound"]["sources"] names those that are."""

    code = "inbound.unknown_source"


class NoHandler(ConfigurationError):
    """No function is decorated with @webhook_receiver for this source."""

    code = "inbound.no_handler"


class HandlerTaken(ConfigurationError):
    """Another function is decorated with @webhook_receiver for this source already."""

    code = "inbound.handler_taken"


class HandlingFailed(SvcInfraError):
    """The handler raised; the inbox says what."""

    code = "inbound.handling_failed"
