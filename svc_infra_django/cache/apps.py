from ..app_config import SvcAppConfig


class CacheConfig(SvcAppConfig):
    name = "svc_infra_django.cache"
    verbose_name = "Cache"
    settings_section = ".conf.CacheSettings"
