from ..app_config import SvcAppConfig


class RbacConfig(SvcAppConfig):
    name = "svc_infra_django.rbac"
