# `make demo` and `make test` work on a bare clone with python3 and make; both set up .venv once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_OUT ?= demo-out

.PHONY: demo test test-fast lint clean

demo: $(READY)
	$(BIN)/img2tokens demo $(DEMO_OUT)

test: lint
	$(BIN)/python -m pytest -n 2

test-fast: lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

# torch first and alone: the other packages would otherwise choose a build for it.
$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_OUT) build *.egg-info
