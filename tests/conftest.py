"""Fixtures for all tests."""

pytest_plugins = ["tests.databases", "tests.pools", "tests.registries", "tests.servers"]
