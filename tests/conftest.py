"""Fixtures for all tests."""

pytest_plugins = [
    "tests.real_programs",
    "tests.databases",
    "tests.pools",
    "tests.registries",
    "tests.liars",
    "tests.servers",
]
