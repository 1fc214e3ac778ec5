"""One logger for the suite, on top of the standard library's, and a LOGGING for projects that want one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial
from time import time
from typing import Any, Literal, TypeGuard, cast

import orjson
import structlog
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict, WrappedLogger

from .redaction import redacted_line

# Attributes of a LogRecord that `extra` may not overwrite; a key of that name gets an underscore.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
RESERVED = STANDARD - {"exc_info", "stack_info"}

# What every line has; a value of that name in `extra` gets an underscore.
ALWAYS = frozenset({"timestamp", "level", "logger", "event"})


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
                _spell_out,
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
    renderer: Any = _json
    if format == "console":
        # Rich tracebacks print local variables, secrets and all.
        console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        renderer = partial(console, None, "")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "svc": {"()": LineFormatter, "renderer": renderer},
        },
        "filters": {
            "svc_context": {"()": ContextFilter},
            "require_debug_false": {"()": "django.utils.log.RequireDebugFalse"},
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "svc", "filters": ["svc_context"]},
            "mail_admins": {
                "class": "django.utils.log.AdminEmailHandler",
                "level": "ERROR",
                "filters": ["require_debug_false"],
            },
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Without Django's own console handler, which would say everything twice.
            "django": {"level": "INFO", "handlers": ["mail_admins"]},
            # At DEBUG it writes statements with their values: hashes, addresses, tokens.
            "django.db.backends": {"level": "INFO"},
            # Our access log says the same with id, route and time.
            "django.server": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
            "django.request": {"level": "ERROR"},
            # The worker tells of every job itself.
            "django.tasks": {"level": "WARNING"},
            "django_tasks": {"level": "WARNING"},
        },
    }


class LineFormatter(logging.Formatter):
    """A record as one line: what it says, what is bound, what `extra` adds; nothing secret."""

    def __init__(self, renderer: Callable[[EventDict], str]) -> None:
        super().__init__()
        self.renderer = renderer

    def format(self, record: logging.LogRecord) -> str:
        said = {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            said["stack"] = self.formatStack(record.stack_info)
        return self.line(
            record.getMessage(), said, at=record.created, level=record.levelname, logger=record.name
        )

    def line(self, event: str, said: dict[str, Any], *, at: float, level: str, logger: str) -> str:
        """The line of what was said at `at` (seconds since 1970), redacted."""
        if not ALWAYS.isdisjoint(said):
            said = {f"{name}_" if name in ALWAYS else name: value for name, value in said.items()}
        seconds, fraction = divmod(at, 1)
        return self.renderer(
            {
                "timestamp": f"{_second(seconds)}.{int(fraction * 1e6):06}Z",
                "level": level.lower(),
                "logger": logger,
                **redacted_line({"event": event, **said}),
            }
        )


@lru_cache(maxsize=8)
def _second(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class ContextFilter(logging.Filter):
    """Puts the request id and what else is bound on every record, for any handler and formatter.

    A record that Django writes when the request is over takes the id from its request.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        attributes = vars(record)
        for name, value in get_contextvars().items():
            attributes.setdefault(name, value)
        if request_id := getattr(attributes.get("request"), "request_id", None):
            attributes.setdefault("request_id", request_id)
        return True


def tell(logger: logging.Logger, event: str, said: dict[str, Any]) -> None:
    """`logger.info(event, extra=said)` for a line of every request, which costs a third where it may.

    It may where one handler of `logging_config` hears of it and nobody else: then there is no record.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    handler = _sole_handler(logger)
    if handler is None:
        logger.info(event, extra=said, stacklevel=2)
        return
    bound = {name: value for name, value in get_contextvars().items() if name not in STANDARD}
    formatter = cast(LineFormatter, handler.formatter)
    line = formatter.line(event, {**bound, **said}, at=time(), level="info", logger=logger.name)
    try:
        with handler.lock:  # type: ignore[union-attr]  # a handler has made its lock when it is in use
            handler.stream.write(line + handler.terminator)
            handler.flush()
    except Exception:  # frontier: what to do about a log that cannot be written, the handler knows
        logger.info(event, extra=said, stacklevel=2)


def _sole_handler(logger: logging.Logger) -> logging.StreamHandler[Any] | None:
    found = None
    place: logging.Logger | None = logger
    while place is not None:
        for handler in place.handlers:
            if found is not None or not _is_ours(handler):
                return None
            found = handler
        place = place.parent if place.propagate else None
    return found if not logger.filters else None


def _is_ours(handler: logging.Handler) -> TypeGuard[logging.StreamHandler[Any]]:
    return (
        type(handler) is logging.StreamHandler
        and type(handler.formatter) is LineFormatter
        and handler.level <= logging.INFO
        and [*map(type, handler.filters)] == [ContextFilter]
    )


def _merge_extra(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    event.update(event.pop("extra", None) or {})
    for key in RESERVED & event.keys():
        event[f"{key}_"] = event.pop(key)
    return event


def _spell_out(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Where nobody configured logging, Python prints the event alone: there it says the rest too."""
    if not logger.hasHandlers():
        rest = {
            name: value for name, value in event.items() if name not in ("event", "exc_info", "stack_info")
        }
        said = redacted_line({**rest, **{k: v for k, v in get_contextvars().items() if k not in rest}})
        # A member of an enumeration as the text that it is.
        texts = {name: str(value) if isinstance(value, str) else value for name, value in said.items()}
        shown = [f"{name}={value!r}" for name, value in texts.items() if value not in (None, "")]
        event["event"] = " ".join([event["event"], *shown])
    return event


def _json(event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # Lone surrogates and very large numbers, which a caller can send to make a line disappear.
        return json.dumps(event, default=str, skipkeys=True)


logger = get_logger("svc_infra_django")
