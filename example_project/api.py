"""The API of the whole project: every installed app that has a router, at its prefix."""

from svc_infra_django.api import create_api, mount_installed_apps

api = create_api(title="Orders", description="A small shop that shows what each app of the suite does.")
mount_installed_apps(api)
