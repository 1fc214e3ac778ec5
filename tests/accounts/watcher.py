"""A process that checks one access token over and over: `python -m tests.accounts.watcher JSON`.

Prints "good" when it was good for the first time, and the time of the last moment that it was.
"""

from __future__ import annotations

import json
import os
import sys
import time

import django
from django.conf import settings


def main(told: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    order = json.loads(told)
    settings.DATABASES["default"]["NAME"] = order["database"]
    settings.SVC_INFRA = {"accounts": order["accounts"]}
    settings.CACHES = order["caches"]
    django.setup()
    from django.utils import timezone

    from svc_infra_django.accounts.errors import InvalidAccessToken
    from svc_infra_django.accounts.services.checking_tokens import check_access_token

    good_at = 0.0
    while True:
        moment = time.time()
        try:
            check_access_token(order["token"], now=timezone.now())
        except InvalidAccessToken:
            break
        if not good_at:
            print("good", flush=True)
        good_at = moment
        time.sleep(0.01)
    print(good_at, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
