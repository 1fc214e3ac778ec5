"""A provider of identities on this machine that tells whatever lies a test wants."""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

CALLBACK = "https://api.example.com/api/oauth/callback"

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class FakeProvider:
    """Checks what a strict provider checks: client, redirect, PKCE, each code once."""

    def __init__(self) -> None:
        self.url = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.person: dict[str, Any] = {"sub": "248289761001", "name": "Jane Doe", "given_name": "Jane"}
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.kid: str | None = "k1"
        self.signing_key: Any = KEY
        self.algorithm = "RS256"
        self.keys = [{**RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k1", "use": "sig"}]
        self.is_down = False
        self.id_token: str | None = None

    def consent(self, authorization_url: str) -> str:
        """What the user's click does: the code that goes back."""
        query = dict(parse_qsl(urlsplit(authorization_url).query))
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return code

    def answer(self, method: str, path: str, body: str, headers: Any) -> tuple[int, Any]:
        self.asked.append(path)
        if self.is_down and path != "/token":
            return 503, {"error": "down"}
        if path in self.answers:
            return 200, self.answers[path]
        match path:
            case "/.well-known/openid-configuration":
                return 200, self.document()
            case "/jwks":
                return 200, {"keys": self.keys}
            case "/userinfo":
                return 200, {**self.person, **self.userinfo}
            case "/token" | "/common/oauth2/v2.0/token":
                return self.token(dict(parse_qsl(body)))
        return 404, {}

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            **self.config,
        }

    def token(self, form: dict[str, str]) -> tuple[int, Any]:
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=")
        good = (
            asked is not None
            and asked["code_challenge"] == challenge.decode()
            and asked["code_challenge_method"] == "S256"
            and asked["redirect_uri"] == form.get("redirect_uri") == CALLBACK
            and (form.get("client_id"), form.get("client_secret")) == ("shop", "shop-secret")
            and len(form["code_verifier"]) >= 43
        )
        if not good or asked is None:
            return 400, {"error": "invalid_grant"}
        answer = {"access_token": "provider-access-token", "token_type": "Bearer", "expires_in": 3600}
        if "openid" in asked["scope"].split():
            answer["id_token"] = self.id_token or self.signed(asked)
        return 200, answer

    def signed(self, asked: dict[str, str]) -> str:
        now = int(time())
        claims = {
            "iss": self.url,
            "aud": asked["client_id"],
            "iat": now,
            "exp": now + 60,
            "nonce": asked.get("nonce"),
            **self.person,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        headers = {"kid": self.kid} if self.kid else None
        return jwt.encode(claims, self.signing_key, algorithm=self.algorithm, headers=headers)


@contextmanager
def running() -> Iterator[FakeProvider]:
    provider = FakeProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode()
            status, document = provider.answer(self.command, urlsplit(self.path).path, body, self.headers)
            raw = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)
