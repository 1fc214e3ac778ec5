from ..app_config import SvcAppConfig


class WebhooksConfig(SvcAppConfig):
    name = "svc_infra_django.webhooks"
    verbose_name = "Webhooks"
    settings_section = ".conf.WebhooksSettings"
    api_prefix = "webhooks"
    worker_services = (".delivery.DelivererService",)
