# The front door. Every target sets up what it needs, from Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
# The SAM CLI pins another boto3 than the function ships, so it lives in an environment of its own.
SAM_VENV := $(VENV)/sam
BIN := $(VENV)/bin
WITH_SAM := PATH="$(CURDIR)/$(SAM_VENV)/bin:$$PATH" SAM_CLI_TELEMETRY=0
SAM := $(WITH_SAM) $(SAM_VENV)/bin/sam
SOURCES := src local operate verify bench tests requirements

.DEFAULT_GOAL := help

.PHONY: help
help: ## Shows this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/dev ## Uploads a layer, a layout, a docker save and a bundle through the function, on a local stack
	@$(BIN)/python -m local.demo

.PHONY: test
test: $(VENV)/dev $(SAM_VENV)/ready ## Runs all tests
	$(SMALL) $(BIN)/pytest $(PARALLEL)

.PHONY: test-quick
test-quick: $(VENV)/dev ## Runs the tests that need no server and little time
	$(SMALL) $(BIN)/pytest $(PARALLEL) -m "not slow" tests/unit tests/template

# The tests of a file run in one process, since they share fixtures that are slow to set up. Files start in order: those
# that take longest come first.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Lets glibc give back the memory of large blobs, or each process of the tests would keep three times what it needs.
SMALL := MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=1000000 MALLOC_TRIM_THRESHOLD_=1000000

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
bench: $(VENV)/dev $(SAM_VENV)/ready ## Measures, and writes bench/RESULTS.md: make bench BENCH="--rounds 1"
	@$(WITH_SAM) $(BIN)/python -m bench $(BENCH)

.PHONY: local
local: export PORT ?= 5000
local: $(VENV)/dev $(SAM_VENV)/ready ## Serves the local stack until Ctrl-C: make local PORT=5001
	@$(BIN)/python -m local.serve

.PHONY: event
event: export BUCKET ?= s3-to-ecr-local
event: export FORM ?= s3
event: ## Prints an event about an object: make event KEY=team/app/1.tar [BUCKET=…] [FORM=s3|sqs|eventbridge]
	$(check_python)
	@$(PYTHON) -m local.event

.PHONY: build
build: $(SAM_VENV)/ready ## Builds the function: make build ARCHITECTURE=x86_64
	@$(WITH_SAM) $(SAM_VENV)/bin/python -m operate.build

.PHONY: deploy
deploy: $(SAM_VENV)/ready ## Builds and deploys: make deploy PARAMETERS="RepositoryPrefix=mirror/" [STACK=…]
	@$(WITH_SAM) $(SAM_VENV)/bin/python -m operate.deploy

.PHONY: dead-letters
dead-letters: $(SAM_VENV)/ready ## Lists dead letters: make dead-letters [STACK=…] [KEY='team/*'] [REDRIVE=1] [DELETE=1]
	@$(SAM_VENV)/bin/python -m operate.dead_letters

.PHONY: verify
verify: $(SAM_VENV)/ready ## Proves a deployed stack on AWS: make verify [STACK=…] [VERIFY="--probe"]
	@$(SAM_VENV)/bin/python -m verify $(VERIFY)

.PHONY: wait
wait: $(SAM_VENV)/ready ## Waits until an object is mirrored, fails if it is rejected: make wait KEY=… [STACK=…] [TIMEOUT=…]
	@$(SAM_VENV)/bin/python -m operate.wait

.PHONY: publish
publish: artifacts build ## Publishes to the Serverless Application Repository: make publish ARTIFACTS=my-bucket
	$(SAM) package --s3-bucket $(ARTIFACTS) --output-template-file .aws-sam/packaged.yaml
	$(SAM) publish --template .aws-sam/packaged.yaml

.PHONY: artifacts
artifacts:
	@test -n "$(ARTIFACTS)" || { \
	  echo "ARTIFACTS is missing: name the bucket for the build, as in make publish ARTIFACTS=my-bucket" >&2; \
	  echo "docs/deploying.md#publishing has the policy that this bucket needs." >&2; exit 1; }

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

# venv writes bin/pip last. A folder without it is half an environment, which --clear makes anew.
$(BIN)/pip:
	$(check_python)
	$(call environment,$(PYTHON),$(VENV))

$(SAM_VENV)/bin/pip: | $(BIN)/pip
	$(call environment,$(BIN)/python,$(SAM_VENV))

$(VENV)/dev: requirements/dev.txt | $(BIN)/pip
	$(call install,a minute)

$(SAM_VENV)/ready: requirements/sam.txt | $(SAM_VENV)/bin/pip
	$(call install,half a minute)

define check_python
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. $(PYTHON_NEEDED)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is too old, or does not run. $(PYTHON_NEEDED)" >&2; exit 1; }
endef
PYTHON_NEEDED = s3-to-ecr needs Python 3.11 or later. Name the one to use: make PYTHON=python3.13 $(MAKECMDGOALS)

# $(call environment,PYTHON,FOLDER). Without python3-venv Debian's venv fails halfway, and leaves a Python without pip.
define environment
	@$(1) -m venv --clear $(2) || { rm -rf $(2); \
	  echo "The virtual environment $(2) could not be made. Python's message is above." >&2; \
	  echo "On Debian and Ubuntu the package python3-venv is probably missing: apt install python3-venv" >&2; exit 1; }
endef

# $(call install,DURATION) installs a lock, and leaves a stamp. Where the stamp is missing, an earlier run may have
# stopped within a package that counts as complete, so every package is installed again. uv takes seconds where pip takes
# minutes. It compiles nothing. Where Python may not write bytecode, each start would compile all that is imported, so
# there uv does it. Only pip reads pip's own settings, such as a private index, so pip does it where uv fails.
define install
	@echo "Installing $< into $(@D). The first time this takes about $(1)." >&2
	@rm -f $@
	@test -x $(BIN)/uv || sed -n '/^uv==/,/[^\\]$$/p' requirements/dev.txt | $(VENV)/$(PIP_INSTALL) /dev/stdin || true
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes --no-deps \
	  $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) $(if $(wildcard $@),,--reinstall) -r $< 2>$(VENV)/uv.log || { \
	  echo "uv could not install it, as $(VENV)/uv.log says, so pip does. This takes longer." >&2; \
	  $(@D)/$(PIP_INSTALL) $< $(if $(wildcard $@),,--force-reinstall); } || { \
	  echo "$< could not be installed. pip's message is above. Run make again once it is solved." >&2; exit 1; }
	@touch $@
endef
PIP_INSTALL := bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r
