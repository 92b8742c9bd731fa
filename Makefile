# make demo   install into .venv, measure the embedded model, open-able page in demo/report.html
# make test   install into .venv, lint, type check, all tests
# make docs   install into .venv, build the site of the documentation into site/; open site/index.html
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a CPU build of PyTorch, where the default one is not: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test docs clean

demo: $(VENV)/.ready
	$(BIN)/mnemoscope demo --out demo

test: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html  open it in a browser"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	    { echo "Mnemoscope needs Python 3.11 to 3.13; name one: make demo PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# PyTorch first and alone, so that nothing else decides which build is taken
$(VENV)/.ready: $(BIN)/python constraints.txt pyproject.toml
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) --editable .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) demo site build *.egg-info
