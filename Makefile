# What one types. Needs Python >= 3.11 and make; uses uv when it is on the PATH, pip otherwise.
#   make PYTHON=python3.13 VENV=.venv-3.13 test     another Python, in an environment of its own
#   make demo ARGS="--for 60s --json"               arguments for the command behind the target

VENV ?= .venv
PYTHON ?=
ARGS ?=
# Number of test processes; empty: one after the other. Most tests wait for something, so more than the cores have.
JOBS ?= 4

BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := supervisor worker tests
PYTEST := $(BIN)/python -m pytest $(if $(JOBS),-n $(JOBS) --dist loadfile)
COMPILE := $(BIN)/python -m uv pip compile --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet
BUILD_REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test lint types unit bench sim drill compose-test docs docs-check lock clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make the environment in .venv from the hashed lock (instant afterwards)

$(READY): requirements/dev.txt pyproject.toml
	@set -eu; \
	if [ ! -x $(BIN)/python ]; then \
	  python=; \
	  for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      python=$$candidate; break; \
	    fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "livekit-supervisor needs Python 3.11 or newer$(if $(PYTHON), and PYTHON=$(PYTHON) is none)." \
	      "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	    exit 1; \
	  fi; \
	  echo "setup: $(VENV) with $$("$$python" --version)"; \
	  if command -v uv >/dev/null 2>&1; then \
	    uv venv --quiet --python "$$("$$python" -c 'import sys; print(sys.executable)')" $(VENV); \
	  else \
	    "$$python" -m venv $(VENV) || { \
	      echo "$$python cannot make an environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	      exit 1; \
	    }; \
	  fi; \
	fi; \
	if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt; \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null; \
	  pip="$(BIN)/python -m pip --disable-pip-version-check install --quiet"; \
	  $$pip --require-hashes -r requirements/dev.txt; \
	  $$pip --no-deps --no-build-isolation -e .; \
	fi; \
	touch $@

demo: setup ## run everything on this machine: Redis, stand-ins, supervisor, 2 workers, 8 callers (no keys, no Docker)
	@$(BIN)/supervisor demo $(ARGS)

test: setup lint types ## lint, types and all tests
	$(PYTEST) $(ARGS)

lint: setup ## ruff and the import contracts
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	PYTHONPATH=. $(BIN)/lint-imports --no-logo

types: setup ## pyright, strict
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: setup ## the quick tests alone
	$(PYTEST) tests/unit tests/contract $(ARGS)

bench: setup ## measure: guard, first chunk, fan-out, folding, words of what is cut off, each beside its floor or peer
	$(BIN)/python -m tests.benchmarks $(ARGS)

sim: setup ## put simulated fleets through every fault on virtual time; ARGS=--write keeps the table in docs/engine.md
	$(BIN)/python -m tests.simulation $(ARGS)

drill: setup ## an outage under load, three variants side by side, e.g. ARGS="--scenario hang --sessions 40"
	@$(BIN)/supervisor drill $(ARGS)

compose-test: setup ## build and start the containers and put them through outages; needs Docker, no keys (ARGS=--keep)
	$(BIN)/python -m tests.compose $(ARGS)

docs: setup ## write the generated parts of the docs anew
	$(BIN)/python -m tests.support.docs

docs-check: setup ## generated parts of the docs, links and commands are true
	$(PYTEST) -q tests/contract -k docs

lock: setup ## write requirements/*.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)
	$(COMPILE) $(ARGS) --extra supervisor --extra otel -o requirements/supervisor.txt pyproject.toml
	$(COMPILE) $(ARGS) --extra worker --extra otel -o requirements/worker.txt pyproject.toml
	$(COMPILE) $(ARGS) --extra dev -o requirements/dev.txt pyproject.toml
	$(BIN)/python -c '$(BUILD_REQUIRES)' | $(COMPILE) $(ARGS) -o requirements/build.txt -

clean: ## remove what make made: the environment and the caches
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
