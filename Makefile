# make train: the first run, from nothing.  make test: the tests, from nothing.  The rest: README.md, CONTRIBUTING.md.
PYTHON ?= python3
TORCH ?=
ARGS ?=
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(if $(TORCH),--torch-backend $(TORCH))

.PHONY: install train demo-devices smoke test test-thorough test-all check lint docs web bench gpu-check clean

install: .venv/.installed

.venv/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/.installed: .venv/bin/uv pyproject.toml
	@echo "installing into .venv (torch with CUDA is several GB; make install TORCH=cpu: less, from PyTorch's own index)"
	$(UV) --editable .
	@touch $@

.venv/.dev: .venv/.installed
	$(UV) --editable '.[dev]'
	$(UV) --no-deps aeon # for its files; with all that it asks for it is 230 MB, and an older numpy and pandas
	@touch $@

# On RAY_ADDRESS if it is set; else on a Ray head that is started for it and stopped afterwards.
train: .venv/.installed
	@$(BIN)/python -m jobs.submit python -m jobs.train --config jobs/configs/digits.yaml $(ARGS)

PYTEST := $(BIN)/python -m pytest
# One process runs, one after the other, all tests that need Ray; the other the rest.
BOTH := $(PYTEST) -n 2 --dist loadgroup

# In process every schedule equal to the unsplit model, on Ray one; cuts, settings, the command line.
SMOKE := tests/runs/equality/test_schedules.py::test_one_phone_with_batchnorm_is_unsplit_bit_for_bit \
  'tests/runs/equality/test_schedules.py::test_both_backends_give_the_same_bytes[splitfed_v1]' \
  tests/ray_split/cutting/test_cut.py --deselect tests/ray_split/cutting/test_cut.py::test_split_training_is_unsplit_training \
  tests/ray_split/config/test_sections.py tests/ray_split/test_cli.py

# Server, gateway, two simulated phones, and room for two telephones in this machine's network.
demo-devices: .venv/.installed
	$(UV) segno
	@$(BIN)/ray-split devices invite --count 2
	@$(BIN)/python -m jobs.submit python -m jobs.train --config jobs/configs/devices.yaml $(ARGS)

smoke: .venv/.dev
	@echo "make smoke: at most 2 minutes (make test: 12)"
	$(PYTEST) -q $(SMOKE) $(ARGS)

test: .venv/.dev
	@echo "make test: about 12 minutes on two cores (make smoke: 2; make test-thorough: the rest of what CI runs)"
	$(BOTH) -m "not slow and not thorough" $(ARGS)

test-thorough: .venv/.dev
	@echo "make test-thorough: some 30 minutes on two cores, beside the 12 of make test"
	$(BOTH) -m "thorough and not slow" $(ARGS)

test-all: .venv/.dev
	@echo "make test-all: hours; every test"
	$(BOTH) $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# The pages of docs/ as a site: site/index.html. (The variable: no notice of what Material's makers do next.)
docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

# The page for browsers, from web/ to ray_split/devices/page/, where the gateway finds it. Needs Node 20 or later.
web:
	cd web && npm install --no-audit --no-fund --no-package-lock && npm run check && npm run build

bench: .venv/.dev
	$(BIN)/python -m jobs.bench $(ARGS)

# Measures and checks what is claimed of B on a GPU, in under eight minutes. Where there is no .venv, and $(PYTHON) has
# torch and what a run needs (some of it brought along in PYTHONPATH), that is used. Some rows of it:
#   make gpu-check ARGS="'gpu copies there'"
gpu-check:
	@if [ ! -e .venv/.dev ] && $(PYTHON) -c 'import torch, ray, pydantic' 2>/dev/null; then \
	  $(PYTHON) -m jobs.bench.gpu_check $(ARGS); \
	else $(MAKE) --no-print-directory .venv/.dev && $(BIN)/python -m jobs.bench.gpu_check $(ARGS); fi

clean:
	rm -rf .venv dist build site .mypy_cache .ruff_cache .pytest_cache
