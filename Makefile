# `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
RECBOLE := .venv-recbole
RUN_DATE ?=
# The first Python that runs and fits; a name on the PATH alone proves nothing.
FIND_PYTHON = for python in python3 python3.12 python3.13 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && break; \
	python=; done; \
	[ -n "$$python" ] || { echo "Python 3.11, 3.12 or 3.13 was not found: install one, for example with 'apt-get install python3'" >&2; exit 1; }

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: run
run: check $(VENV)/.run data ## Run the whole night on MovieLens-100K in local mode (RUN_DATE=2026-11-23 for another night)
	@$(BIN)/recsys-spark run --settings conf/demo.toml $(if $(RUN_DATE),--run-date $(RUN_DATE))

.PHONY: test
test: check $(VENV)/.dev ## Run the tests, but for slow ones
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

.PHONY: slow-test
slow-test: check $(VENV)/.dev ## Run the slow ones: nights with other settings, killed processes, long trainings and exports
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m slow

.PHONY: soak
soak: check $(VENV)/.dev ## Publish fifty runs to each store while readers poll
	@RECSYS_SPARK_SOAK=50 $(BIN)/python -m pytest tests/sinks/test_polling.py

.PHONY: cluster-test
cluster-test: check $(VENV)/.dev data package ## Run the night on a standalone cluster of two workers and compare it with local mode
	@$(BIN)/python -m tests.cluster.compare

.PHONY: lint
lint: $(VENV)/.dev ## Check style, layers and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: types
types: $(VENV)/.dev ## Check types
	@$(BIN)/mypy

.PHONY: bench
bench: check $(VENV)/.bench ## Measure against other libraries, in some minutes; SIZE=full for the larger cases
	@$(BIN)/python -m benchmarks $(if $(SIZE),--size $(SIZE))

.PHONY: bench-quality
bench-quality: check $(VENV)/.bench data ## Measure how well models rank beside other libraries', tuned alike; SIZE=full for all data sets
	@[ -e $(RECBOLE)/.made ] || echo "Without RecBole: 'make bench-recbole' makes the environment it needs" >&2
	@$(BIN)/python -m benchmarks.peer_quality $(if $(SIZE),--size $(SIZE))
	@$(BIN)/python -m benchmarks.content_quality $(if $(SIZE),--size $(SIZE))
	@$(BIN)/python -m benchmarks.hybrid_quality $(if $(SIZE),--size $(SIZE))
	@$(BIN)/python -m benchmarks.quality_report

.PHONY: bench-recbole
bench-recbole: $(RECBOLE)/.made ## Make .venv-recbole with RecBole, RecTools and ranx, for benchmarks and tests of metrics

.PHONY: format
format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

.PHONY: docs
docs: $(VENV)/.dev ## Write docs/tables.md and docs/settings.md anew
	@$(BIN)/python docs/generate.py

.PHONY: package
package: $(VENV)/.dev ## Build the wheel and the executors' archive into dist/
	@$(BIN)/python examples/package_executors.py

.PHONY: setup
setup: check $(VENV)/.dev ## Make .venv with everything, for development
	@echo "$(VENV) is ready"

.PHONY: lock
lock: $(VENV)/.dev ## Resolve the locked dependencies anew
	@set -- --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --upgrade --quiet; \
	$(BIN)/uv pip compile pyproject.toml --extra driver --extra stores --extra iceberg --group dev "$$@" -o requirements/dev.txt; \
	$(BIN)/uv pip compile pyproject.toml --extra driver --extra stores --group build -c requirements/dev.txt "$$@" -o requirements/run.txt; \
	$(BIN)/uv pip compile pyproject.toml --extra driver --group bench -c requirements/dev.txt "$$@" -o requirements/bench.txt; \
	$(BIN)/uv pip compile pyproject.toml --extra stores -c requirements/dev.txt --no-emit-package pyspark --no-emit-package py4j \
		"$$@" -o requirements/executor.txt

.PHONY: clean
clean: ## Remove the environment, caches and all of var/, with the runs published there
	@rm -rf $(VENV) $(RECBOLE) var dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Java is looked for before anything is installed or started.
.PHONY: check
check:
	@$(FIND_PYTHON); $$python recsys_spark/java.py

.PHONY: data
data: $(VENV)/.run-or-dev
	@$(BIN)/python examples/fetch_movielens.py

.PHONY: $(VENV)/.run-or-dev
$(VENV)/.run-or-dev:
	@[ -e $(VENV)/.dev ] || $(MAKE) -s --no-print-directory $(VENV)/.run

$(VENV)/.run: requirements/run.txt pyproject.toml
	@$(FIND_PYTHON); [ -x $(BIN)/python ] || $$python -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV), about 2 GB; this takes some minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml
	@$(FIND_PYTHON); [ -x $(BIN)/python ] || $$python -m venv $(VENV)
	@echo "Installing the locked development dependencies into $(VENV), about 2 GB; this takes some minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run

$(RECBOLE)/.made: benchmarks/peers/recbole.txt
	@for python in python3.11 python3; do \
		$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && break; python=; done; \
	[ -n "$$python" ] || { echo "RecBole needs Python 3.11, which was not found" >&2; exit 1; }; \
	[ -x $(RECBOLE)/bin/python ] || $$python -m venv $(RECBOLE)
	@echo "Installing RecBole and PyTorch into $(RECBOLE), about 2 GB."
	@$(RECBOLE)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@$(RECBOLE)/bin/python -W ignore -c 'import recbole.model.general_recommender'
	@touch $@

$(VENV)/.bench: requirements/bench.txt | $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@
