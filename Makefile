# make demo | test | check | fuzz | real | wheel-test: each sets up what it needs in .venv; nothing else is to be typed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
READY  := $(VENV)/.ready
# Where LPIPS has its weights: as the environment says, else in the folder of test data, if there is one.
export TOMOSTAIN_LPIPS ?= $(abspath $(wildcard $(or $(TOMOSTAIN_SHARED),../shared)/lpips))

.PHONY: demo test check fuzz format real wheel-test clean

# Torch is pinned in constraints.txt and named here, so that pip takes the CPU build that the constraint points at.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch -e ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/tomostain demo $(DEMO)

# One process a core, up to four, each with one thread of arithmetic; `make test JOBS=0` runs in one process.
JOBS   ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n > 4 ? 4 : n)))
test: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

# What a user gets: a wheel in an empty environment, without the packages of development.
wheel-test:
	PYTHON=$(PYTHON) .ci/wheel

fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(CASE)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

real: $(READY)
	$(BIN)/python tests/real/run_real.py real

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
