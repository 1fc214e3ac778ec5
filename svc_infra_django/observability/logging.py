"""One logger for the suite, on top of the standard library's, and a LOGGING for projects that want one."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

SECRET_KEY_NAME = re.compile(
    r"(?i)(^|_)(password|passwd|secret|token|authorization|cookie|api_?key|access_key|private_key|signature|otp)(_|$)"
)
REDACTED = "[redacted]"

# Attributes of a LogRecord that `extra` may not overwrite; a key of that name gets an underscore.
RESERVED = (frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}) - {"exc_info", "stack_info"}


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structlog logger that writes through the standard library, under `name`.

    Takes key words (`logger.info("placed", order_id=7)`) as well as the standard `extra={...}`.
    """
    return cast(
        structlog.stdlib.BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(name),
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.stdlib.PositionalArgumentsFormatter(),
                _merge_extra,
                structlog.stdlib.render_to_log_kwargs,
            ],
            cache_logger_on_first_use=True,
        ),
    )


def logging_config(
    *, format: Literal["json", "console", "auto"] = "auto", level: str = "INFO"
) -> dict[str, Any]:
    """A value for Django's LOGGING: every record, ours or foreign, as one line with its context.

    `auto` is coloured text on a terminal and JSON everywhere else.
    """
    if format == "auto":
        format = "console" if sys.stderr.isatty() else "json"
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if format == "console" else structlog.processors.JSONRenderer(_json)
    )
    errors: list[Any] = [] if format == "console" else [structlog.processors.format_exc_info]
    before = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "svc": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": before,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    redact,
                    *errors,
                    renderer,
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "svc"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Our access log says the same with id, route and time.
            "django.server": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
            "django.request": {"level": "ERROR"},
        },
    }


def redact(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """A structlog processor: the value of every key that is named like a secret becomes `[redacted]`."""
    return cast(EventDict, _redacted(event))


def _redacted(value: Any) -> Any:
    if isinstance(value, MutableMapping):
        return {
            key: REDACTED if SECRET_KEY_NAME.search(str(key)) else _redacted(inner) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_redacted(inner) for inner in value]
    return value


def _merge_extra(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    event.update(event.pop("extra", None) or {})
    for key in RESERVED & event.keys():
        event[f"{key}_"] = event.pop(key)
    return event


def _json(event: EventDict, default: Any = str, **_: Any) -> str:
    return orjson.dumps(event, default=default, option=orjson.OPT_NON_STR_KEYS).decode()


logger = get_logger("svc_infra_django")
