# Each target sets up what it needs: a virtual environment in .venv, made again when the pinned versions change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SWIFT := .venv-swift
VLLM := .venv-vllm
SENSORIUM_TEST_VLLM_PYTHON ?= $(abspath $(VLLM)/bin/python)
ARGS ?=
# Test processes side by side, a file in one of them. One after the other: make test JOBS=0
JOBS ?= 2

export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help serve test test-swift test-vllm test-ray check fix families bench clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(STAMP) ## serve the bundled model on http://127.0.0.1:8000 (more options: make serve ARGS="--port 9000")
	@env -u OMP_WAIT_POLICY $(BIN)/sensorium serve $(ARGS)

test: $(STAMP) ## run the tests (some of them: make test ARGS="tests/registry -k pool")
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-swift: $(STAMP) $(SWIFT)/.installed ## run ms-swift 2.6.1's own client against the server (an environment of its own)
	@PYTHONPATH=src SENSORIUM_PYTHON=$(abspath $(BIN)/python) $(SWIFT)/bin/python -m pytest tests/swift/real_client.py $(ARGS)

test-ray: $(STAMP) ## run the tests that start Ray clusters on this machine and kill parts of them (over a minute)
	@$(BIN)/python -m pytest tests/cluster/real_ray.py $(ARGS)

test-vllm: $(STAMP) ## run the engine vllm with a real vLLM (an environment of its own, some minutes)
	@test -x $(SENSORIUM_TEST_VLLM_PYTHON) || $(BIN)/python -m tests.vllm.installed $(VLLM)
	@SENSORIUM_TEST_VLLM_PYTHON=$(SENSORIUM_TEST_VLLM_PYTHON) $(BIN)/python -m pytest tests/vllm/real_vllm.py $(ARGS)

check: $(STAMP) ## formatting, lint, types, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

fix: $(STAMP) ## format, and repair what the linter can repair
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

families: $(STAMP) ## run the families' parity tests and write docs/families.md from what they found
	@$(BIN)/python -m tests.families.table $(ARGS)

bench: $(STAMP) ## measure against other engines, side by side
	@env -u OMP_WAIT_POLICY $(BIN)/python benchmarks/run.py $(ARGS)

clean: ## remove the environment and all caches
	rm -rf $(VENV) $(SWIFT) $(VLLM) .mypy_cache .ruff_cache .pytest_cache build src/*.egg-info

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV): pinned versions from constraints.txt, about a minute the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(SWIFT)/.installed: tests/swift/requirements.txt
	@test -x $(SWIFT)/bin/python || $(PYTHON) -m venv $(SWIFT)
	@$(SWIFT)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@$(SWIFT)/bin/python -m pip install -qq --disable-pip-version-check --no-deps ms-swift==2.6.1
	@touch $@
