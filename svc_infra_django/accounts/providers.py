"""Whoever else can say who somebody is: Google, GitHub, Microsoft, any OpenID provider.

They are configured as django-allauth wants it, and allauth knows where each has its endpoints and what
its answers mean. What protects the way there and back is here: PKCE (RFC 7636), the nonce and the whole
check of the ID token (OpenID Connect Core, section 3.1.3.7).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from allauth.core.context import request_context
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.providers.base import ProviderException
from django.apps import apps
from django.core.exceptions import (
    ImproperlyConfigured,
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    PermissionDenied,
    ValidationError,
)
from django.http import HttpRequest, QueryDict

from ..observability.logging import get_logger
from .conf import settings
from .errors import ProviderRefused, ProviderUnavailable, UnknownProvider

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"})
REQUIRED = ("iss", "sub", "aud", "exp", "iat", "nonce")
LONGEST_UID = 191

GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"

KEYS_SECONDS = 60 * 60
ASK_AGAIN_SECONDS = 60

# What allauth's own providers raise for an answer that is not as it should be.
BAD_ANSWERS = (
    *(ProviderException, PermissionDenied, ValidationError, jwt.InvalidTokenError),
    *(KeyError, IndexError, TypeError, ValueError, AttributeError),
)

logger = get_logger("svc_infra_django.accounts")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What one login keeps to itself while its user is away at the provider."""

    nonce: str = field(repr=False)
    verifier: str = field(repr=False)

    @property
    def challenge(self) -> str:
        """The verifier's digest, method S256 (RFC 7636, section 4.2)."""
        return urlsafe_b64encode(sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody, as a provider knows them. Only `provider` and `uid` together name a person."""

    provider: str
    uid: str
    addresses: tuple[tuple[str, bool], ...]
    """E-mail addresses as the provider wrote them, and whether it says that they are proven."""

    names: dict[str, str]
    extra: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenID:
    """Who signs the ID tokens of a provider, and where its keys are."""

    issuers: tuple[str, ...]
    keys_url: str
    says_issuer: bool = False


class Provider:
    """One configured provider, by the `id` that callers name it with. Raises UnknownProvider."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._request = _blank_request()
        try:
            with request_context(self._request):
                self._provider = get_adapter().get_provider(self._request, provider=key)
        except (ObjectDoesNotExist, MultipleObjectsReturned, ImproperlyConfigured):
            raise UnknownProvider() from None
        if not hasattr(self._provider, "get_oauth2_adapter"):
            raise UnknownProvider()
        self._adapter = self._provider.get_oauth2_adapter(self._request)
        self._adapter.get_callback_url = lambda request, app: settings.oauth_callback_url
        self._adapter.get_provider = lambda: self._provider
        # allauth would make rows of the answer, and fold addresses as we must not.
        self._provider.sociallogin_from_response = lambda request, answer: self._identity(answer)

    def authorization_url(self, *, state: str, secrets: Secrets) -> str:
        """Where the browser goes to prove who it is. Raises ProviderUnavailable or ProviderRefused."""
        with _speaking_of(self.key), request_context(self._request):
            scope = self._provider.get_scope()
            extra = {
                **self._provider.get_auth_params(),
                "code_challenge": secrets.challenge,
                "code_challenge_method": "S256",
            }
            if self._openid() is not None:
                scope = list(dict.fromkeys(["openid", *scope]))
                extra["nonce"] = secrets.nonce
            client = self._adapter.get_client(self._request, self._provider.app)
            client.state = state
            return str(client.get_redirect_url(self._adapter.authorize_url, scope, extra))

    def identify(self, code: str, *, secrets: Secrets, issuer: str | None) -> Identity:
        """Exchange the code and learn who it was. `issuer` is what came back as `iss` (RFC 9207).

        Raises ProviderRefused for whatever is wrong with the answer, ProviderUnavailable for none.
        """
        with _speaking_of(self.key), request_context(self._request):
            openid = self._openid()
            if openid is not None and not _is_from(openid, issuer):
                raise ProviderException("wrong issuer")
            self._request.GET = QueryDict(urlencode({"code": code}))
            app = self._provider.app
            client = self._adapter.get_client(self._request, app)
            answer = self._adapter.get_access_token_data(
                self._request, app, client, pkce_code_verifier=secrets.verifier
            )
            claims = None
            if openid is not None:
                claims = checked_claims(
                    answer["id_token"], openid, audience=app.client_id, nonce=secrets.nonce
                )
            token = self._adapter.parse_token(answer)
            identity: Identity = self._adapter.complete_login(self._request, app, token, response=answer)
            _demand_same_subject(identity, claims)
            return identity

    def _openid(self) -> OpenID | None:
        # Asked of the class: on the adapter itself it would fetch the document.
        if hasattr(type(self._adapter), "openid_config"):
            config = _remembered_config(self._provider, self._adapter)
            says = config.get("authorization_response_iss_parameter_supported") is True
            return OpenID((config["issuer"],), config["jwks_uri"], says_issuer=says)
        if self._provider.id == "google":
            issuer = self._adapter.id_token_issuer
            keys_url = self._provider.get_settings().get("JWKS_URL", GOOGLE_KEYS)
            return OpenID((issuer, issuer.removeprefix("https://")), keys_url)
        return None

    def _identity(self, answer: Any) -> Identity:
        provider = self._provider
        uid = provider.extract_uid(answer)
        if not isinstance(uid, str) or not 0 < len(uid) <= LONGEST_UID or "\x00" in uid:
            raise ValueError("no usable id")
        fields = provider.extract_common_fields(answer)
        found = [(each.email, each.verified) for each in provider.extract_email_addresses(answer)]
        if not found and fields.get("email"):
            found = [(fields["email"], fields.get("email_verified"))]
        return Identity(
            provider=provider.sub_id,
            uid=uid,
            addresses=tuple((email, self._is_proven(email, word)) for email, word in found if email),
            names={name: str(text) for name, text in fields.items() if name.endswith("name") and text},
            extra=provider.extract_extra_data(answer),
        )

    def _is_proven(self, email: str, word: object) -> bool:
        # The text "false" is true to Python, and some providers write "true".
        return word is True or word == "true" or get_adapter().is_email_verified(self._provider, email)


def configured_providers() -> list[tuple[str, str]]:
    """Id and name of each provider that people may come from."""
    if not apps.is_installed("allauth.socialaccount"):
        return []
    request = _blank_request()
    with request_context(request):
        found = get_adapter().list_providers(request)
    return [(each.sub_id, str(each.name)) for each in found if hasattr(each, "get_oauth2_adapter")]


def checked_claims(id_token: str, openid: OpenID, *, audience: str, nonce: str) -> dict[str, Any]:
    """The claims of an ID token that is good. Raises jwt's InvalidTokenError, whatever is wrong.

    The key says which algorithm it is for; the token's header only names the key.
    """
    kid = jwt.get_unverified_header(id_token).get("kid")
    key = keys.find(openid.keys_url, kid)
    claims: dict[str, Any] = jwt.decode(
        id_token,
        key.key,
        algorithms=[key.algorithm_name],
        audience=audience,
        issuer=list(openid.issuers),
        leeway=settings.token_leeway_seconds,
        options={"require": list(REQUIRED)},
    )
    if not compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
        raise jwt.InvalidTokenError("nonce")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if (several or "azp" in claims) and claims.get("azp") != audience:
        raise jwt.InvalidTokenError("azp")
    return claims


class Keys:
    """Public keys of providers, each set fetched once an hour, and sooner for a key that is new."""

    def __init__(self) -> None:
        self._sets: dict[str, tuple[float, dict[str | None, jwt.PyJWK]]] = {}
        self._lock = Lock()

    def find(self, url: str, kid: object) -> jwt.PyJWK:
        """Raises jwt's InvalidTokenError for a key that the provider does not have."""
        name = kid if isinstance(kid, str) else None
        with self._lock:
            fetched, known = self._sets.get(url, (None, {}))
        age = monotonic() - fetched if fetched is not None else None
        # Anybody can name a key that is not there: that asks the provider once a minute, no more.
        if age is None or age > KEYS_SECONDS or (name not in known and age > ASK_AGAIN_SECONDS):
            known = self._fetch(url)
        if name is None and len(known) == 1:
            return next(iter(known.values()))
        if name not in known:
            raise jwt.InvalidTokenError("unknown key")
        return known[name]

    def forget(self) -> None:
        with self._lock:
            self._sets.clear()

    def _fetch(self, url: str) -> dict[str | None, jwt.PyJWK]:
        known = dict(_usable(_fetched(url)["keys"]))
        with self._lock:
            self._sets[url] = (monotonic(), known)
        return known


keys = Keys()


def _usable(documents: Iterable[dict[str, Any]]) -> Iterable[tuple[str | None, jwt.PyJWK]]:
    for document in documents:
        try:
            key = jwt.PyJWK(document)
        except jwt.PyJWTError:
            continue  # of a kind that we do not know
        if key.algorithm_name in ALGORITHMS and document.get("use", "sig") == "sig":
            yield key.key_id, key


_configs: dict[str, tuple[float, dict[str, Any]]] = {}


def _remembered_config(provider: Any, adapter: Any) -> dict[str, Any]:
    """The provider's discovery document, asked for once an hour."""
    overrides = provider.app.settings.get("openid_configuration_overrides", {})
    name = json.dumps([provider.server_url, overrides], sort_keys=True, default=str)
    at, config = _configs.get(name, (None, {}))
    if at is None or monotonic() - at > KEYS_SECONDS:
        config = adapter.openid_config
        _configs[name] = (monotonic(), config)
    adapter._openid_config = config
    return config


def forget_providers() -> None:
    """Ask every provider anew for its keys and endpoints."""
    keys.forget()
    _configs.clear()


def _fetched(url: str) -> Any:
    with get_adapter().get_requests_session() as session:
        response = session.get(url)
        response.raise_for_status()
        return response.json()


def _is_from(openid: OpenID, issuer: str | None) -> bool:
    return issuer in openid.issuers or (issuer is None and not openid.says_issuer)


def _demand_same_subject(identity: Identity, claims: dict[str, Any] | None) -> None:
    if not isinstance(identity, Identity):
        raise ProviderException("no identity")
    userinfo = identity.extra.get("userinfo") if claims is not None else None
    # OpenID Connect Core, section 5.3.2
    if claims is not None and isinstance(userinfo, dict) and userinfo.get("sub") != claims["sub"]:
        raise ProviderException("another subject")


def _blank_request() -> HttpRequest:
    """allauth wants a request at hand, of which it needs nothing but a host."""
    request = HttpRequest()
    url = urlsplit(settings.oauth_callback_url or "https://localhost")
    request.META.update(SERVER_NAME=url.hostname or "localhost", SERVER_PORT=str(url.port or 443))
    return request


@contextmanager
def _speaking_of(key: str) -> Iterator[None]:
    """Turn whatever goes wrong with a provider's answer into the error that the caller may see."""
    # Here, because every process of a project would wait a quarter of a second for them when it starts.
    from allauth.socialaccount.providers.oauth2.client import OAuth2Error
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        logger.warning("provider unavailable", provider=key, error=type(error).__name__)
        raise ProviderUnavailable() from None
    except (OAuth2Error, *BAD_ANSWERS) as error:
        logger.warning("provider refused", provider=key, error=type(error).__name__)
        raise ProviderRefused() from None
