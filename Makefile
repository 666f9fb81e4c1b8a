# The front door. Every target sets up what it needs, from Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
# The SAM CLI pins another boto3 than the function ships, so it lives in an environment of its own.
SAM_VENV := $(VENV)/sam
BIN := $(VENV)/bin
SAM := PATH="$(CURDIR)/$(SAM_VENV)/bin:$$PATH" SAM_CLI_TELEMETRY=0 $(SAM_VENV)/bin/sam
ARCHITECTURE ?= arm64
PORT ?= 5000
OVERRIDES = --parameter-overrides Architecture=$(ARCHITECTURE) $(PARAMETERS)
SOURCES := src local bench tests requirements

.DEFAULT_GOAL := help

.PHONY: help
help: ## Shows this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/dev ## Uploads a layer, an OCI layout and a docker save through the function, on a local stack
	@$(BIN)/python -m local.demo

.PHONY: test
test: $(VENV)/dev $(SAM_VENV)/ready ## Runs all tests
	$(BIN)/pytest $(PARALLEL)

.PHONY: test-quick
test-quick: $(VENV)/dev ## Runs the tests that need no server and little time
	$(BIN)/pytest $(PARALLEL) -m "not slow" tests/unit tests/template

# Tests of one `xdist_group` run in one process, since they share a fixture that is slow to set up.
PARALLEL := --numprocesses 2 --dist loadgroup

.PHONY: check
check: $(VENV)/dev $(SAM_VENV)/ready ## Lints, types, validates the template, audits the dependencies
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(SAM) validate --lint
	$(BIN)/cfn-lint --append-rules cfn_lint_serverless.rules --template template.yaml
	$(BIN)/python requirements/audit.py

.PHONY: format
format: $(VENV)/dev ## Formats the code and mends what the linter can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: bench
bench: $(VENV)/dev ## Measures, and writes bench/RESULTS.md: make bench BENCH="--rounds 1"
	@$(BIN)/python -m bench $(BENCH)

.PHONY: local
local: $(VENV)/dev $(SAM_VENV)/ready ## Serves the local stack until Ctrl-C: make local PORT=5001
	@PORT=$(PORT) $(BIN)/python -m local.serve

.PHONY: event
event: export BUCKET ?= s3-to-ecr-local
event: export FORM ?= s3
event: ## Prints an event about an object: make event KEY=team/app/1.tar [BUCKET=…] [FORM=s3|sqs|eventbridge]
	@$(PYTHON) -m local.event

.PHONY: build
build: $(SAM_VENV)/ready ## Builds the function: make build ARCHITECTURE=x86_64
	$(SAM) build $(OVERRIDES)

.PHONY: deploy
deploy: build ## Builds and deploys: make deploy PARAMETERS="CreateRepositories=true"
	$(SAM) deploy $(OVERRIDES)

.PHONY: publish
publish: build ## Publishes to the Serverless Application Repository: make publish ARTIFACTS=my-bucket
	$(SAM) package --s3-bucket $(ARTIFACTS) --output-template-file .aws-sam/packaged.yaml
	$(SAM) publish --template .aws-sam/packaged.yaml

.PHONY: release-notes
release-notes: ## Prints what the CHANGELOG says of this version
	@awk -v version="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	  '/^## / { wanted = index($$0, "[" version "]"); next } wanted' CHANGELOG.md

.PHONY: lock
lock: $(VENV)/dev ## Pins the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile $(LOCK_FLAGS) --upgrade --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile $(LOCK_FLAGS) --upgrade --group sam -o requirements/sam.txt
	$(BIN)/uv pip compile $(LOCK_FLAGS) -c requirements/dev.txt pyproject.toml -o src/requirements.txt
LOCK_FLAGS = --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock"

.PHONY: clean
clean: ## Removes what the other targets made
	rm -rf $(VENV) .aws-sam .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "s3-to-ecr needs Python 3.11 or later, and $(PYTHON) is older: make PYTHON=python3.13 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/dev: requirements/dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

$(SAM_VENV)/ready: requirements/sam.txt | $(BIN)/python
	$(BIN)/python -m venv $(SAM_VENV)
	$(SAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
