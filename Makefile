# Two commands for a new machine: `make demo` and `make test`. Everything they need they install into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test test-nightly fuzz bench bench-core bench-engine check lock clean

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
	@echo "make fuzz            throw bounded random input at loading, guard and apply"
	@echo "make bench           measure the journal"
	@echo "make bench-core      measure the Rust core beside its rivals (QUICK=1: two minutes)"
	@echo "make bench-engine    measure the engine beside other clients (QUICK=1: three minutes)"
	@echo "make bench-memory    measure memory at 20,000 and 100,000 calls, and a resume after SIGKILL (QUICK=1: small)"
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

# A seed: a red push is a real one. The nightly run draws anew.
test: install
	PROPTEST_RNG_SEED=1 cargo $(CARGO_TEST) --workspace --locked
	cargo test --quiet --locked --manifest-path bench/server/Cargo.toml --target-dir target/bench
	$(BIN)/python -m pytest -q -m "not nightly"

test-nightly: install
	cargo $(CARGO_TEST) --workspace --locked --release
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -q
	$(MAKE) fuzz FUZZ_RUNS=5000000

# What cargo-fuzz sets, but for the sanitizers, which need a nightly toolchain: coverage guides, assertions judge.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/host: //p')
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_RUNS ?= 100000

fuzz:
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --quiet --release --locked --target $(HOST) \
	  --manifest-path rust/fuzz/Cargo.toml --target-dir target/fuzz
	@for target in load guard apply; do \
	  mkdir -p .cache/fuzz/$$target; \
	  target/fuzz/$(HOST)/release/$$target -seed=1 -runs=$(FUZZ_RUNS) -max_len=2048 -timeout=20 -verbosity=0 \
	    -print_final_stats=0 -artifact_prefix=.cache/fuzz/$$target- .cache/fuzz/$$target > .cache/fuzz/$$target.log 2>&1 \
	    || { cat .cache/fuzz/$$target.log; exit 1; }; \
	  echo "fuzz $$target: $(FUZZ_RUNS) runs without a failure"; \
	done

bench: install
	$(BIN)/python bench/journal_writes.py

# The rivals live apart: nothing of theirs gets into the project's environment.
.cache/bench/rivals/installed: bench/core/requirements-rivals.txt .venv/bootstrapped
	$(PYTHON) -m venv --clear .cache/bench/rivals
	$(BIN)/uv pip install --quiet --python .cache/bench/rivals/bin/python --require-hashes -r bench/core/requirements-rivals.txt
	touch $@

bench-core: install .cache/bench/rivals/installed
	$(BIN)/python -m bench.core.runner --rivals .cache/bench/rivals/bin/python $(if $(QUICK),--quick)
	$(if $(TFGRPO_BENCH_LIBRARIES),$(BIN)/python -m bench.core.libraries)

# Each rival of the engine has an environment to itself: their requirements contradict each other.
ENGINE_RIVALS := curator inspect litellm openai pyreqwest
ENGINE_INSTALLED := $(ENGINE_RIVALS:%=.cache/bench/engine/%/installed)
$(ENGINE_INSTALLED): .cache/bench/engine/%/installed: bench/engine/requirements-%.txt .venv/bootstrapped
	$(PYTHON) -m venv --clear $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	touch $@

.PHONY: bench-server
bench-server:
	cargo build --quiet --release --locked --manifest-path bench/server/Cargo.toml --target-dir target/bench

bench-engine: install bench-server $(ENGINE_INSTALLED)
	$(BIN)/python -m bench.engine.runner --rivals .cache/bench/engine $(if $(QUICK),--quick)

.PHONY: bench-memory
bench-memory: install bench-server
	$(BIN)/python -m bench.memory $(if $(QUICK),--quick)

check: install
	cargo fmt --all --check
	cargo fmt --manifest-path bench/server/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff format --check python tests bench scripts
	$(BIN)/ruff check python tests bench scripts
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest tfgrpo._core
	$(BIN)/lint-imports
	$(BIN)/python scripts/import_circles.py

lock:
	$(BIN)/uv pip compile pyproject.toml --upgrade --extra local --group dev --generate-hashes --universal \
	  --python-version 3.11 --no-emit-index-url --no-header --no-annotate -o requirements/lock.txt
	$(BIN)/uv pip compile bench/core/requirements-rivals.in --upgrade --generate-hashes --universal \
	  --python-version 3.11 --no-emit-index-url --no-header --no-annotate -o bench/core/requirements-rivals.txt
	for rival in $(ENGINE_RIVALS); do \
	  $(BIN)/uv pip compile bench/engine/requirements-$$rival.in --upgrade --generate-hashes --universal \
	    --python-version 3.11 --no-emit-index-url --no-header --no-annotate -o bench/engine/requirements-$$rival.txt; \
	done
	cargo update
	cargo update --manifest-path bench/server/Cargo.toml

clean:
	rm -rf .venv target
