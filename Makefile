# Two commands for a new machine: `make demo` and `make test`. Everything they need they install into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test test-nightly bench check lock clean

PYTHON ?= python3
SEED ?= 7
BIN := .venv/bin
# The build must not be disturbed by an environment that happens to be active.
unexport PYTHONPATH VIRTUAL_ENV CONDA_PREFIX
# Certificates of the system, so that a network with its own authority works.
export UV_SYSTEM_CERTS := 1

RUST_SOURCES := $(shell find rust -name '*.rs' -o -name 'Cargo.toml') Cargo.toml Cargo.lock
# nextest runs the Rust tests in parallel processes; cargo's own runner does where it is not installed.
CARGO_TEST := $(shell command -v cargo-nextest >/dev/null && echo "nextest run" || echo "test --quiet")

help:
	@echo "make demo [SEED=7]   learn a library with the embedded model and report whether it helps"
	@echo "make test            every test: Rust, Python, end to end"
	@echo "make check           formatting, lints, types, stubs, import rules"
	@echo "make test-nightly    the slow tests"
	@echo "make bench           measure"
	@echo "make lock            bring the lock files up to date"

install: .venv/installed

.venv/bootstrapped: requirements/bootstrap.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tfgrpo needs CPython 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	touch $@

.venv/locked: .venv/bootstrapped requirements/lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/lock.txt
	touch $@

.venv/installed: .venv/locked pyproject.toml $(RUST_SOURCES)
	@command -v cargo >/dev/null || { echo "a Rust toolchain is needed: install it with rustup, then run make again"; exit 1; }
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: install
	$(BIN)/tfgrpo models fetch default
	$(BIN)/tfgrpo practice examples/tickets/config.toml --set run.seed=$(SEED) --set run.name=demo-seed$(SEED)

test: install
	cargo $(CARGO_TEST) --workspace --locked
	$(BIN)/python -m pytest -q -m "not nightly"

test-nightly: install
	cargo $(CARGO_TEST) --workspace --locked --release
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -q

bench: install
	$(BIN)/python bench/journal_writes.py

check: install
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff format --check python tests bench
	$(BIN)/ruff check python tests bench
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest tfgrpo._core
	$(BIN)/lint-imports

lock:
	$(BIN)/uv pip compile pyproject.toml --upgrade --extra local --group dev --generate-hashes --universal \
	  --python-version 3.11 --no-emit-index-url --no-header --no-annotate -o requirements/lock.txt
	cargo update

clean:
	rm -rf .venv target
