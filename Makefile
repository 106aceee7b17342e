# One entry point. `make demo` and `make test` each do all the set-up they need on a machine that has
# a Rust toolchain and CPython 3.11 or newer, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv resolves and unpacks in seconds what takes pip minutes (torch brings several GB on Linux).
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python $(if $(wildcard $(PIP_FIND_LINKS)),--find-links $(PIP_FIND_LINKS))
RUST := $(shell find src -name '*.rs') Cargo.toml Cargo.lock pyproject.toml

.PHONY: demo test test-oldest lint bench format clean

demo: $(VENV)/.built $(VENV)/.cli
	$(BIN)/python examples/demo.py

test: $(VENV)/.built $(VENV)/.test
	cargo test --quiet
	$(BIN)/python -m pytest -q

# Decoding with the oldest transformers that pyproject.toml allows, which lies in front of the installed one.
OLDEST := $(VENV)/oldest
test-oldest: $(OLDEST)/.installed
	PYTHONPATH=$(OLDEST) HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q tests/decode/test_cached.py \
		tests/decode/test_generate*.py tests/decode/test_cache.py tests/decode/test_active.py \
		tests/compat/test_transformers.py tests/house/test_errors_decode.py

$(OLDEST)/.installed: $(VENV)/.built $(VENV)/.test pyproject.toml
	rm -rf $(OLDEST)
	$(INSTALL) --target $(OLDEST) "$$(sed -n 's/^  "\(transformers\)>=\(.*\)",$$/\1==\2/p' pyproject.toml)"
	touch $@

lint: $(VENV)/.built $(VENV)/.test $(VENV)/.lint
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --all-targets --features python -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest rollkit._native --allowlist tests/stubtest_allow.txt

bench: $(VENV)/.built $(VENV)/.test
	cargo bench
	$(BIN)/python -m pytest -q benches --benchmark-only --benchmark-disable-gc --benchmark-columns=median,iqr,rounds

format: $(VENV)/.lint
	cargo fmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) target demo-out

$(UV):
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("rollkit needs CPython 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.built: $(UV) $(RUST)
	$(INSTALL) "maturin>=1.14,<2" numpy
	$(BIN)/maturin develop --release --quiet --uv
	touch $@

$(VENV)/.cli: $(VENV)/.built
	$(INSTALL) "safetensors>=0.4.3" "tqdm>=4.66"
	touch $@

$(VENV)/.test: $(VENV)/.built
	$(INSTALL) --group test "safetensors>=0.4.3" "tqdm>=4.66" "pyarrow>=16" "torch>=2.4" "jax>=0.4.30" "matplotlib>=3.8"
	touch $@

$(VENV)/.lint: $(UV) pyproject.toml
	$(INSTALL) --group lint
	touch $@
