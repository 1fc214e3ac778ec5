"""What a worker discovers."""

from tests.jobs.work import *  # noqa: F403 - all the tasks of the tests
