from ..app_config import SvcAppConfig


class WebhooksConfig(SvcAppConfig):
    name = "svc_infra_django.webhooks"
