from ..app_config import SvcAppConfig


class AccountsConfig(SvcAppConfig):
    name = "svc_infra_django.accounts"
