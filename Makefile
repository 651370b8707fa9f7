# make demo    diagnose and treat a sick model on real data; writes report.html
# make test    the tests, under ten minutes on two cores
# make check   style, types, architecture, documents, shapes, cures, browser, real input, wheel, the CUDA kernel interpreted
# make nightly everything, the slow tests included, on patients that the date draws
# make fmt     format the code
# make docs    write docs/rules and docs/measures.md from the docstrings
# make clean   remove what make made
#
# Every target sets up .venv first, and only when pyproject.toml or constraints.txt changed.
# PYTHON names the Python to build on: a torch that it has is used, never replaced.

PYTHON ?= python3
ROOT := $(patsubst %/,%,$(dir $(realpath $(lastword $(MAKEFILE_LIST)))))
ifeq ($(wildcard $(ROOT)/pyproject.toml),)
$(error the path of this checkout has a space in it, which make cannot handle; move it to a path without one)
endif
VENV ?= $(ROOT)/.venv
WORKERS ?= 2

BIN := $(VENV)/bin
DONE := $(VENV)/done
PIP := PIP_CONSTRAINT=$(VENV)/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install
PYTEST := cd $(ROOT) && OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
FAST := not slow and not cure and not real and not browser and not wheel and not triton and not shapes
# Where signatures state shapes.
SHAPED := tests/stats tests/probe tests/measures tests/theory tests/meta/test_shapes.py

.PHONY: demo test check nightly fmt docs clean style types doctest shapes cure real browser wheel triton
.NOTPARALLEL:

demo: $(DONE)/package
	cd $(ROOT) && $(BIN)/unitygain treat examples/post_ln_transformer.py:make_case --steps 30 --budget 6m --html report.html

test: $(DONE)/dev
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "$(FAST)"

check: style types doctest shapes cure browser real wheel triton

style: $(DONE)/dev
	cd $(ROOT) && $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports --no-cache

types: $(DONE)/all
	cd $(ROOT) && $(BIN)/pyright --pythonpath $(BIN)/python

doctest: $(DONE)/all
	$(PYTEST) --doctest-modules src --ignore src/unitygain/stats/triton_kernel.py

shapes: export UNITYGAIN_SHAPES := 1
shapes: $(DONE)/dev
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "($(FAST)) or shapes" $(SHAPED)

cure: $(DONE)/dev
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "cure and not slow"

browser real wheel: $(DONE)/all
	$(PYTEST) -rs -m "$@ and not slow"

# Triton stays out of .venv: it is a gigabyte that only this target needs.
triton: $(DONE)/triton
	cd $(ROOT) && PYTHONPATH=$(VENV)/triton TRITON_INTERPRET=1 $(BIN)/python -m pytest -rs -m triton tests/stats

nightly: export UNITYGAIN_ZOO_SEED ?= $(shell date +%Y%m%d)
nightly: style types $(DONE)/all doctest triton shapes
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not (triton or real or browser or wheel or shapes)"
	$(PYTEST) -rs -m "real or browser or wheel"

fmt: $(DONE)/dev
	cd $(ROOT) && $(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: $(DONE)/package
	$(BIN)/python $(ROOT)/docs/generate.py

clean:
	rm -rf $(VENV) $(ROOT)/build $(ROOT)/dist $(ROOT)/report.html $(ROOT)/report.json
	rm -rf $(ROOT)/.pytest_cache $(ROOT)/.ruff_cache $(ROOT)/.hypothesis $(ROOT)/.import_linter_cache

# How .venv comes about: the environment with torch, then the package, then what tests and checks need.
$(DONE)/torch: $(ROOT)/constraints.txt $(ROOT)/.ci/environment.py
	$(PYTHON) $(ROOT)/.ci/environment.py $(VENV) $(ROOT)/constraints.txt
	@mkdir -p $(DONE) && touch $@

$(DONE)/package: $(DONE)/torch $(ROOT)/pyproject.toml $(ROOT)/hatch_build.py $(ROOT)/src/unitygain/stats/gradients.c
	$(PIP) --editable $(ROOT)
	@touch $@

$(DONE)/dev: $(DONE)/package
	$(PIP) --group $(ROOT)/pyproject.toml:dev
	@touch $@

$(DONE)/all: $(DONE)/dev
	$(PIP) --group $(ROOT)/pyproject.toml:browser --group $(ROOT)/pyproject.toml:real
	@touch $@

$(DONE)/triton: $(DONE)/dev
	test "$$(uname)" != Linux || $(PIP) --no-deps --upgrade --target $(VENV)/triton "triton>=3.2,<4"
	@touch $@
