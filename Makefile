# Two commands do everything: `make run` and `make test`. Both start from nothing and may be repeated.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that share the tests, of one thread each: most tests are too small for two threads.
TESTERS ?= 2
# `make test COVERAGE=1` also counts the lines that the tests go through, which makes them about a quarter slower.
COVERAGE ?=

# Results of the default environment lie in data, those of another in data/<env>; data/01_raw is nobody's result.
LAYERS := 02_intermediate 03_primary 04_feature 05_model_input 06_models 07_model_output 08_reporting
RESULTS := $(filter-out data/01_raw/%,$(wildcard $(foreach part,$(LAYERS) .run.lock .run.json,data/$(part) data/*/$(part))))

.PHONY: run test lint types unit viz mlflow bench docs parameters constraints clean help

run: $(VENV)/.installed  ## the main job on embedded images; says where the report is
	$(BIN)/kedro run
	@$(BIN)/python -m adv_detect.reporting.where

test: $(VENV)/.installed-test lint  ## lint, types and tests
	@$(MAKE) --no-print-directory -j2 types unit

lint: $(VENV)/.installed-test  ## format, lint, import contracts
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/lint-imports

types: $(VENV)/.installed-test  ## mypy
	$(BIN)/mypy

unit: $(VENV)/.installed-test  ## tests; COVERAGE=1 counts lines
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder \
		$(if $(COVERAGE),--cov --cov-report=term)

viz: $(VENV)/.installed  ## the pipelines as a picture, in a browser
	$(BIN)/kedro viz run

mlflow: export MLFLOW_DISABLE_TELEMETRY := true
mlflow: $(VENV)/.installed  ## runs, metrics and models, in a browser
	@$(BIN)/python -m adv_detect.tracking.relocation
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db

bench: $(VENV)/.installed-bench  ## benchmarks, an hour or more; ARGS="--only medoids" for some
	$(BIN)/python -m benchmarks $(ARGS)

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: $(VENV)/bin/uv pyproject.toml constraints.txt
	@echo "installing into $(VENV): 7 GB with PyTorch, some minutes without a word"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/bin/uv pyproject.toml constraints.txt
	@echo "installing into $(VENV): 7 GB with PyTorch and the tools of the tests, some minutes without a word"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(VENV)/bin/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[docs]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[bench]'
	@touch $@

# From files alone: nothing is fetched while it builds, nor by its pages.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.installed-docs  ## the documentation as a site: build/site/index.html
	$(BIN)/mkdocs build --quiet

parameters: $(VENV)/.installed  ## docs/parameters.md, after a change of parameters or of their comments
	$(BIN)/python -m adv_detect.params.reference

# Renews the tested set of versions after a change of pyproject.toml.
constraints: $(VENV)/bin/uv  ## the tested set of versions, after a change of pyproject.toml
	$(BIN)/uv pip compile --quiet --python $(BIN)/python --all-extras --no-header --no-annotate --upgrade pyproject.toml -o constraints.txt

clean:  ## take away environment, results and runs; raw data stay
	rm -rf $(VENV) $(RESULTS) mlflow.db mlflow.db.lock mlruns
	@if [ -d data ]; then find data -mindepth 1 -maxdepth 1 -type d -empty ! -name 01_raw -exec rmdir {} +; fi

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' Makefile | expand -t 14
