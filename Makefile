# Entry points for people and for continuous integration. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# The stamp's name holds the path: a virtual environment that was copied along with its checkout still runs the code
# of the original, so that the copy has to make its own.
STAMP := $(VENV)/installed-$(shell pwd -P | cksum | cut -d' ' -f1)

# PyTorch is large, and only tests, types and `compile_module` need it.
TORCH_STAMP := $(STAMP)-torch

# pyright's wrapper otherwise asks the network for a newer version of itself each time and tells about it.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

define INSTALL_HINT
  echo "       Debian, Ubuntu: apt install python3-venv libpython3-dev g++ make" >&2; \
  echo "       Fedora:         dnf install python3-libs gcc-c++ make" >&2; exit 1
endef

.PHONY: help demo test fpga quantization lint format venv lock clean distclean tools

SEEDS ?= 4
MODELS ?= $(or $(LOOMWORK_MODELS),../shared/models)
DATA ?= $(or $(LOOMWORK_DATA),../shared/data)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## from a trained network to checked RTL, on an embedded example
	@$(BIN)/loomwork demo

test: lint ## lint, type check and the whole test suite; PYTEST_ARGS="-k expression" narrows it
	@$(BIN)/cocotb-config --libpython >/dev/null 2>&1 || { \
	  echo "error: Python's shared library was not found; cocotb loads it into the simulator." >&2; \
	  $(INSTALL_HINT); }
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

fpga: $(STAMP) ## the bitstream of each board, and docs/fpga.md; hours, SEEDS=1 is quicker
	$(BIN)/loomwork build icebreaker --seeds $(SEEDS) --allow-slow --markdown docs/fpga.md
	$(BIN)/loomwork build tang-nano-20k --seeds $(SEEDS) --allow-slow --markdown docs/fpga.md
	$(BIN)/loomwork build ulx3s-85f --seeds $(SEEDS) --allow-slow --markdown docs/fpga.md

quantization: $(STAMP) ## docs/quantization.md, measured on the networks of MODELS with the inputs of DATA
	$(BIN)/python -m loomwork.cli.quantization_page $(MODELS) $(DATA) docs/quantization.md

lint: $(TORCH_STAMP) ## ruff and pyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --project pyproject.toml

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

venv: $(TORCH_STAMP) ## the virtual environment .venv with everything in it; done once

$(STAMP): requirements.lock pyproject.toml | tools
	@if [ ! -e $@ ]; then \
	  echo "Making $(VENV)"; \
	  if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	    $(PYTHON) -m venv --clear $(VENV); \
	  elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	    $(PYTHON) -m venv --clear --without-pip $(VENV); \
	    $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; \
	  else \
	    echo "error: this Python can make no virtual environment with pip in it." >&2; \
	    $(INSTALL_HINT); \
	  fi; \
	fi
	@echo "Installing the packages of requirements.lock (the first time about 400 MB)"
	@$(BIN)/python -m pip install --requirement requirements.lock \
	  | awk '/^ *Downloading/ && !/\.metadata/ { print "  " $$2 " " $$3 $$4; fflush() }'
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check --quiet
	@touch $@

$(TORCH_STAMP): requirements-torch.lock $(STAMP)
	@echo "Installing PyTorch and what goes with it (requirements-torch.lock)"
	@$(BIN)/python -m pip install --requirement requirements-torch.lock \
	  | awk '/^ *Downloading/ && !/\.metadata/ { print "  " $$2 " " $$3 $$4; fflush() }'
	@$(BIN)/python -m pip check --quiet
	@touch $@

tools:
	@for tool in $(PYTHON) g++; do command -v $$tool >/dev/null || { \
	  echo "error: $$tool was not found." >&2; $(INSTALL_HINT); }; done
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$($(PYTHON) --version) is too old: 3.11 or newer is needed." >&2; \
	  echo "       Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@[ "$$(uname -sm)" = "Linux x86_64" ] || { \
	  echo "error: tflite-micro, the reference for exactness, is published for Linux x86_64 only," >&2; \
	  echo "       not for $$(uname -sm)." >&2; exit 1; }

lock: | tools ## renew both lock files from pyproject.toml, with the newest versions it allows
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PYTHON) -m venv "$$scratch"; \
	"$$scratch/bin/python" -m pip install --quiet 'hatchling>=1.27,<2'; \
	"$$scratch/bin/python" -m pip install --quiet --no-build-isolation '.[dev]'; \
	{ echo "# Exact version of everything \`make venv\` installs. Renewed by \`make lock\`."; \
	  "$$scratch/bin/python" -m pip freeze | grep -v '^loomwork'; } > requirements.lock; \
	"$$scratch/bin/python" -m pip install --quiet --no-build-isolation --constraint requirements.lock '.[torch]'; \
	{ echo "# What \`make test\` adds: PyTorch and its friends. Renewed by \`make lock\`."; \
	  "$$scratch/bin/python" -m pip freeze | grep -v '^loomwork' | grep -vxFf requirements.lock | sed 's|+cpu||'; } > requirements-torch.lock

clean: ## remove what was built and the tools' caches
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the virtual environment
	rm -rf $(VENV)
