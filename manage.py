#!/usr/bin/env python
"""Runs the example project, in the local environment unless SVC_ENVIRONMENT says otherwise."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("SVC_ENVIRONMENT", "local")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    execute_from_command_line(sys.argv)
