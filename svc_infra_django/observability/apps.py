from ..app_config import SvcAppConfig


class ObservabilityConfig(SvcAppConfig):
    name = "svc_infra_django.observability"
    verbose_name = "Observability"
    settings_section = ".conf.ObservabilitySettings"
    health_checks = (".health.DatabaseCheck", ".health.MigrationsCheck", ".health.CacheCheck")
