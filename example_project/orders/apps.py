from svc_infra_django.app_config import SvcAppConfig


class OrdersConfig(SvcAppConfig):
    name = "example_project.orders"
    label = "orders"
    api_prefix = "orders"
