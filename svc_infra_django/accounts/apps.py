from ..app_config import SvcAppConfig


class AccountsConfig(SvcAppConfig):
    name = "svc_infra_django.accounts"
    verbose_name = "Logins"
    settings_section = ".conf.AccountsSettings"
    api_prefix = "auth/"
    authenticators = (".authentication.BearerToken",)
