from ..app_config import SvcAppConfig


class ApikeysConfig(SvcAppConfig):
    name = "svc_infra_django.apikeys"
