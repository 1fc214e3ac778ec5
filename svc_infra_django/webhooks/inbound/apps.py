from ...app_config import SvcAppConfig


class InboundConfig(SvcAppConfig):
    name = "svc_infra_django.webhooks.inbound"
    label = "svc_inbound"
    verbose_name = "Inbound webhooks"
    settings_section = ".conf.InboundSettings"
    api_prefix = "inbound"
