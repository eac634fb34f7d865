# Every target sets up .venv by itself, `demo` without the tools of developers; nothing but Python 3.11 to 3.14 and make is needed.
.DEFAULT_GOAL := help
.PHONY: .venv bench chaos check conformance demo docs help test test-all test-changed test-long

PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	&& { echo $$python; break; }; done)
BIN := .venv/bin

# CONSTRAINTS=/dev/null takes the newest versions that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt

# Without bytecode every process that tests start would compile all of it again.
unexport PYTHONDONTWRITEBYTECODE

# One thread: the bits of CPU kernels depend on the number of threads, and workers share the cores.
export OMP_NUM_THREADS ?= 1

help:  ## Print this list
	@grep -E '^[.a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([.a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

.venv: .venv/.installed  ## Install framefleet and its tools into .venv
.venv/.installed: .venv/.framefleet
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

.venv/.framefleet: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.14 found; hint: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo 'installing into .venv; this takes a few minutes the first time' >&2
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[pages]'
	@touch $@

demo: .venv/.framefleet  ## Render the shipped table with two CPU workers and show where the clips are
	$(BIN)/framefleet demo

# By files, which share what they prepare, in two lanes: see tests/lanes.py. A process that crashes is not replaced:
# the one in its place would wait for ever for a file that was done already.
TESTS := $(BIN)/python -m pytest -q -rfEs -n 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
test: .venv/.installed  ## Run promises, quick tests, and the slow ones near to what changed; CI=1 runs more of these
	$(TESTS)

test-changed: .venv/.installed  ## Run the twenty files of tests that are nearest to what changed
	$(TESTS) --slow-s 60 60 $$($(BIN)/python -m tests.changed)

test-all: .venv/.installed  ## Run all tests but the long ones, and note in tests/durations.json what is slow
	CI=1 $(TESTS) --all

test-long: .venv/.installed  ## Run the long tests, which `make test-all` leaves out
	$(TESTS) -m long

conformance: .venv/.installed  ## Measure every class of diffusers that has a tiny pipeline, and write docs/reference/models.md
	$(BIN)/python -m tools.conformance

chaos: .venv/.installed  ## Kill, cut and fill what a job of 2,000 rows runs on; needs root, for network namespaces
	$(BIN)/python -m tools.chaos

check: .venv/.installed  ## Lint, formatting, types, who may import whom, and what texts name
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m tools.house

docs: .venv/.installed  ## Build the site of the documents into build/site
	$(BIN)/python -m mkdocs build --strict --quiet

bench: .venv/.installed  ## Compare with plain diffusers and Ray Data, in one run
	$(BIN)/python -m tools.benchmarks.bench
