from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from svc_infra_django.webhooks.addresses import checked_headers, checked_url, is_allowed
from svc_infra_django.webhooks.errors import BadEndpoint

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:100.64.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "2620:4f:8000::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "93.184.216.34",
    "172.32.0.1",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2003::1",
    "2606:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_special_addresses_are_refused(address: str) -> None:
    assert not is_allowed(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_dialled(address: str) -> None:
    assert is_allowed(ip_address(address))


def test_the_operator_allows_networks_and_only_those() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]

    assert is_allowed(ip_address("10.1.2.3"), allowed=allowed)
    assert is_allowed(ip_address("fd00::1"), allowed=allowed)
    assert not is_allowed(ip_address("10.2.0.1"), allowed=allowed)
    assert not is_allowed(ip_address("::ffff:10.1.2.3"), allowed=allowed)


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://0X7F.0.0.1/",
        "https://017700000001/",
        "https://0x7f000001./",
        "https://example.0x7f/",
        "https://0/",
        "https://127%2e0%2e0%2e1/",
        "https://127.0.0.1%00.example.com/",
        "https://127\u30020\u30020\u30021/",
        "https://127.0.0.1/",
        "https://127.0.0.1./",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[0:0:0:0:0:0:0:1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[64:ff9b::169.254.169.254]/",
        "https://[1.1.1.1]/",
        "https://[v1.fe]/",
        "https://[2606:4700::1111%25eth0]/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[::ffff:7f00:1]/",
        "https://169.254.169.254/",
        "https://localhost/",
        "https://LOCALHOST/",
        "https://localhost./",
        "https://a.localhost/",
        "https://intranet/",
        "https://db.internal/",
        "https://metadata.google.internal/",
        "https://localhost.localdomain/",
        "https://printer.local/",
        "https://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://user:pw@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com;@127.0.0.1/",
        "https://1.1.1.1:443@127.0.0.1/",
        "https:example.com/",
        "https:////127.0.0.1/",
        "https://example.com:+443/",
        "https://example.com:4_4/",
        "https://example.com\t.evil/",
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "https://",
        "https:///path",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/\r\nX: y",
        "https://example.com/\x00",
        "https://example.com/#fragment",
        "",
        "https://-bad-.com/",
        "https://ex%61mple.com/",
        "https://[::1",
        "https://[2606:4700::1111]evil.com/",
        "https://[2606:4700::1111]:443:80/",
        "https://a..b/",
        "javascript:alert(1)",
        "https://256.256.256.256/",
        "https://1.2.3.4.5/",
        "https://" + "a" * 64 + ".com/",
        "https://x.com/" + "a" * 2000,
    ],
)
def test_urls_that_may_not_be_kept(url: str, svc_settings: Callable[..., None]) -> None:
    svc_settings(webhooks={"allow_http": False, "allowed_networks": ()})

    with pytest.raises(BadEndpoint) as refusal:
        checked_url(url)
    assert refusal.value.errors[0].pointer == "/body/url"


@pytest.mark.parametrize(
    "url",
    ["https://example.com", "https://hooks.example.com:8443/a/b?c=d", "https://1.1.1.1/", "https://[2606:4700::1111]/",
     "https://xn--bcher-kva.example/", "https://a_b.example.com./x"],
)  # fmt: skip
def test_urls_that_may_be_kept(url: str, svc_settings: Callable[..., None]) -> None:
    svc_settings(webhooks={"allow_http": False, "allowed_networks": ()})

    assert checked_url(url) == url


def test_ports_can_be_limited(svc_settings: Callable[..., None]) -> None:
    svc_settings(webhooks={"allowed_ports": (443,)})

    assert checked_url("https://example.com/")
    with pytest.raises(BadEndpoint):
        checked_url("https://example.com:22/")


@pytest.mark.parametrize(
    "headers",
    [{"Host": "x"}, {"content-length": "1"}, {"Webhook-Id": "x"}, {"Proxy-Authorization": "x"}, {"a b": "x"},
     {"": "x"}, {"x": "a\r\nb: c"}, {"x": "a\nb"}, {"x": "\x00"}, {"x": "é"}, {"x": "y" * 4097}, {"x:y": "z"},
     {"X-Key": "a", "x-key": "b"},
     {f"x{n}": "y" for n in range(21)}],
)  # fmt: skip
def test_headers_that_may_not_be_kept(headers: dict[str, str]) -> None:
    with pytest.raises(BadEndpoint):
        checked_headers(headers)


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Connection"),
        *("TE", "Trailer", "Upgrade", "Expect", "Keep-Alive", "User-Agent", "Accept-Encoding"),
        *("Proxy-Authorization", "Proxy-Connection", "traceparent", "tracestate"),
        *("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-anything"),
    ],
)
def test_a_header_that_frames_signs_or_routes_is_the_senders_alone(name: str) -> None:
    for spelled in (name.lower(), name.upper()):
        with pytest.raises(BadEndpoint) as refusal:
            checked_headers({"X-Fine": "y", spelled: "x"})
        assert refusal.value.errors[0].pointer == "/body/headers"
