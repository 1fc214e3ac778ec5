"""For the tests of projects that use the suite: fixtures in `plugin`, assertions in `assertions`."""
