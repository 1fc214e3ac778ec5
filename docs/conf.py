"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from svc_infra_django import __version__

project = "svc_infra_django"
author = "the svc_infra_django authors"
release = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = f"svc_infra_django {release}"
html_show_sphinx = False
# The pages are read offline as well: no font, script or icon comes from another host.
html_static_path: list[str] = []
