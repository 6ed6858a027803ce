# Targets that need .venv build it first, if it is missing or older than the two files that it depends on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/search/digit_sums.yaml
ARGS ?=
PROCESSES ?= 2
PACKAGES = --constraint constraints.txt --editable '.[dev]'
# With bytecode: without it each of the two processes, and each that a test starts, compiles all modules again.
PYTEST = PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install search test test-all test-gpu test-random lint docs ui demo-cluster clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(VENV)/.complete ## build .venv with the versions of constraints.txt (about 2 minutes, 7 GB)

# uv downloads many packages at once. If it cannot be installed, or cannot reach pip's index, pip does the same in about
# twice the time. Both compile bytecode now; otherwise, with PYTHONDONTWRITEBYTECODE set, every test process would.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	{ $(BIN)/python -m pip install --quiet --constraint constraints.txt uv \
	  && $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(PACKAGES); } \
	|| $(BIN)/python -m pip install --quiet $(PACKAGES)
	@touch $@

search: $(VENV)/.complete ## search hyperparameters, test once and report: make search CONFIG=configs/search/rosmap.yaml
	$(BIN)/m3col search $(CONFIG) $(ARGS)

test: $(VENV)/.complete ## the tests, in two processes, or more: make test PROCESSES=4
	$(PYTEST) -n $(PROCESSES) -m "not dear and not gpu" $(ARGS)

test-all: $(VENV)/.complete ## all tests, also the few that take too long for every change
	$(PYTEST) -n $(PROCESSES) -m "not gpu" $(ARGS)

test-gpu: $(VENV)/.complete ## the tests that need one GPU or two (about 8 minutes; skipped with a reason elsewhere)
	M3COL_TEST_GPU=1 CUDA_LAUNCH_BLOCKING=0 $(PYTEST) -rs -m gpu tests/gpu $(ARGS)

test-random: $(VENV)/.complete ## the tests in a random order: make test-random ARGS="--randomly-seed=7"
	$(PYTEST) --override-ini 'addopts=-q --strict-markers --durations=20' -n $(PROCESSES) -m "not dear and not gpu" $(ARGS)

lint: $(VENV)/.complete ## formatter, linter, type checker
	$(BIN)/ruff format --check m3col tune jobs tests benchmarks
	$(BIN)/ruff check m3col tune jobs tests benchmarks
	$(BIN)/mypy

docs: $(VENV)/.complete ## build the documentation into build/site, without a network; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo build/site/index.html

ui: $(VENV)/.complete ## browse the runs in MLflow
	$(BIN)/m3col ui $(ARGS)

demo-cluster: $(VENV)/.complete ## two Ray nodes on this machine run a search as a job; one node is killed half-way
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/demo_cluster.py $(ARGS)

clean: ## remove .venv and caches (runs/ stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
