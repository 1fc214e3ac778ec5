"""What of the project's settings would lose webhooks, or let them into the wrong networks."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning
from django.db import connections, router

from ..config.checks import register
from ..config.sections import BadSettings
from .conf import settings
from .models import Delivery

HINT = "See docs/reference/webhooks.md."
SETTLE_SECONDS = 1
SUPPORTED = ("postgresql", "sqlite")
# This machine, link-local with its metadata services, and those that lie elsewhere.
DANGEROUS = ("127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "::1/128", "fe80::/10", "fd00:ec2::254/128")


@register("svc_infra")
def check_lease(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001: a delivery may be sent again while it is still being sent."""
    try:
        lease, timeout = settings.lease_seconds, settings.timeout_seconds
    except BadSettings:
        return  # svc_config.E002 says what is wrong
    if lease < timeout + SETTLE_SECONDS:
        yield Error(
            f'SVC_INFRA["webhooks"]: lease_seconds {lease} ends before an attempt of {timeout:g} s does.',
            hint=f"Make lease_seconds longer than timeout_seconds. {HINT}",
            id="svc_webhooks.E001",
        )


@register("svc_infra")
def check_database(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E002: the database of the deliveries is one that the queue cannot use."""
    if connections[router.db_for_write(Delivery)].vendor not in SUPPORTED:
        yield Error(
            "The webhooks' queue works on PostgreSQL and SQLite only.",
            hint="Route svc_webhooks to a database of one of these kinds.",
            id="svc_webhooks.E002",
        )


@register("svc_infra")
def check_connect_timeout(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: the limit for connecting is longer than that for the whole attempt."""
    try:
        connect, total = settings.connect_timeout_seconds, settings.timeout_seconds
    except BadSettings:
        return
    if connect > total and "connect_timeout_seconds" in settings.model_fields_set:
        yield Warning(
            'SVC_INFRA["webhooks"]: connect_timeout_seconds is longer than timeout_seconds.',
            hint=f"Lower it. {HINT}",
            id="svc_webhooks.W001",
        )


@register(Tags.security, deploy=True)
def check_plain_http(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: messages may travel where everybody can read them."""
    try:
        is_plain = settings.allow_http
    except BadSettings:
        return
    if is_plain:
        yield Warning(
            "Webhook endpoints may be http://, so messages can be read and changed on their way.",
            hint='Take allow_http out of SVC_INFRA["webhooks"].',
            id="svc_webhooks.W002",
        )


@register(Tags.security, deploy=True)
def check_networks(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W003: users may make this server call into its own machine, or ask the cloud for its credentials."""
    try:
        opened = [network for network in settings.allowed_networks if _is_dangerous(network)]
    except BadSettings:
        return
    if opened:
        yield Warning(
            f"Webhooks may go to {', '.join(map(str, opened))}: this machine or the cloud's metadata.",
            hint='Name only the networks of your receivers in SVC_INFRA["webhooks"]["allowed_networks"].',
            id="svc_webhooks.W003",
        )


def _is_dangerous(network: Any) -> bool:
    dangerous = (ip_network(text) for text in DANGEROUS)
    return any(network.version == other.version and network.overlaps(other) for other in dangerous)
