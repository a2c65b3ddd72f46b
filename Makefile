# `make demo` and `make test` need Python 3.11 or newer and make; they install all else into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Whoever starts Python anew keeps its byte code: some systems say otherwise, and then each process compiles all anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check bench faults lock clean
.DEFAULT_GOAL := help

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/demo: requirements-embedded.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Visavis needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing what Visavis needs into $(VENV). This happens once and takes a minute."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/demo
	@echo "Installing what the tests need into $(VENV)."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

demo: $(VENV)/demo ## Start everything on this machine with sample people (ARGS="--web-port 8080")
	@$(BIN)/python visavis.py demo $(ARGS)

test: $(VENV)/dev ## Run all tests on real parts (ARGS="-k booking")
	@$(BIN)/python -m tests.install
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: $(VENV)/dev ## Lint, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

$(VENV)/bench: benchmarks/requirements.txt $(VENV)/dev
	@echo "Installing what the benchmarks compare with into $(VENV)."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

bench: $(VENV)/bench ## Print the ratios of docs/performance.md
	$(BIN)/python -m benchmarks $(ARGS)

faults: $(VENV)/dev ## The long fault and race programmes, with the figures the issues name
	@VISAVIS_LONG=1 $(BIN)/python -m tests.install
	VISAVIS_LONG=1 $(BIN)/python -m pytest -m faults $(ARGS)

lock: ## Pin anew what pyproject.toml asks for, with hashes
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet uv; }
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links -c requirements.txt --extra embedded pyproject.toml -o requirements-embedded.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links -c requirements-embedded.txt --extra embedded --extra dev pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links -c requirements-dev.txt benchmarks/requirements.in -o benchmarks/requirements.txt

clean: ## Remove what was installed and the demo's state
	rm -rf $(VENV) var
