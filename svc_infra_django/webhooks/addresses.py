"""Where webhooks may go and what headers they may bring: plain rules, without network.

What is refused here is refused at the desk, with a friendly word. A name says nothing about where it leads,
so `is_allowed` is asked once more where the transport opens a socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from .conf import settings
from .errors import BadEndpoint

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Our own table: `ipaddress.is_global` and its relatives differ between Python's patch releases.
REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata is in it
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's WireServer, a public address
        "169.254.0.0/16",  # link-local; the clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only global unicast is let through, so mapped, compatible, NAT64, link-local and unique local are out.
GLOBAL_V6 = IPv6Network("2000::/3")
REFUSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 carries any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)

HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
BRACKETED = re.compile(r"\[[0-9a-fA-F:.]+\](:[0-9]*)?")
LOCAL_NAMES = ("localhost", "local", "internal", "localdomain")
UNSAFE = re.compile(r"[\x00-\x20\x7f-\uffff\\^`{}|\"<>]")
MAX_URL_LENGTH = 2_000

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
HEADER_VALUE = re.compile(r"[\x20-\x7e\t]{0,4096}")
RESERVED_HEADERS = frozenset(
    (
        "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection",
        "te", "trailer", "upgrade", "expect", "keep-alive", "user-agent", "accept-encoding", "traceparent",
        "tracestate",
    )
)  # fmt: skip
RESERVED_PREFIXES = ("webhook-", "proxy-")


def is_allowed(address: Address, *, allowed: Iterable[Network] = ()) -> bool:
    """Whether `address` may be dialled: a public one, or one in a network that the operator allows."""
    if any(address in network for network in allowed if network.version == address.version):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in REFUSED_V4)
    return address in GLOBAL_V6 and not any(address in network for network in REFUSED_V6)


def checked_url(url: str) -> str:
    """`url` as it may be dialled, or BadEndpoint saying what is wrong with it.

    A friendly word at the desk: names are not resolved here, the guard at the socket is what protects.
    """
    if len(url) > MAX_URL_LENGTH:
        raise _bad("The URL is too long.")
    if UNSAFE.search(url) or any(char >= "\ud800" for char in url):
        raise _bad("The URL has characters in it that must be percent-encoded.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad("The URL is not well formed.") from None
    if parts.scheme not in (("https", "http") if settings.allow_http else ("https",)):
        raise _bad("The URL must begin with https://." if not settings.allow_http else "Use https or http.")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise _bad("Put credentials into a header, not into the URL.")
    if parts.fragment:
        raise _bad("The URL must not have a fragment.")
    if port == 0 or (settings.allowed_ports and _port(parts.scheme, port) not in settings.allowed_ports):
        raise _bad("This port is not allowed.")
    _check_host(parts.netloc, (parts.hostname or "").lower())
    return url


def checked_headers(headers: dict[str, str]) -> dict[str, str]:
    """The endpoint's own headers, or BadEndpoint: no token, a line break, or a name that is ours."""
    if len(headers) > 20:
        raise _bad("At most 20 headers.", pointer="/body/headers")
    if len({name.lower() for name in headers}) < len(headers):
        raise _bad("A header is there twice.", pointer="/body/headers")
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise _bad("A header is a token and a line of printable ASCII.", pointer="/body/headers")
        if name.lower() in RESERVED_HEADERS or name.lower().startswith(RESERVED_PREFIXES):
            raise _bad(f"The header {name} is set by the sender.", pointer="/body/headers")
    return headers


def host_and_port(url: str) -> tuple[str, int]:
    """What a checked URL dials: a name or an address, and the port, said or not."""
    parts = urlsplit(url)
    return parts.hostname or "", _port(parts.scheme, parts.port)


def is_literal(host: str) -> bool:
    """Whether a host says an address and is no name."""
    # The last label decides how resolvers read a host: digits or 0x there means an IPv4 address.
    return ":" in host or NUMERIC.fullmatch(host.removesuffix(".").rpartition(".")[2]) is not None


def _check_host(netloc: str, host: str) -> None:
    is_bracketed = netloc.startswith("[")
    labels = host.removesuffix(".").split(".")
    if is_bracketed or is_literal(host):
        try:
            if not (BRACKETED.fullmatch(netloc) if is_bracketed else re.fullmatch(r"[0-9.]+", host)):
                raise ValueError
            address = ip_address(host)
        except ValueError:
            raise _bad("Write an IP address in its usual form.") from None
        if not is_allowed(address, allowed=settings.allowed_networks):
            raise _bad("This address is not allowed.")
    elif len(host) > 253 or not all(HOST_LABEL.fullmatch(label) for label in labels):
        raise _bad("The host name is not well formed.")
    elif (len(labels) == 1 or labels[-1] in LOCAL_NAMES) and not settings.allowed_networks:
        raise _bad("This address is not allowed.")


def _port(scheme: str, port: int | None) -> int:
    return port or (443 if scheme == "https" else 80)


def _bad(message: str, *, pointer: str = "/body/url") -> BadEndpoint:
    problem = BadEndpoint.at(pointer, message)
    return BadEndpoint(message, errors=problem.errors)
