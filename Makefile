# Two commands for a newcomer: `make demo`, `make test`. `make help` lists the rest.
# Needs Python 3.11 or newer with venv, make and git; everything else goes into $(VENV).

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
# It would print 145 lines; errors are printed still.
PIP := -m pip --disable-pip-version-check --quiet
# Editable, so that a change to the code needs no new install; a change to these files does.
INSTALL_INPUTS := pyproject.toml constraints.txt proxygrad/version.py
GATEWAY := $(VENV)/gateway
YAML := docker-compose.yml deploy/gpu.yml

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test test-gateway soak reproduce chaos fuzz openapi typescript client check format lock zoo clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.run ## install, start everything, make one picture, stop everything
	@$(BIN)/proxygrad demo

serve: $(VENV)/.run ## keep the gateway, one worker and an embedded Valkey up until Ctrl-C
	@exec $(BIN)/proxygrad serve

test: $(VENV)/.dev ## all tests, against a real Valkey that they start
	$(BIN)/python -m pytest $(ARGS)

test-gateway: $(GATEWAY)/.installed ## the tests of gateway and queue where torch is not installed
	$(GATEWAY)/bin/python -c "import importlib.util as u, sys; sys.exit('torch is installed here' if u.find_spec('torch') else 0)"
	$(GATEWAY)/bin/python -m pytest -m "not engine and not soak" tests/service tests/workers tests/proxygrad/client $(ARGS)

soak: $(VENV)/.dev ## the long versions of tests: more faults, generated requests and interleavings
	$(BIN)/python -m pytest -m soak $(ARGS)

reproduce: $(VENV)/.dev ## measure the claims of the papers again: writes docs/reproduction.md (ARGS="--quick --check")
	$(BIN)/python -m benchmarks.reproduction $(ARGS)

chaos: $(VENV)/.dev ## kill, pause, upgrade, fill and damage what runs for under 10 minutes: nothing may be lost (SEED=3)
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) $(ARGS)

fuzz: $(VENV)/.dev ## send 10,000 generated requests to a running service: no 5xx, nothing against its schema (SEED=3)
	$(BIN)/python -m tests.fuzz --seed $(or $(SEED),1) $(ARGS)

openapi: $(VENV)/.dev ## write docs/openapi.json anew
	$(BIN)/python tools/openapi.py

typescript: $(VENV)/.dev tools/typescript/node_modules ## type-check a program against docs/openapi.json (needs npm)
	$(BIN)/python -m pytest tests/service/scenarios/test_typescript_types.py

tools/typescript/node_modules: tools/typescript/package.json tools/typescript/package-lock.json
	npm ci --prefix tools/typescript --no-audit --no-fund --silent
	@touch $@

client: $(VENV)/.dev ## generate the blocking client from the asynchronous one
	$(BIN)/python tools/unasync.py

check: $(VENV)/.dev ## format, lint, types, import contracts, Lua, Dockerfile and compose files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/unasync.py --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.lint_lua
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec $(YAML)

format: $(VENV)/.dev ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## write constraints.txt anew from what the ranges in pyproject.toml resolve to today
	@deploy/lock $(PYTHON)

zoo: $(VENV)/.run ## maximize a unit of every classification model of torchvision, with random weights
	$(BIN)/python benchmarks/zoo.py $(ARGS)

clean: ## remove the virtual environment and every cache; pictures and data stay
	rm -rf $(VENV) tools/typescript/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find proxygrad service workers tests -type d -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ProxyGrad needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
	       "Name another: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment (Debian and Ubuntu: install python3-venv)." >&2; \
	  rm -rf $(VENV); exit 1; }

# A stamp is the time of the last install; `dev` holds all of `run`, so the second adds to the first.
$(VENV)/.run: $(VENV)/bin/python $(INSTALL_INPUTS)
	@echo "Installing ProxyGrad and its worker into $(VENV) (the first time takes minutes: PyTorch is large)"
	@$(BIN)/python $(PIP) install --constraint constraints.txt --editable '.[service,worker]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python $(INSTALL_INPUTS)
	@echo "Installing ProxyGrad and its development tools into $(VENV) (the first time takes minutes: PyTorch is large)"
	@$(BIN)/python $(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.run

# A second environment, without torch, inside the first so that one folder holds all that is installed.
$(GATEWAY)/.installed: $(VENV)/bin/python $(INSTALL_INPUTS)
	@echo "Installing the gateway without torch into $(GATEWAY)"
	@$(VENV)/bin/python -m venv $(GATEWAY)
	@$(GATEWAY)/bin/python $(PIP) install --constraint constraints.txt --editable '.[service,test]'
	@touch $@
