from ..app_config import SvcAppConfig


class JobsConfig(SvcAppConfig):
    name = "svc_infra_django.jobs"
    verbose_name = "Jobs"
    settings_section = ".conf.JobsSettings"
    api_prefix = "jobs"
