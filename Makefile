# make demo   the whole story on real data, in one page (about five minutes the first time: it installs torch)
# make test   every test that needs no network
# make fast   those that are quick, in about a minute and a half
# make lint   ruff and mypy strict
# make coverage   the tests, and which lines they reach (half as long again)
# make slow   note anew in tests/slow.txt which tests the fast pass leaves out
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test fast coverage slow lint clean

demo: .venv/.core
	$(BIN)/robustgen demo --out robustgen-demo --force

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical

fast: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical -m "not slow"

coverage: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --cov --cov-report=term:skip-covered --cov-fail-under=90

slow: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --list-slow 0.4

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustgen needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/.core: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
