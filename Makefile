# Two commands do everything on a fresh machine with python3 >= 3.11:
#   make demo    install, run the main job on synthetic clips, show what it made
#   make test    install, run the tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# `make parity` compares with TensorFlow too, whose last release that the originals run on needs an
# environment of its own, and Python 3.11.
PYTHON_PARITY ?= python3.11
VENV_PARITY   := .venv-parity
STAMP_PARITY  := $(VENV_PARITY)/.installed
RECORD        := build/parity.jsonl

.PHONY: install demo test test-all parity lint format bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "avfeat needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -e $@ || echo "installing into $(VENV): about 3 GB to download, 7 GB on disk, silent for minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: install
	$(BIN)/avfeat demo

test: install
	$(BIN)/python -m pytest

test-all: install
	$(BIN)/python -m pytest -m 'not parity'

# All networks against all their oracles; the numbers go into docs/parity.md.
parity: install $(STAMP_PARITY)
	mkdir -p $(dir $(RECORD)) && rm -f $(RECORD)
	AVFEAT_PARITY_PYTHON=$(VENV_PARITY)/bin/python AVFEAT_PARITY_RECORD=$(RECORD) \
	  $(BIN)/python -m pytest -m '' tests/extract/backbones/test_parity.py \
	  tests/extract/backbones/test_parity_inputs.py tests/extract/backbones/test_parity_flow.py \
	  tests/extract/backbones/test_published_layouts.py \
	  tests/extract/backbones/test_parity_engines.py
	PYTHONPATH=. $(BIN)/python tests/parity/table.py $(RECORD) docs/parity.md

$(STAMP_PARITY): tests/parity/requirements.txt
	@$(PYTHON_PARITY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "make parity needs Python 3.11; set PYTHON_PARITY=/path/to/python3.11"; exit 1; }
	$(PYTHON_PARITY) -m venv --clear $(VENV_PARITY)
	$(VENV_PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  -r tests/parity/requirements.txt
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(VENV_PARITY) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
