# Everything that one does with a checkout. Each target brings what it needs (deploy/setup.py).
.DEFAULT_GOAL := help
.PHONY: help setup demo run test check lint types fmt bench soak docs clean
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv/bin
# A ZFS of its own for the command, beside whatever the host has; see the file's description.
ZFS := deploy/private-zfs
# Management commands of the checks: no database or pool that somebody uses.
MANAGE := COPPICE_STATE_DIR="$(CURDIR)/var/check" $(VENV)/python manage.py

# An operator's settings are for `make run`. Tests and demo must never reach a real pool or database.
ifneq ($(MAKECMDGOALS),run)
unexport $(filter COPPICE_% DATABASE_URL DJANGO_%,$(.VARIABLES))
endif

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: ## Install all that demo and test need: .venv, pinned requirements, Debian packages
	@$(PYTHON) deploy/setup.py test

demo: ## The main job on real input: import, sign, launch, audit a template
	@$(PYTHON) deploy/setup.py run
	@$(VENV)/python -m deploy.demo

run: ## Serve what the demo left, or else a fresh development server (QUEUE=1: with a queue worker)
	@$(PYTHON) deploy/setup.py run
	@$(VENV)/python -m deploy.serve $(if $(QUEUE),--queue)

test: check ## Set-up, the checks, then all tests on the real programs; what CI runs
	@$(ZFS) $(VENV)/pytest -n 2 --dist worksteal

check: setup lint types ## All but the tests: lint, types, Django's checks, migrations
	@$(MANAGE) check --fail-level WARNING
	@$(MANAGE) makemigrations --check --dry-run

lint: setup
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/lint-imports --no-cache

types: setup
	@$(VENV)/mypy

fmt: setup ## Format the sources and mend what ruff can mend
	@$(VENV)/ruff check --fix-only .
	@$(VENV)/ruff format .

bench: setup ## Figures, each against a peer in the same run; also in var/bench/*.json
	@mkdir -p var/bench
	@set -e; for one in $(basename $(notdir $(wildcard bench/[a-z]*.py))); do \
		$(ZFS) $(VENV)/python -m bench.$$one; \
	done

soak: setup ## All kills at every step; then mixed load, odd bytes, odd layers, for SOAK_SECONDS (600) each
	@FAULTS=all $(ZFS) $(VENV)/pytest -n 2 tests/faults --deselect tests/faults/test_soak.py
	@head -1 var/faults/report.txt
	@SOAK_SECONDS=$${SOAK_SECONDS:-600} $(ZFS) $(VENV)/pytest -s tests/faults/test_soak.py
	@SOAK_SECONDS=$${SOAK_SECONDS:-600} $(VENV)/pytest tests/store/test_live_reader.py tests/native/test_fuzz.py tests/native/test_model_properties.py
	@SOAK_REPLACEMENTS=$${SOAK_REPLACEMENTS:-20} $(ZFS) $(VENV)/pytest tests/e2e/test_replace.py
	@SOAK_SECONDS=1 $(ZFS) $(VENV)/pytest tests/services tests/api/test_schemathesis.py tests/native/test_parity_of_images.py tests/native/test_hostile.py

docs: setup ## Write docs/reference/openapi.yaml anew, and hold the documentation to the code
	@$(MANAGE) spectacular --file docs/reference/openapi.yaml
	@$(VENV)/pytest --quiet tests/unit/test_rules.py

clean: ## Remove .venv, var/ and every cache
	rm -rf .venv var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
