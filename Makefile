# Two commands for a newcomer:  make run   and   make test
#
#   MODEL=smollm2-135m-instruct     another model of `hunyuan list` (98 MB instead of 491 MB)
#   TORCH="torch==2.13.0 ..."       another torch: a requirement, then options for pip
#   PYTHON=python3.12               the interpreter that makes the virtual environment

PYTHON ?= python3
TORCH ?= torch==2.13.0
MODEL ?= qwen2.5-coder-0.5b-instruct
HOST ?= 127.0.0.1
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
export HUNYUAN_TORCH := $(firstword $(TORCH))

.PHONY: run test check fix docs vllm clean

run: $(VENV)/run.stamp
	@$(BIN)/hunyuan pull $(MODEL) >/dev/null
	@exec $(BIN)/hunyuan serve $(MODEL) --host $(HOST) --port $(PORT)

test: $(VENV)/test.stamp
	@$(BIN)/python -m pytest

check: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/test.stamp
	@$(BIN)/mkdocs --quiet build --strict
	@echo "built: build/site; a server started from here shows it at /docs"

# The plug-in inside vLLM's CPU build, in an environment of its own; some minutes.
vllm: $(VENV)/test.stamp
	@$(BIN)/python scripts/vllm_environment.py
	@HUNYUAN_VLLM_TESTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/vllm

clean:
	rm -rf $(VENV) build *.egg-info hunyuan/native/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python %d.%d is too old: 3.11 or newer is needed; \
	set PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "the venv module is missing; \
	on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

SOURCES := pyproject.toml setup.py $(wildcard hunyuan/native/src/*)

# torch first, with the user's own options, so that nothing else decides which build is taken.
$(VENV)/run.stamp: $(BIN)/python $(SOURCES)
	@echo "installing $(firstword $(TORCH)) and the project (some minutes the first time) ..."
	@$(PIP) install $(TORCH)
	@$(PIP) install --editable '.[docs,embed,sandbox,units]'
	@touch $@

# One installation with what the tests need, so that the kernels are compiled once.
$(VENV)/test.stamp: $(BIN)/python $(SOURCES)
	@echo "installing $(firstword $(TORCH)), the project and what its tests need ..."
	@$(PIP) install $(TORCH)
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/run.stamp $@
