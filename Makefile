# Every way to run, test and check Ostraka. Needs Python 3.11–3.13 and make; the rest is set up in .venv.
#
#   make serve [DIR=./data] [ARGS="--port 9000"]   run a store in the foreground
#   make cluster [DIR=./cluster] [ARGS="--nodes 6"]  run a whole cluster on loopback
#   make test  [TESTS=tests/unit] [PYTEST_ARGS=-x] all tests
#   make check                                     format, lint, types, layers, fast tests
#   make lint                                      the same without tests
#   make sim SEEDS=20 [SEED=1]                     simulate the cluster, from seeds
#   make bench [ARGS=...]                          benchmarks, as a table and as JSON
#   make lock                                      renew the pinned versions in requirements/
#
# Set-up is remembered by stamps in .venv and repeated only when the pinned versions change.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.PHONY: serve cluster test check lint sim bench lock clean

VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.ready-run
TEST_READY := $(VENV)/.ready-test
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

TESTS ?= tests
PYTEST_ARGS ?=
# Whole files go to one worker: module fixtures (a running store) are started once. tests/conftest.py
# has the slow ones begun first. More workers than cores, since many a test waits for something.
TEST_WORKERS ?= 3
FAST_TESTS := $(wildcard tests/unit tests/golden tests/contract tests/tidy)

# A store is five processes and a test run starts hundreds: each would compile all sources anew.
export PYTHONDONTWRITEBYTECODE :=

serve: $(RUN_READY)
	@exec $(BIN)/ostraka serve "$${DIR:-./data}" $${ARGS:-}

# etcd comes with the test requirements; another one is named by the variable ETCD.
cluster: $(TEST_READY)
	@exec $(BIN)/python -m ops.local_cluster "$${DIR:-./cluster}" $${ARGS:-}

test: $(TEST_READY)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder \
	    $(TESTS) $(PYTEST_ARGS)

lint: $(TEST_READY)
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	@$(BIN)/python -m pytest -q -m "not slow" $(FAST_TESTS) $(PYTEST_ARGS)

# Without SEED the seeds are fresh ones; a seed that failed is named, and runs again alike.
sim: $(TEST_READY)
	@exec $(BIN)/python -m tests.sim --seeds "$${SEEDS:-20}" $${SEED:+--seed "$$SEED"} $${ARGS:-}

bench: $(TEST_READY)
	@exec $(BIN)/python -m tests.bench $${ARGS:-}

# A person decides when; uv resolves for all supported Pythons and platforms at once.
lock: $(BIN)/python
	@$(PIP_INSTALL) uv
	options=(--generate-hashes --universal --no-header --no-annotate --no-emit-index-url --python-version 3.11 --quiet)
	$(BIN)/uv pip compile pyproject.toml --extra build --extra test "$${options[@]}" -o requirements/test.txt
	$(BIN)/uv pip compile pyproject.toml --extra build "$${options[@]}" -c requirements/test.txt -o requirements/run.txt

clean:
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The fastest of those that run and are new enough: a build without profile-guided optimisation, as
# version managers make them, is a quarter to a third slower. A shim may exist and not run.
$(BIN)/python:
	@fastest= fastest_us=
	for python in $${PYTHON:-python3.11 python3.12 python3.13 /usr/bin/python3 python3 python}; do
	    took_us=$$("$$python" ops/interpreter_speed.py 2>/dev/null) || continue
	    if [ -z "$$fastest" ] || [ "$$took_us" -lt $$((fastest_us * 9 / 10)) ]; then
	        fastest=$$python fastest_us=$$took_us
	    fi
	done
	if [ -z "$$fastest" ]; then
	    echo "Ostraka needs Python 3.11, 3.12 or 3.13; set PYTHON to one" >&2
	    exit 1
	fi
	echo "setting up $(VENV) with $$("$$fastest" --version) ($$fastest)"
	"$$fastest" -m venv $(VENV)

# Versions and hashes are pinned; the project itself is linked in place, without a second resolver
# or an unpinned build environment.
$(RUN_READY): requirements/run.txt pyproject.toml | $(BIN)/python
	@$(PIP_INSTALL) --require-hashes -r requirements/run.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(TEST_READY): requirements/test.txt pyproject.toml | $(RUN_READY)
	@$(PIP_INSTALL) --require-hashes -r requirements/test.txt
	touch $@
