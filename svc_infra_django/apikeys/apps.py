from ..app_config import SvcAppConfig


class ApikeysConfig(SvcAppConfig):
    name = "svc_infra_django.apikeys"
    verbose_name = "API keys"
    api_prefix = "api-keys"
    settings_section = ".conf.ApikeysSettings"
    authenticators = (".authentication.ApiKeyHeader",)
