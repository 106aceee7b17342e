# One entry point. `make demo` and `make test` each do all the set-up they need on a machine that has
# a Rust toolchain and CPython 3.11 or newer, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Exact versions of all that is installed; scripts/renew_constraints.sh renews them.
CONSTRAINTS := constraints.txt
CONSTRAINED := $(CONSTRAINTS:%=--constraint %)
# uv resolves and unpacks in seconds what takes pip minutes (torch brings several GB on Linux).
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python $(CONSTRAINED) $(if $(wildcard $(PIP_FIND_LINKS)),--find-links $(PIP_FIND_LINKS))
# What pyproject.toml says an extra or a group needs, without rollkit itself.
NEEDS := $(INSTALL) -r pyproject.toml
RUST := $(shell find src -name '*.rs') Cargo.toml Cargo.lock pyproject.toml
say = @echo "· $(1)"

.PHONY: demo test test-oldest test-latest test-python bare soak fuzz valgrind wheels lint bench format clean

demo: $(VENV)/.built $(VENV)/.cli
	@$(BIN)/python examples/demo.py
	@printf '\nNext:\n\n'
	@printf '  %s\n' \
	  '$(BIN)/rollkit pack demo-out/rollouts.jsonl -o shards --capacity 4096   # or your own JSONL, Parquet, Arrow' \
	  '$(BIN)/rollkit inspect shards' \
	  '$(BIN)/rollkit --help'

test: $(VENV)/.built $(VENV)/.test
	cargo test --quiet
	$(BIN)/python -m pytest -q

# The oldest packages that pyproject.toml allows lie in front of the installed ones. Three runs: decoding, for
# transformers; Ray, which leaves files of its log open; and the files that use most of what each other extra calls
# (pyarrow: arrow, arrow_exchange, tables; datasets: the last two; safetensors: tensors; obstore: remote), as matplotlib's
# names of pyparsing are old. Not here, since they are large: torch, JAX and NumPy.
OLDEST := $(VENV)/oldest
OLD := transformers ray pyarrow datasets grain matplotlib safetensors obstore
oldest = "$$(sed -n 's/.*"$(1)>=\([0-9.]*\)".*/$(1)==\1/p' pyproject.toml | head -n 1)"
test-oldest: $(OLDEST)/.installed
	PYTHONPATH=$(OLDEST) HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q tests/decode/test_cached.py \
		tests/decode/test_generate*.py tests/decode/test_cache.py tests/decode/test_active.py \
		tests/compat/test_transformers.py tests/house/test_errors_decode.py
	PYTHONPATH=$(OLDEST) $(BIN)/python -m pytest -q -W ignore::ResourceWarning \
		-W ignore::pytest.PytestUnraisableExceptionWarning tests/loading/test_ray*.py
	PYTHONPATH=$(OLDEST) $(BIN)/python -m pytest -q -W ignore::pyparsing.warnings.PyparsingDeprecationWarning \
		tests/rows/test_arrow.py tests/rows/test_arrow_exchange.py tests/rows/test_tables.py tests/files/test_arrow.py \
		tests/loading/test_grain.py tests/house/test_plot.py tests/files/test_tensors.py tests/files/test_remote.py

$(OLDEST)/.installed: $(VENV)/.built $(VENV)/.test pyproject.toml Makefile
	rm -rf $(OLDEST)
	$(UV) pip install --quiet --python $(BIN)/python --target $(OLDEST) $(foreach package,$(OLD),$(call oldest,$(package)))
	touch $@

# The newest version of everything, in an environment of its own, made anew each time.
test-latest:
	rm -rf .venv-latest
	$(MAKE) test VENV=.venv-latest CONSTRAINTS=

# Another interpreter, in an environment of its own: `make test-python PYTHON=python3.12`.
test-python:
	$(MAKE) bare VENV=.venv-$(patsubst python%,%,$(notdir $(PYTHON)))

# The tests that need no framework; the others skip.
bare: $(VENV)/.built $(VENV)/.bare
	$(BIN)/python -m pytest -q

# The sweeps that are too long for continuous integration: hours.
soak:
	ROLLKIT_THOROUGH=2 $(MAKE) test
	$(MAKE) fuzz SECONDS=600

# Every kernel against its oracle, on random inputs, under AddressSanitizer: `make fuzz SECONDS=60`.
SECONDS := 5
fuzz:
	fuzz/run $(SECONDS)

# The Rust tests, fewer examples each, and hostile calls of the extension module, under valgrind.
VALGRIND := valgrind --quiet --error-exitcode=1 --leak-check=no
valgrind: $(VENV)/.built $(VENV)/.bare
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(VALGRIND)" \
		ROLLKIT_THOROUGH=valgrind PROPTEST_CASES=4 cargo test --quiet --tests
	PYTHONMALLOC=malloc $(VALGRIND) --suppressions=tests/house/valgrind.supp \
		$(BIN)/python -m pytest -q tests/house/test_hostile.py -k nothing_outside

# The sdist, and from it a wheel for each CPython of this machine and one for all others, each tried alone.
wheels:
	scripts/wheels.sh dist

lint: $(VENV)/.built $(VENV)/.test $(VENV)/.lint
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --all-targets --features python -- -D warnings
	cargo clippy --quiet --lib --features abi3 -- -D warnings
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
	rm -rf .venv* target demo-out

$(UV):
	$(call say,Making the environment $(VENV))
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("rollkit needs CPython 3.11 or newer")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINED) uv

$(VENV)/.built: $(UV) $(RUST)
	$(call say,Building the extension module: a minute or two the first time)
	@$(INSTALL) --group build numpy
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet --uv
	@touch $@

$(VENV)/.cli: $(VENV)/.built $(CONSTRAINTS)
	$(call say,Installing what the command line needs)
	@$(NEEDS) --extra cli
	@touch $@

$(VENV)/.test: $(VENV)/.built $(CONSTRAINTS)
	$(call say,Installing what the tests need: torch and JAX are large)
	@$(NEEDS) --group test --group beside --extra torch --extra jax --extra arrow --extra ray --extra grain --extra transformers --extra plot --extra cli \
		--extra remote
	@touch $@

$(VENV)/.bare: $(VENV)/.built $(CONSTRAINTS)
	$(call say,Installing what the tests without frameworks need)
	@$(NEEDS) --group test-bare --extra cli
	@touch $@

$(VENV)/.lint: $(UV) pyproject.toml $(CONSTRAINTS)
	$(call say,Installing the linters)
	@$(INSTALL) --group lint
	@touch $@
