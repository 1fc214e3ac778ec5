"""django-allauth's own OpenID provider as a program: `python identity_provider.py PORT`.

Prints a line once it is up.

One user, jane, is logged in by `GET /as/jane`. The database is in memory, the key is made at the start.
"""

from __future__ import annotations

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings

PORT = int(sys.argv[1])
CALLBACK = "https://api.example.com/api/oauth/callback"

settings.configure(
    SECRET_KEY="an identity provider of the tests, and nothing else",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "allauth",
        "allauth.account",
        "allauth.idp.oidc",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    IDP_OIDC_PRIVATE_KEY=rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode(),
)
django.setup()

from allauth.account.models import EmailAddress  # noqa: E402  # Django is set up
from allauth.idp.oidc.models import Client  # noqa: E402
from django.contrib.auth import login  # noqa: E402
from django.contrib.auth.hashers import make_password  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402


def become_jane(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get(username="jane"), backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(status=204)


urlpatterns = [
    path("as/jane", become_jane),
    path("accounts/", include("allauth.account.urls")),
    path("", include("allauth.idp.urls")),
]


class Silent(WSGIRequestHandler):
    def log_message(self, *args: object) -> None: ...


def main() -> None:
    call_command("migrate", verbosity=0)
    jane = User.objects.create_user("jane", "jane@example.com", first_name="Jane")
    EmailAddress.objects.create(user=jane, email="jane@example.com", primary=True, verified=True)
    shop = Client(id="shop", name="Shop", secret=make_password("shop-secret"), skip_consent=True)
    shop.scopes = "openid\nprofile\nemail"
    shop.redirect_uris = CALLBACK
    shop.save()
    with make_server("127.0.0.1", PORT, get_wsgi_application(), handler_class=Silent) as server:
        print("up", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
