# Everything runs in .venv, installed from constraints.txt with pip.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0
# Threads of BLAS that wait for each other cost more than they save on small fits.
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test test-slow mutation-laws lint bench clean
.DELETE_ON_ERROR:

demo: .venv/core.ok  ## whole pipeline on the embedded simulator, one prediction over HTTP
	$(BIN)/python -m marketray.demo --config configs/quickstart.yaml

test: .venv/test.ok  ## every unmarked test, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

test-slow: .venv/test.ok  ## the long acceptance runs
	$(BIN)/python -m pytest -m slow --timeout 3600

mutation-laws: .venv/test.ok  ## break each law on purpose; its test must fail
	$(BIN)/python -m tests.laws.mutate

lint: .venv/dev.ok  ## ruff and mypy --strict, as in pre-commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/test.ok  ## the measured figures, one JSON line each
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.online
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.sentiment
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.tuning

clean:
	rm -rf .venv build *.egg-info

.venv/core.ok: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[sentiment]'
	touch $@

.venv/test.ok: .venv/core.ok
	$(PIP) -e '.[test,sentiment]'
	touch $@

.venv/dev.ok: .venv/core.ok
	$(PIP) -e '.[test,sentiment,dev]'
	touch $@
