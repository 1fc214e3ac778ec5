from ..app_config import SvcAppConfig


class RbacConfig(SvcAppConfig):
    name = "svc_infra_django.rbac"
    verbose_name = "Roles"
    api_prefix = "rbac"
    settings_section = ".conf.RbacSettings"
