from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from svc_infra_django.webhooks.addresses import checked_url
from svc_infra_django.webhooks.transport import Outcome, Request, Transport

from .conftest import Receiver


def looked_up_in(answers: dict[str, list[str]]) -> Callable[[str], list[str]]:
    """A resolver that knows these names only."""

    def lookup(name: str) -> list[str]:
        try:
            return answers[name]
        except KeyError:
            raise socket.gaierror("unknown") from None

    return lookup


@pytest.fixture
def send() -> Iterator[Callable[..., Outcome]]:
    opened: list[Transport] = []

    def one(url: str, *, timeout: float = 30, answers: Any = None, **options: Any) -> Outcome:
        transport = Transport(lookup=None if answers is None else looked_up_in(answers))
        opened.append(transport)
        body = options.get("body", b"{}")
        transport.start(Request(url, body, options.get("headers", ()), timeout, tag=url))
        limit = time.monotonic() + timeout + 30
        while time.monotonic() < limit:
            if found := transport.turn(wait=0.2):
                return found[0]
        raise AssertionError("no outcome")

    yield one
    for transport in opened:
        transport.close()


def test_a_name_that_resolves_to_a_private_address_is_blocked_when_dialled(
    receiver: Receiver, send: Callable[..., Outcome], svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"allowed_networks": ()})
    assert checked_url(f"http://rebind.example:{receiver.port}/")

    outcome = send(receiver.url(host="rebind.example"), answers={"rebind.example": ["127.0.0.1"]})

    assert (outcome.status, outcome.error) == (None, "blocked")
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "address", ["::1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1", "64:ff9b::7f00:1", "fe80::1"]
)
def test_the_guard_judges_every_kind_of_answer(address: str, send: Callable[..., Outcome]) -> None:
    outcome = send("http://rebind.example/", answers={"rebind.example": [address]})

    assert outcome.error == "blocked"


def test_of_several_answers_only_the_good_ones_are_dialled(
    receiver: Receiver, send: Callable[..., Outcome]
) -> None:
    answers = {"mixed.example": ["::1", "169.254.169.254", "127.0.0.1"]}

    assert send(receiver.url(host="mixed.example"), answers=answers).status == 200


def test_a_name_may_end_with_a_dot(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    assert send(receiver.url(host="dot.example."), answers={"dot.example.": ["127.0.0.1"]}).status == 200


def test_a_name_that_changes_its_address_is_judged_at_every_new_connection(receiver: Receiver) -> None:
    answers = {"rebind.example": ["127.0.0.1"]}
    receiver.headers = {"Connection": "close"}
    outcomes = []
    for address in ("127.0.0.1", "169.254.169.254"):
        answers["rebind.example"] = [address]
        transport = Transport(lookup=looked_up_in(answers))
        transport.start(Request(receiver.url(host="rebind.example"), b"{}", (), 30))
        outcomes += wait_for(transport, 1)
        transport.close()

    assert [outcome.error for outcome in outcomes] == ["", "blocked"]
    assert receiver.connections == 1


def test_a_name_whose_servers_hang_delays_no_other_name(receiver: Receiver) -> None:
    answering = threading.Event()

    def lookup(name: str) -> list[str]:
        if name.startswith("slow"):
            answering.wait(60)
        return ["127.0.0.1"]

    transport = Transport(lookup=lookup)
    before = set(threading.enumerate())
    for n in range(60):
        transport.start(Request(receiver.url(host=f"slow{n % 30}.example"), b"{}", (), 30, tag="slow"))
    assert len(set(threading.enumerate()) - before) == 30
    transport.start(Request(receiver.url(host="quick.example"), b"{}", (), 30, tag="quick"))

    (first,) = wait_for(transport, 1)
    answering.set()

    assert (first.tag, first.status) == ("quick", 200)
    assert [outcome.status for outcome in wait_for(transport, 60)] == [200] * 60
    transport.close()


def test_a_name_whose_servers_hang_costs_no_more_than_the_timeout() -> None:
    answering = threading.Event()

    def lookup(name: str) -> list[str]:
        answering.wait(60)
        return []

    transport = Transport(lookup=lookup)
    for n in range(2):
        transport.start(Request("https://slow.example/", b"{}", (), 0.1, tag=n))

    assert {outcome.error for outcome in wait_for(transport, 2)} == {"timeout"}
    assert transport.under_way == 0
    transport.close()
    answering.set()


def test_a_name_is_looked_up_once_for_many_requests(receiver: Receiver) -> None:
    asked = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"]

    transport = Transport(lookup=lookup)
    for _ in range(2):
        for n in range(10):
            transport.start(Request(receiver.url(host="one.example"), b"{}", (), 2, tag=n))
        assert [outcome.status for outcome in wait_for(transport, 10)] == [200] * 10
    transport.close()

    assert asked == ["one.example"]


def wait_for(transport: Transport, count: int) -> list[Outcome]:
    found: list[Outcome] = []
    limit = time.monotonic() + 60
    while len(found) < count and time.monotonic() < limit:
        found += transport.turn(wait=0.05)
    return found


def test_whoever_waits_for_an_answer_can_be_woken() -> None:
    transport = Transport()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport.start(Request(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"{}", [], 20))
        transport.wake()

        assert transport.turn(wait=60) == []
        assert transport.under_way == 1
        transport.close()


def test_a_name_of_the_machine_itself_is_blocked(
    send: Callable[..., Outcome], svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"allowed_networks": ("10.0.0.0/8",)})

    outcome = send(f"http://{'localhost'}:1/")

    assert outcome.error == "blocked"


def test_a_connection_kept_for_one_name_serves_no_other(receiver: Receiver) -> None:
    answers = {
        "one.example": ["127.0.0.1"],
        "two.example": ["127.0.0.1"],
        "evil.example": ["169.254.169.254"],
    }
    transport = Transport(lookup=looked_up_in(answers))
    outcomes = []
    for name in ("one", "one", "two", "evil"):
        transport.start(Request(receiver.url(host=f"{name}.example"), b"{}", (), 2, tag=name))
        while not (found := transport.turn(wait=0.2)):
            pass
        outcomes.append(found[0].error or found[0].status)
    transport.close()

    assert outcomes == [200, 200, 200, "blocked"]
    assert receiver.connections == 2


def test_headers_go_out_as_they_were_given(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    send(receiver.url(), headers=[("Accept", "text/plain"), ("X-Empty", ""), ("X-Blank", "  ")])

    sent = receiver.requests[0].headers
    assert (sent["accept"], sent["x-empty"], sent["x-blank"]) == ("text/plain", "", "")
    assert "expect" not in sent


def test_a_url_and_a_large_body_go_out_as_they_are(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    body = b"x" * 1_100_000

    send(receiver.url("/a/../b/./c?q=/../"), body=body)

    (sent,) = receiver.requests
    assert (sent.path, sent.body) == ("/a/../b/./c?q=/../", body)
    assert "expect" not in sent.headers


def test_a_url_is_judged_by_the_settings_of_the_moment(
    receiver: Receiver, svc_settings: Callable[..., None]
) -> None:
    transport = Transport()
    errors = []
    for is_plain in (True, False, True):
        svc_settings(webhooks={"allow_http": is_plain})
        transport.start(Request(receiver.url(), b"{}", (), 30))
        while not (found := transport.turn(wait=0.2)):
            pass
        errors.append(found[0].error)
    transport.close()

    assert errors == ["", "blocked", ""]
    assert len(receiver.requests) == 2


def test_redirects_are_not_followed(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    receiver.answers(307, Location=receiver.url("/elsewhere"))

    assert send(receiver.url()).status == 307
    assert len(receiver.requests) == 1


def test_the_environments_proxy_is_not_used(
    receiver: Receiver, send: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")

    assert send(receiver.url()).status == 200


def test_a_netrc_gives_nothing_away(
    receiver: Receiver, send: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("HOME", str(tmp_path))

    send(receiver.url())

    assert "authorization" not in receiver.requests[0].headers


def test_cookies_are_not_kept(receiver: Receiver) -> None:
    receiver.answers(200, Set_Cookie="a=b")
    transport = Transport()
    for _ in range(2):
        transport.start(Request(receiver.url(), b"{}", (), 30))
        while not transport.turn(wait=0.2):
            pass
    transport.close()

    assert "cookie" not in receiver.requests[1].headers
    assert receiver.connections == 1


def drip(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(400):
        handler.wfile.write(b"x")
        time.sleep(0.05)
    handler.close_connection = True


def drip_head(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for n in range(400):
        handler.wfile.write(b"X-%d: y\r\n" % n)
        time.sleep(0.05)
    handler.close_connection = True


@pytest.mark.parametrize("answer", [drip, drip_head])
def test_the_timeout_covers_a_receiver_that_drips(
    receiver: Receiver, send: Callable[..., Outcome], answer: Any
) -> None:
    receiver.answers(answer)

    assert send(receiver.url(), timeout=0.4).error == "timeout"


def test_the_connection_has_a_limit_of_its_own(
    send: Callable[..., Outcome], svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"connect_timeout_seconds": 0.2})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcome = send(f"https://127.0.0.1:{silent.getsockname()[1]}/")

    assert outcome.error == "timeout"
    assert outcome.seconds < 25  # of the thirty that the whole attempt has


def endless(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(2000):
        handler.wfile.write(b"x" * 65_536)
    handler.close_connection = True
    handler.server.received.requests.clear()  # to tell that all of it was read


def test_an_endless_body_is_cut_while_reading(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    receiver.answers(endless)

    outcome = send(receiver.url())

    assert (outcome.status, len(outcome.body)) == (200, 16_384)
    assert len(receiver.requests) == 1


def endless_head(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for n in range(100_000):
        handler.wfile.write(b"X-%d: %s\r\n" % (n, b"y" * 200))
    handler.close_connection = True


def test_an_endless_head_is_a_failure(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    receiver.answers(endless_head)

    assert send(receiver.url()).error == "protocol"


def test_a_head_is_read_up_to_its_limit(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    receiver.answers(200, **{f"X_{n}": "y" * 1000 for n in range(50)})
    assert send(receiver.url()).status == 200

    receiver.answers(200, **{f"X_{n}": "y" * 1000 for n in range(80)})
    assert send(receiver.url()).error == "protocol"


def test_a_compressed_body_is_left_as_it_is(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    bomb = gzip.compress(b"\x00" * 10_000_000)
    receiver.body = bomb
    receiver.answers(200, Content_Encoding="gzip")

    outcome = send(receiver.url())

    assert outcome.status == 200
    assert outcome.body == bomb[:16_384]
    assert "accept-encoding" not in receiver.requests[0].headers


def test_nonsense_instead_of_http_is_a_failure(receiver: Receiver, send: Callable[..., Outcome]) -> None:
    def speak(handler: Any) -> None:
        handler.wfile.write(b"220 smtp.example.com ESMTP\r\n")
        handler.close_connection = True

    receiver.answers(speak)

    assert send(receiver.url()).error == "protocol"


def test_many_are_sent_at_once_and_connections_are_used_again(receiver: Receiver) -> None:
    all_are_there = threading.Barrier(20)

    def answer(handler: Any) -> None:
        all_are_there.wait(30)
        handler.send_response(204)
        handler.end_headers()

    receiver.answers(answer)
    transport = Transport()
    for _ in range(2):
        for n in range(20):
            transport.start(Request(receiver.url(), b"{}", (), 30, tag=n))
        done = wait_for(transport, 20)
        assert sorted((outcome.tag, outcome.status) for outcome in done) == [(n, 204) for n in range(20)]
    transport.close()

    assert receiver.connections == 20


def test_a_name_that_does_not_exist_is_a_dns_error(send: Callable[..., Outcome]) -> None:
    assert send("http://no-such-host.invalid/", timeout=5).error in ("dns", "timeout")
    assert send("http://no-such-host.invalid/", answers={}).error == "dns"


@pytest.fixture
def tls_port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A TLS server for `hooks.example` with a certificate of its own; the parameter is its newest version."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "tls.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if hasattr(request, "param"):
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = request.param
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                plain, _ = listener.accept()
                plain.settimeout(2)
                with context.wrap_socket(plain, server_side=True) as wrapped:
                    wrapped.recv(65_536)
                    wrapped.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1], pem
    stop.set()
    thread.join()
    listener.close()


def test_tls_is_verified_against_the_authorities_and_the_name(
    tls_port: tuple[int, Path], send: Callable[..., Outcome], svc_settings: Callable[..., None]
) -> None:
    port, pem = tls_port
    answers = {"hooks.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}
    assert send(f"https://hooks.example:{port}/", answers=answers).error == "tls"

    svc_settings(webhooks={"ca_bundle": str(pem)})

    assert send(f"https://hooks.example:{port}/", answers=answers).status == 204
    assert send(f"https://other.example:{port}/", answers=answers).error == "tls"


@pytest.mark.parametrize(
    ("tls_port", "told"),
    [(ssl.TLSVersion.TLSv1_2, (204, "")), (ssl.TLSVersion.TLSv1_1, (None, "tls"))],
    indirect=["tls_port"],
)
def test_nothing_older_than_tls_1_2_is_spoken(
    tls_port: tuple[int, Path],
    told: tuple[int | None, str],
    send: Callable[..., Outcome],
    svc_settings: Callable[..., None],
) -> None:
    port, pem = tls_port
    svc_settings(webhooks={"ca_bundle": str(pem)})

    outcome = send(f"https://hooks.example:{port}/", timeout=20, answers={"hooks.example": ["127.0.0.1"]})

    assert (outcome.status, outcome.error) == told
