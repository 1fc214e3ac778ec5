from ..app_config import SvcAppConfig


class JobsConfig(SvcAppConfig):
    name = "svc_infra_django.jobs"
