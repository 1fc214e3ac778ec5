from ..app_config import SvcAppConfig


class ConfigConfig(SvcAppConfig):
    name = "svc_infra_django.config"
    verbose_name = "Configuration"
