# As a module: an app config class in this namespace would be a second candidate for this app's own.
from django.contrib.admin import apps as admin_apps

from ..app_config import SvcAppConfig


class AccountsConfig(SvcAppConfig):
    name = "svc_infra_django.accounts"
    verbose_name = "Logins"
    settings_section = ".conf.AccountsSettings"
    api_prefix = "auth/"
    api_routers = {"oauth/": ".oauth"}
    authenticators = (".authentication.BearerToken", ".authentication.BrowserSession")


class SecondFactorAdmin(admin_apps.AdminConfig):
    """In INSTALLED_APPS in the place of "django.contrib.admin": the same admin, with a login in two steps."""

    default = False
    default_site = "svc_infra_django.accounts.sites.SecondFactorAdminSite"
