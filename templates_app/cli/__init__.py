"""The `coppice` command. It speaks HTTP only: no Django, no database, no pool."""

#: What `coppice --version` says; pyproject.toml says the same (a test compares).
VERSION = "0.1.0"
