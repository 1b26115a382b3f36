# make demo: install into .venv and run the whole path on the packaged model.
# make test: everything that must pass before a change lands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test lint types layers tests docs clean

demo: $(VENV)/.installed
	$(BIN)/pellucid demo

test: lint types layers tests

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developer
	$(BIN)/mypy

layers: $(VENV)/.developer
	$(BIN)/lint-imports

# One computing thread a worker: two workers of one thread beat one of two, and results are exact.
tests: $(VENV)/.developer $(VENV)/.browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

# The help texts in docs/cli.md, the tables of baselines.
docs: $(VENV)/.developer
	$(BIN)/python docs/cli_reference.py
	$(BIN)/python docs/baselines_table.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# The tests of the offline page need a browser.
$(VENV)/.browser: $(VENV)/.developer
	command -v chromium || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q chromium; }
	touch $@

SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

clean:
	rm -rf $(VENV) demo-out
