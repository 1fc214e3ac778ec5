from __future__ import annotations

import io
import json
import logging
import logging.config
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import RequestFactory

from svc_infra_django.observability import logging_config
from svc_infra_django.observability.context import isolated
from svc_infra_django.observability.logging import ContextFilter, LineFormatter, get_logger, tell

SECRET = "hunter2-hunter2"


@pytest.fixture(params=["json", "console"])
def format(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def written(format: str) -> Iterator[Callable[[], str]]:
    """What a handler of `logging_config` writes for the loggers below `tests.logging`."""
    config = logging_config(format=format)
    formatter = config["formatters"]["svc"]
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter(formatter["renderer"]))
    handler.addFilter(config["filters"]["svc_context"]["()"]())
    logger = logging.getLogger("tests.logging")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield out.getvalue
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.fixture
def lines(written: Callable[[], str]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in written().splitlines()]


ours = get_logger("tests.logging.ours")
foreign = logging.getLogger("tests.logging.foreign")

only_json = pytest.mark.parametrize("format", ["json"], indirect=True)


@only_json
def test_key_words_and_extra_are_the_same(lines) -> None:
    ours.info("Creating order", user_id=7)
    ours.info("Creating order", extra={"user_id": 7})
    foreign.info("Creating order", extra={"user_id": 7})

    lean = [{k: v for k, v in line.items() if k in ("event", "user_id", "level")} for line in lines()]
    assert lean == [{"event": "Creating order", "user_id": 7, "level": "info"}] * 3
    assert {line["logger"] for line in lines()} == {"tests.logging.ours", "tests.logging.foreign"}
    assert all(line["timestamp"].endswith("Z") for line in lines())


@only_json
def test_positional_arguments_are_filled_in(lines) -> None:
    ours.info("%s of %d", "one", 3)
    ours.info("100 %")
    foreign.info("%s of %d", "one", 3)

    assert [line["event"] for line in lines()] == ["one of 3", "100 %", "one of 3"]


@only_json
def test_bound_values_are_in_every_line(lines) -> None:
    with isolated(request_id="request-0001"):
        ours.bind(order_id=1).info("placed")
        foreign.info("placed")

    assert [line["request_id"] for line in lines()] == ["request-0001"] * 2
    assert lines()[0]["order_id"] == 1


@only_json
def test_a_key_of_the_record_does_not_break_the_line(lines) -> None:
    ours.info("clash", name="x", message="y", args=(1,), module="z", level_="ok")

    (line,) = lines()
    assert (line["name_"], line["message_"], line["module_"]) == ("x", "y", "z")
    assert line["logger"] == "tests.logging.ours"


def fail() -> None:
    password = SECRET  # noqa: F841 a local variable that a traceback could show
    raise ValueError(f"cannot log in with password='{SECRET}'")


def test_tracebacks_are_written_without_secrets_and_locals(written) -> None:
    for write in (ours.exception, foreign.exception, lambda text: ours.error(text, exc_info=True)):
        try:
            fail()
        except ValueError:
            write("no luck")

    assert written().count("Traceback") == 3
    assert written().count("cannot log in") >= 3
    assert SECRET not in written()


def test_secrets_are_redacted_in_records_of_both_kinds(written) -> None:
    ours.info("a", password=SECRET, nested={"headers": {"Authorization": SECRET}})
    ours.info("b", extra={"api_key": SECRET})
    ours.info("c %s", {"token": SECRET})
    ours.info(f"d Bearer {SECRET}")
    foreign.info("e", extra={"client_secret": SECRET})
    foreign.info("f %s", f"postgres://ada:{SECRET}@db")
    foreign.error("g", extra={"request": RequestFactory().get(f"/reset?token={SECRET}")})

    assert SECRET not in written()
    assert written().count("[redacted]") == 7


@only_json
@pytest.mark.parametrize(
    "value", ["\ud800", 2**70, {"\udcff": {1: object()}}, float("nan"), {(1, 2): 3}, b"\xff"]
)
def test_no_value_makes_a_line_disappear(lines, value) -> None:
    ours.info("odd", value=value, request="kept")

    (line,) = lines()
    assert line["event"] == "odd"


@only_json
def test_a_line_break_stays_in_its_line(lines, written) -> None:
    ours.info("one\n{}", path="/a\r\n2026 forged")

    assert len(written().splitlines()) == 1


@only_json
def test_below_the_level_nothing_is_written(lines) -> None:
    ours.debug("quiet")
    foreign.debug("quiet")

    assert lines() == []


def test_a_logger_needs_no_django() -> None:
    code = (
        "from svc_infra_django.observability import logger\n"
        "logger.warning('early', extra={'n': 1})\n"
        "from svc_infra_django.observability.logging import get_logger\n"
        "get_logger('x').error('early too', n=2, password='hunter2', detail='a\\nb', nothing=None)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=True)

    # Nobody configured logging either, so Python prints the bare message.
    assert done.stderr == "early n=1\nearly too n=2 password='[redacted]' detail='a\\nb'\n"


def test_the_whole_config_is_accepted_and_says_everything_once() -> None:
    code = (
        "import django, logging\n"
        "from django.conf import settings\n"
        "from svc_infra_django.observability import logging_config, logger\n"
        "settings.configure(DEBUG=True, SECRET_KEY='x' * 50, LOGGING=logging_config())\n"
        "django.setup()\n"
        "logging.getLogger('django').warning('of django')\n"
        "logging.getLogger('django.db.backends').debug('SELECT 1')\n"
        "logger.info('of ours', password='hunter2')\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=True)

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["of django", "of ours"]
    assert lines[1]["password"] == "[redacted]"


def test_auto_is_json_when_nobody_looks(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    renderer = logging_config()["formatters"]["svc"]["renderer"]

    assert json.loads(renderer({"event": "placed"})) == {"event": "placed"}


@only_json
def test_a_value_named_like_a_part_of_every_line_is_kept_beside_it(lines) -> None:
    foreign.info("placed", extra={"event": "order.placed", "level": 7})

    (line,) = lines()
    assert (line["event"], line["event_"]) == ("placed", "order.placed")
    assert (line["level"], line["level_"]) == ("info", 7)


@pytest.fixture
def alone(format: str) -> Iterator[tuple[logging.Logger, logging.StreamHandler[Any]]]:
    """A logger with the handler of `logging_config` and no other."""
    logger = logging.getLogger("tests.alone")
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(LineFormatter(logging_config(format=format)["formatters"]["svc"]["renderer"]))
    handler.addFilter(ContextFilter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger, handler
    logger.handlers.clear(), logger.filters.clear()


SAID = {
    "path": "/orders/7?token=hunter2-hunter2",
    "api_key": SECRET,
    "level": 7,
    "status": 200,
    "user_id": "7",
}


@only_json
def test_a_line_without_a_record_says_what_one_with_a_record_says(alone) -> None:
    logger, handler = alone
    with isolated(request_id="request-0001", name="not of the line", tenant="north"):
        tell(logger, "request", SAID)
        logger.info("request", extra=SAID)

    told, logged = map(json.loads, handler.stream.getvalue().splitlines())
    assert told.pop("timestamp")[:16] == logged.pop("timestamp")[:16]
    assert told == logged
    assert (told["tenant"], told["level_"]) == ("north", 7)
    assert "hunter2" not in str(told)


@only_json
@pytest.mark.parametrize("way", ["another handler", "a filter", "a level", "another formatter"])
def test_where_others_listen_there_is_a_record_for_them(alone, caplog, way) -> None:
    logger, handler = alone
    match way:
        case "another handler":
            logger.addHandler(caplog.handler)
        case "a filter":
            logger.addFilter(lambda record: record.status != 200)
        case "a level":
            handler.setLevel(logging.ERROR)
        case _:
            handler.setFormatter(logging.Formatter("plain %(status)s"))

    tell(logger, "request", {"status": 200})

    written = handler.stream.getvalue()
    if way == "another handler":
        (record,) = caplog.records
        assert (record.status, record.filename) == (200, "test_logging.py")
    assert {"another handler": '"status":200' in written, "another formatter": written == "plain 200\n"}.get(
        way, not written
    )


@only_json
def test_a_log_that_cannot_be_written_costs_no_request(alone, monkeypatch) -> None:
    logger, handler = alone
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler.stream.close()

    tell(logger, "request", {"status": 200})


@only_json
def test_a_moment_is_told_to_the_microsecond(alone) -> None:
    formatter = alone[1].formatter
    lines = [formatter.line("e", {}, at=at, level="INFO", logger="x") for at in (0.0, 1.5, 1.0625)]

    assert [json.loads(line)["timestamp"] for line in lines] == [
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:01.500000Z",
        "1970-01-01T00:00:01.062500Z",
    ]
