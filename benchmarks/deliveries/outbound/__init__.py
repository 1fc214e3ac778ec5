"""The best sender on PyPI that installs: django-outbound-webhooks, one relay process per worker."""
