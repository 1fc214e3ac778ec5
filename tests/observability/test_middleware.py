from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from wsgiref.util import FileWrapper

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest
from django.test import AsyncClient, Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.observability.middleware import client_address

from .conftest import sample, series

pytestmark = pytest.mark.usefixtures("site")

REQUEST_ID = "a-request.of_mine:01"


@pytest.fixture(params=["wsgi", "asgi"])
def get(request):
    """Send a GET through both kinds of handler: `get("/path", X_Request_ID="...")`."""

    def send(path: str, **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if request.param == "wsgi":
            return Client(raise_request_exception=False).get(path, headers=named)
        client = AsyncClient(raise_request_exception=False)
        return asyncio.run(client.get(path, headers=named))

    return send


def test_an_id_is_made_and_answered(get) -> None:
    response = get("/context")

    assert response["X-Request-ID"] == response.json()["request_id"]
    assert len(response["X-Request-ID"]) == 32


def test_two_requests_have_two_ids(get) -> None:
    assert get("/context")["X-Request-ID"] != get("/context")["X-Request-ID"]


@pytest.mark.parametrize("path", ["/context", "/acontext", "/fails", "/nowhere", "/streams"])
def test_a_good_id_of_the_caller_is_kept_however_it_ends(get, path) -> None:
    assert get(path, X_Request_ID=REQUEST_ID)["X-Request-ID"] == REQUEST_ID


@pytest.mark.parametrize(
    "offered",
    [
        "short",
        "x" * 129,
        "with space",
        "a,b,c,d,e,f",
        "ünïcödé-id",
        "semi;colon",
        "",
        "12345678\x00",
        "<script>aaa",
    ],
)
def test_a_bad_id_of_the_caller_is_replaced(get, offered) -> None:
    assert get("/context", X_Request_ID=offered)["X-Request-ID"] not in (offered, "")


def test_an_id_with_a_line_break_is_replaced() -> None:
    request_id = Client().get("/context", HTTP_X_REQUEST_ID="12345678\r\nSet-Cookie: a=b")["X-Request-ID"]

    assert "Set-Cookie" not in request_id


def test_rule_64_underscores_do_not_pass_for_hyphens_under_asgi() -> None:
    async def exchange() -> dict[bytes, bytes]:
        sent = []
        incoming = [{"type": "http.request", "body": b""}]

        async def receive():
            if incoming:
                return incoming.pop()
            await asyncio.sleep(30)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/context",
            "headers": [(b"host", b"testserver"), (b"x_request_id", REQUEST_ID.encode())],
        }
        await ASGIHandler()(scope, receive, send)
        return dict(sent[0]["headers"])

    assert asyncio.run(exchange())[b"X-Request-ID"] != REQUEST_ID.encode()


def test_the_callers_trace_goes_on(get) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"

    context = get("/context", traceparent=f"00-{trace_id}-b7ad6b7169203331-01").json()

    assert context == {"request_id": trace_id, "trace_id": trace_id, "trace_flags": "01"}


def test_a_malformed_trace_is_replaced(get) -> None:
    context = get("/context", traceparent="00-" + "0" * 32 + "-b7ad6b7169203331-01").json()

    assert context["trace_id"] != "0" * 32
    assert context["trace_flags"] == "00"


def test_every_line_of_a_request_has_its_id(get, lines) -> None:
    get("/context", X_Request_ID=REQUEST_ID)

    messages = {record.getMessage() for record in lines.records}
    assert {"in the view", "a stranger speaks", "request"} <= messages
    assert {record.request_id for record in lines.records} == {REQUEST_ID}


@pytest.mark.parametrize("path", ["/fails", "/nowhere"])
def test_djangos_own_lines_about_a_request_have_its_id(get, lines, path) -> None:
    get(path, X_Request_ID=REQUEST_ID)

    assert [record.request_id for record in lines.of("django.request")] == [REQUEST_ID]


@pytest.mark.parametrize("path", ["/streams", "/astreams"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_lines_written_while_a_body_streams_have_the_id(lines, path) -> None:
    async def read() -> bytes:
        response = await AsyncClient().get(path, headers={"X-Request-ID": REQUEST_ID})
        return b"".join([part async for part in response])

    if path == "/streams":
        response = Client().get(path, headers={"X-Request-ID": REQUEST_ID})
        body = b"".join(response)
    else:
        body = asyncio.run(read())

    assert body == b"0;1;2;"
    streamed = [record for record in lines.records if record.getMessage() == "streaming"]
    assert [record.request_id for record in streamed] == [REQUEST_ID] * 3


@pytest.mark.django_db(transaction=True)
def test_a_file_may_still_be_sent_by_the_server() -> None:
    environ = RequestFactory()._base_environ(PATH_INFO="/file") | {"wsgi.file_wrapper": FileWrapper}

    response = WSGIHandler()(environ, lambda status, headers: None)

    assert isinstance(response, FileWrapper)
    response.close()


def test_nothing_bound_in_one_request_is_seen_in_the_next(get) -> None:
    get("/untidy")

    assert "left_behind" not in get("/context").json()


def test_concurrent_requests_keep_their_ids_apart() -> None:
    async def many() -> list[tuple[str, str]]:
        client = AsyncClient()
        ids = [f"request-{number:04}" for number in range(50)]
        answers = await asyncio.gather(
            *(
                client.get(path, headers={"X-Request-ID": request_id})
                for request_id, path in zip(ids, ["/acontext", "/context"] * 25, strict=True)
            )
        )
        return [
            (request_id, answer.json()["request_id"]) for request_id, answer in zip(ids, answers, strict=True)
        ]

    assert all(sent == seen for sent, seen in asyncio.run(many()))


def test_a_thread_that_serves_many_starts_each_from_nothing() -> None:
    seen: list[dict[str, str]] = []

    def serve() -> None:
        for number in range(3):
            Client().get("/untidy")
            headers = {"X-Request-ID": f"request-{number:04}"}
            seen.append(Client().get("/context", headers=headers).json())

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()

    assert [context["request_id"] for context in seen] == [f"request-{number:04}" for number in range(3)]
    assert all("left_behind" not in context for context in seen)


def test_one_line_says_what_happened(get, lines) -> None:
    get("/orders/7/?token=hunter2")

    (line,) = lines.access
    assert (line.method, line.path, line.route, line.status, line.client) == (
        "GET",
        "/orders/7/",
        "/orders/<int:number>/",
        200,
        "127.0.0.1",
    )
    assert line.duration_ms >= 0
    assert "hunter2" not in str(vars(line))


@pytest.mark.parametrize("path", ["/reset/hunter2/", "/confirm/hunter2/"])
def test_a_token_in_the_path_is_not_logged(get, lines, path) -> None:
    get(path)

    (line,) = lines.access
    assert line.path == path.replace("hunter2", "[redacted]")
    assert "hunter2" not in str(vars(line))


def test_a_key_that_was_left_out_leaves_the_path_as_it_is(get, lines) -> None:
    get("/open/")

    assert [line.path for line in lines.access] == ["/open/"]


def test_a_fault_is_a_500_with_its_line(get, lines) -> None:
    assert get("/fails").status_code == 500

    assert [line.status for line in lines.access] == [500]


def test_a_caller_who_leaves_is_a_499_and_no_longer_in_flight(lines) -> None:
    before = sample("http_requests_in_flight", method="GET")

    async def leave() -> None:
        task = asyncio.create_task(AsyncClient().get("/waits"))
        await asyncio.sleep(0.05)
        assert sample("http_requests_in_flight", method="GET") == before + 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())

    assert [line.status for line in lines.access] == [499]
    assert sample("http_requests_in_flight", method="GET") == before


@pytest.mark.parametrize("path", ["/context", "/fails", "/nowhere", "/streams"])
def test_nobody_is_left_in_flight(get, path) -> None:
    before = sample("http_requests_in_flight", method="GET")

    get(path)

    assert sample("http_requests_in_flight", method="GET") == before


def test_a_scan_for_pages_makes_no_series(get) -> None:
    get("/context"), get("/scan-0")
    counted, timed = len(series("http_requests_total")), len(series("http_request_duration_seconds_count"))

    for number in range(1, 60):
        get(f"/scan-{number}")

    assert len(series("http_requests_total")) == counted
    assert len(series("http_request_duration_seconds_count")) == timed
    assert {labels["route"] for labels in series("http_requests_total")} >= {"unmatched", "/context"}


def test_made_up_methods_are_one_series() -> None:
    before = {labels["method"] for labels in series("http_requests_total")}

    for method in ("BREW", "WHEN", "get"):
        Client().generic(method, "/context")

    assert {labels["method"] for labels in series("http_requests_total")} == {*before, "other"}


def test_the_caller_is_named_by_principal(settings, lines, rf) -> None:
    from svc_infra_django.observability.middleware import RequestContextMiddleware

    def view(request: HttpRequest):
        request.principal = SimpleNamespace(user=SimpleNamespace(pk=7), method="api_key")
        return SimpleResponse()

    RequestContextMiddleware(view)(rf.get("/x"))

    (line,) = lines.access
    assert (line.user_id, line.credential) == ("7", "api_key")


class SimpleResponse(dict):
    status_code = 200
    streaming = False


def test_probes_are_silent_unless_they_fail(get, lines) -> None:
    get("/healthz")
    get("/healthz/of/nothing")

    assert [line.path for line in lines.access] == ["/healthz/of/nothing"]


def test_the_access_log_can_be_off(get, lines, svc_settings) -> None:
    svc_settings(observability={"access_log": False})

    get("/context")

    assert lines.access == []


def test_a_probe_needs_no_name_in_allowed_hosts(get, settings) -> None:
    settings.ALLOWED_HOSTS = ["shop.example"]

    assert get("/healthz", Host="10.0.0.7").status_code == 200
    assert get("/context", Host="10.0.0.7").status_code == 400


def test_a_probe_is_not_redirected(get, settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.security.SecurityMiddleware"]

    assert get("/healthz").status_code == 200
    assert get("/context").status_code == 301


PROXY = "10.0.0.1"


@pytest.fixture
def proxies(svc_settings) -> None:
    svc_settings(observability={"trusted_proxies": ["10.0.0.0/8", "2001:db8::/32"]})


def coming_from(peer: str, forwarded: str | None = None) -> str:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    return client_address(RequestFactory(REMOTE_ADDR=peer).get("/", headers=headers))


@pytest.mark.usefixtures("proxies")
@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "6.6.6.6", "203.0.113.9"),
        (PROXY, None, PROXY),
        (PROXY, "203.0.113.9", "203.0.113.9"),
        (PROXY, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (PROXY, "6.6.6.6, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        (PROXY, "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        (PROXY, "203.0.113.9:4711", "203.0.113.9"),
        (PROXY, "[2001:4860::8]:4711", "2001:4860::8"),
        (PROXY, "2001:4860::8", "2001:4860::8"),
        (PROXY, "203.0.113.9, rubbish", PROXY),
        (PROXY, "203.0.113.9, rubbish, 10.2.2.2", "10.2.2.2"),
        (PROXY, "", PROXY),
        (PROXY, ",,,", PROXY),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "203.0.113.9", "203.0.113.9"),
        ("", "203.0.113.9", ""),
        ("unix:", "203.0.113.9", ""),
    ],
)
def test_the_caller_is_the_first_stranger_from_the_right(peer, forwarded, caller) -> None:
    assert coming_from(peer, forwarded) == caller


def test_without_proxies_the_header_is_ignored() -> None:
    assert coming_from(PROXY, "6.6.6.6") == PROXY


@pytest.mark.usefixtures("proxies")
def test_what_the_caller_wrote_before_the_proxys_entry_is_ignored() -> None:
    @given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60))
    def forge(text: str) -> None:
        assert coming_from(PROXY, f"{text}, 203.0.113.9") == "203.0.113.9"

    forge()


def test_ten_thousand_hops_cost_nothing(proxies) -> None:
    assert coming_from(PROXY, "10.0.0.2, " * 10_000 + "203.0.113.9") == "203.0.113.9"
