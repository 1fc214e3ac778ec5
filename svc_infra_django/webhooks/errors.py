"""What the webhooks app refuses."""

from __future__ import annotations

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    PermissionDeniedError,
    RateLimitedError,
    ValidationError,
)


class VerificationError(AuthenticationError):
    """The webhook is not signed as it must be."""

    code = "webhooks.not_verified"


class BadEventType(ValidationError):
    """An event type is words of letters, digits and underscores, joined by dots, at most 128 characters."""

    code = "webhooks.bad_event_type"


class ReservedEventType(PermissionDeniedError):
    """This service tells of this event itself; nobody else may."""

    code = "webhooks.reserved_event_type"


class BadPayload(ValidationError):
    """The data does not fit its event type, cannot be written as JSON, or is too large."""

    code = "webhooks.bad_payload"


class BadSchema(ValidationError):
    """This is no JSON Schema (draft 2020-12) that stands on its own, or an example does not fit it."""

    code = "webhooks.bad_schema"


class BadEndpoint(ValidationError):
    """The endpoint cannot be used; `errors` names the fields."""

    code = "webhooks.bad_endpoint"


class TooManyEndpoints(ConflictError):
    """You have as many endpoints as you may; delete one first."""

    code = "webhooks.too_many_endpoints"


class NoSigningKey(ConfigurationError):
    """The endpoint has no signing key; rotate its secret."""

    code = "webhooks.no_signing_key"


class Expunged(ConflictError):
    """The body of this message was taken out."""

    code = "webhooks.expunged"


class NotReplayable(ConflictError):
    """Only a delivery that is dead, cancelled or done can be replayed, while its message has its body."""

    code = "webhooks.not_replayable"


class TooManyTests(RateLimitedError):
    """This endpoint was sent many tests a moment ago; wait a little."""

    code = "webhooks.too_many_tests"


class ChallengeUnanswered(ConflictError):
    """The endpoint has not answered 2xx with the challenge in the body."""

    code = "webhooks.challenge_unanswered"


class BadReplay(ValidationError):
    """Say what to replay: an endpoint, a message, or since when."""

    code = "webhooks.bad_replay"


class TooManyReplays(RateLimitedError):
    """You have many replays under way; wait until one is done, or stop it."""

    code = "webhooks.too_many_replays"


class ReplayedTooFast(RateLimitedError):
    """Many deliveries of this endpoint were replayed a moment ago; wait, or replay them in the background."""

    code = "webhooks.replayed_too_fast"


class ReplayFinished(ConflictError):
    """This replay is over."""

    code = "webhooks.replay_finished"


class EndpointNotEnabled(ConflictError):
    """The endpoint is disabled; enable it first."""

    code = "webhooks.endpoint_not_enabled"
