from ..app_config import SvcAppConfig


class ApiConfig(SvcAppConfig):
    name = "svc_infra_django.api"
    verbose_name = "API"
    settings_section = ".conf.ApiSettings"
