# Every target does its own set-up: a virtual environment in .venv with the packages of requirements.lock.
#   make demo    the main job on real data, end to end          make check   the inner loop: everything that takes seconds
#   make test    everything that continuous integration checks  make docs    the documentation site, in build/site
#   make bench   benchmarks: a table, and JSON beside it        make lock    resolve the dependencies anew
#   make trials  random projects, their answers compared        make fuzz    damaged input of every kind
#   make setup   only the environment; bench-setup for bench    make clean   stop the embedded store, remove what was made
#   make dist    build the wheel and try it                     make release check everything, build, tag
SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo check test lint types layers docs pytest bench bench-setup trials fuzz dist release lock clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
PYTEST_ARGS ?=
PROJECTS ?= 20
MINUTES ?= 5
LOCK := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-annotate --custom-compile-command "make lock"

help:
	@sed -n '2,7s/^#   //p' Makefile

setup: $(STAMP)

bench-setup: $(BENCH_STAMP)

$(STAMP): requirements.lock pyproject.toml scripts/install
	@sh scripts/install $(VENV) requirements.lock $(PYTHON)
	@rm -f $(BENCH_STAMP)
	@touch $@

$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	@sh scripts/install $(VENV) requirements-bench.lock $(PYTHON)
	@touch $@

demo: $(STAMP)
	@$(BIN)/segments demo

# Leaves out what takes longer: CONTRIBUTING.md says what.
check: lint types layers $(STAMP)
	@echo "== pytest (unit and conformance tests)"
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow" --ignore tests/unit/ml tests/unit tests/conformance

test: lint types layers docs pytest

lint: $(STAMP)
	@echo "== ruff"
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --check --diff .

types: $(STAMP)
	@echo "== mypy"
	@$(BIN)/mypy

layers: $(STAMP)
	@echo "== import-linter"
	@$(BIN)/lint-imports --no-logo

docs: $(STAMP)
	@echo "== sphinx"
	@$(BIN)/sphinx-build --fresh-env --quiet --fail-on-warning --keep-going --conf-dir docs . build/site
	@echo "build/site/index.html"

pytest: $(STAMP)
	@echo "== pytest"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(BENCH_STAMP)
	@$(BIN)/python -m benchmarks

# Not part of `make test`, which does some of both: random projects whose answers must agree, and damaged input of every kind.
trials: $(STAMP)
	@$(BIN)/python -W ignore -m tests.trials --projects $(PROJECTS)

fuzz: $(STAMP)
	@$(BIN)/python -W ignore -m tests.fuzz --minutes $(MINUTES)

dist: $(STAMP)
	@sh scripts/check-wheel $(BIN)/python

release: $(STAMP)
	@sh scripts/release ready
	@$(MAKE) test dist
	@sh scripts/release tag

# Needs uv on PATH. The files name no index, so every machine uses its own. The smaller file takes the larger one's versions.
lock:
	@$(LOCK) --extra demo --extra dev --extra benchmarks --output-file requirements-bench.lock pyproject.toml
	@$(LOCK) --extra demo --extra dev --constraint requirements-bench.lock --output-file requirements.lock pyproject.toml

# A server whose directory is gone would run on unseen, so it is stopped first.
clean:
	@[ ! -x $(BIN)/python ] || $(BIN)/python -c 'from rules_engine.redis.embedded import EmbeddedStore; EmbeddedStore(".").stop()'
	@rm -rf $(VENV) .segments feature_repo/data build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
