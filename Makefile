# make train: the first run, from nothing.  make test: the tests, from nothing.  The rest: README.md, CONTRIBUTING.md.
PYTHON ?= python3
TORCH ?=
ARGS ?=
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(if $(TORCH),--torch-backend $(TORCH))

.PHONY: install train test test-all check lint docs bench clean

install: .venv/.installed

.venv/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/.installed: .venv/bin/uv pyproject.toml
	@echo "installing into .venv (torch with CUDA is several GB; make install TORCH=cpu where your index has it)"
	$(UV) --editable .
	@touch $@

.venv/.dev: .venv/.installed
	$(UV) --editable '.[dev]'
	@touch $@

# On RAY_ADDRESS if it is set; else on a Ray head that is started for it and stopped afterwards.
train: .venv/.installed
	@$(BIN)/python -m jobs.submit python -m jobs.train --config jobs/configs/digits.yaml $(ARGS)

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow" $(ARGS)

test-all: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# The pages of docs/ as a site: site/index.html. (The variable: no notice of what Material's makers do next.)
docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

bench: .venv/.dev
	$(BIN)/python -m jobs.bench $(ARGS)

clean:
	rm -rf .venv dist build site .mypy_cache .ruff_cache .pytest_cache
