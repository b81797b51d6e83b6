# Everything a developer does, one word each: `make help`.
# Working files are in .venv and .local; nothing else of the machine is touched.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
STAMPS := .local/stamps
BIN := .venv/bin
JOBS ?= 2

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- setting up -------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMPS)/install $(STAMPS)/kafka $(STAMPS)/protos ## Fetch and build all that the other targets need (they call it)

$(STAMPS)/tools: deploy/local/check_tools.sh
	@PYTHON="$(PYTHON)" deploy/local/check_tools.sh
	@mkdir -p $(@D) && touch $@

$(STAMPS)/venv: | $(STAMPS)/tools
	@echo "setup: virtual environment in .venv"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@touch $@

$(STAMPS)/requirements: requirements-dev.txt $(STAMPS)/venv
	@echo "setup: Python packages (hashes checked)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

$(STAMPS)/install: pyproject.toml $(STAMPS)/requirements
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(STAMPS)/kafka: deploy/local/kafka/pom.xml | $(STAMPS)/tools
	@echo "setup: Apache Kafka's jars in .local/lib/kafka"
	@rm -rf .local/lib/kafka
	@mvn -q -B -Dstyle.color=never -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$(CURDIR)/.local/lib/kafka"
	@touch $@

.PHONY: protos
protos: $(STAMPS)/install ## Generate Python, type stubs and the descriptor set from protos/
	@$(BIN)/python -m recupera_local.protos
	@mkdir -p $(STAMPS) && touch $(STAMPS)/protos

$(STAMPS)/protos: $(shell find protos -name '*.proto') deploy/local/recupera_local/protos.py $(STAMPS)/install
	@echo "setup: code from the contracts in protos/gen"
	@$(BIN)/python -m recupera_local.protos
	@touch $@
