# `make demo` and `make test` set up everything they need in .venv; nothing has to be installed by hand
# but a Rust toolchain, Python 3.10 or newer, and make.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.10 python3; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo $$p; break; fi; done)
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = $(shell find src -type f) Cargo.toml Cargo.lock pyproject.toml
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-rust test-python test-peers campaign notebooks loom fuzz mutants audit lint fmt docs build bench clean

help: ## Show this help.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/demo $(if $(PEERS),.venv-peers/peers) ## Run the five programs against a simulator, with faults. PEERS=1: and the originals. LIVE=1: the real API, your key.
	@$(BIN)/python examples/demo.py $(if $(LIVE),--live) $(if $(PEERS),--peers .venv-peers/bin/python)

test: lint test-rust test-python test-peers ## Check everything: formatting, lints, types, Rust tests, Python tests, peers' tests.

test-rust: ## Run the Rust tests: the pure core alone, then with the network parts.
	cargo test --quiet --no-default-features
	cargo test --quiet --no-default-features --features net

test-python: $(VENV)/dev ## Run the Python tests, in two processes side by side.
	$(BIN)/python tests/side_by_side.py

test-peers: $(VENV)/dev ## Run the tests of the packages that seawall.compat stands in for, on seawall.
	$(BIN)/python tests/compat/peers.py

loom: ## Try every order of steps of the breaker's gate, the latch, a bulkhead's queue and a cache's line.
	RUSTFLAGS="--cfg loom" cargo test --quiet --release --no-default-features --target-dir target/loom --test loom

COUNT ?= 10000000
fuzz: ## Feed the readers what servers send, broken in every way: COUNT=10000000 inputs, a quarter of an hour.
	FUZZ_COUNT=$(COUNT) cargo test --no-default-features --features net --test fuzz -- --nocapture

# Seeded, so that the score is the same each time; without shrinking, so that it comes soon. 3: some mutants hang, which was noticed.
mutants: target/tools/bin/cargo-mutants ## Break the pure core in 800 small ways and see that tests notice: an hour. DIFF=1: what main (on main: HEAD~) has not.
	@$(if $(DIFF),base=$$(git merge-base HEAD $(if $(filter 1,$(DIFF)),main,$(DIFF))) && \
		if test "$$base" = "$$(git rev-parse HEAD)" && git diff --quiet HEAD -- src; then base=HEAD~; fi && git diff "$$base" -- src >target/mutants.diff)
	PROPTEST_RNG_SEED=1 PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 CARGO_TARGET_DIR=$(abspath target/mutants) \
		$(abspath $<) mutants --output target $(if $(DIFF),--in-diff target/mutants.diff) || test $$? = 3

target/tools/bin/cargo-mutants:
	cargo install --quiet --locked --version '=27.1.0' --root target/tools cargo-mutants

# Not part of `make test`: cargo-deny takes minutes to build, and advisories come from the network.
DENY = target/tools/bin/cargo-deny
audit: $(DENY) $(VENV)/made ## Check the lock file, licences, sources, features, advisories and the wheel's bill of materials. STRICT=1: advisories or fail.
	cargo metadata --locked --quiet --format-version 1 >target/audit.json
	$(DENY) check --hide-inclusion-graph licenses bans sources
	$(DENY) list --layout license
	rm -rf target/audit && $(BIN)/maturin build --quiet --interpreter $(BIN)/python --out target/audit
	$(BIN)/python tests/audit/bill.py target/audit/*.whl
	@if $(DENY) fetch db >target/audit.log 2>&1; then $(DENY) check --hide-inclusion-graph advisories; \
		else tail -1 target/audit.log; echo "audit: ADVISORIES WERE NOT CHECKED: their database cannot be had here"; test -z "$(STRICT)"; fi

target/tools/bin/cargo-deny:
	cargo install --quiet --locked --version '=0.20.2' --root target/tools cargo-deny

lint: $(VENV)/dev ## Check formatting, lints and types.
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(VENV)/dev ## Format all code.
	cargo fmt
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

test-all: ## Build and pass the Python tests on each Python 3.10 to 3.13 that is installed.
	@for v in 3.10 3.11 3.12 3.13; do \
		p=$$(for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python3; do $$p -c '' 2>/dev/null && echo $$p && break; done); \
		test -n "$$p" || { echo "no Python $$v here"; continue; }; \
		echo "== Python $$v"; $(MAKE) --no-print-directory test-python PYTHON=$$p VENV=.venv-$$v || exit 1; done

bench: ## Measure what seawall costs beside its peers, in a release build: some minutes. QUICK=1: a look. DOCS=1: into docs/.
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/bench
	@.venv-bench/bin/python benches/run.py $(if $(QUICK),--quick) $(if $(DOCS),--docs)

campaign: $(VENV)/dev ## Every fault by every way of asking under every policy: prints and writes docs/campaign.md.
	@$(BIN)/python tests/campaign/campaign.py

docs: $(VENV)/dev ## Build the pages as a site, in target/site; every link and docstring is checked.
	PYTHONPATH=python NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(VENV)/dev ## Run the notebooks of examples/notebooks and save what they show.
	@$(BIN)/python examples/notebooks/execute.py

build: $(VENV)/built ## Build the extension into .venv.

clean: ## Remove everything that was built or installed.
	rm -rf .venv .venv-* target .bench .demo .peers .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "seawall needs Python 3.10 or newer, and none was found: install one, or say make PYTHON=/path/to/python"; exit 1; }
	@cargo --version >/dev/null 2>&1 || { echo "seawall needs a Rust toolchain (cargo), and none was found: see rustup.rs"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q 'pip>=25.1' 'maturin>=1.13,<2'
	@touch $@

# The extension as the tests use it: the dev profile, optimised a little, built once.
$(VENV)/built: $(VENV)/made $(SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --quiet --skip-install
	$(BIN)/python -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0], 'seawall-source.pth').write_text('$(abspath python)')"
	@touch $@

$(VENV)/demo: $(VENV)/built
	$(BIN)/python -m pip install -q --group demo
	@touch $@

# What the document's programs name themselves, and nothing of ours.
.venv-peers/peers: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q 'pip>=25.1'
	.venv-peers/bin/python -m pip install -q --upgrade --group peers
	@touch $@

$(VENV)/dev: $(VENV)/built
	$(BIN)/python -m pip install -q --group dev
	@touch $@

# The extension as users get it: a wheel of the release profile, installed. And the server of bench_client.py.
# As released wheels are, it is guided by a profile (docs/adr/0035), which takes a part of the toolchain that rustup adds.
GUIDED = $$(test -x "$$(rustc --print target-libdir)/../bin/llvm-profdata" && echo --pgo)
$(VENV)/bench: $(VENV)/made $(SOURCES) benches/loopback.rs benches/train.py
	@test -n "$(GUIDED)" || rustup component add llvm-tools || echo "bench: released wheels are guided by a profile, this one is not: it takes llvm-tools"
	rm -rf $(VENV)/wheels
	$(BIN)/maturin build --quiet --release $(GUIDED) --interpreter $(BIN)/python --out $(VENV)/wheels
	cargo build --quiet --release --no-default-features --features net --example loopback
	cp "$${CARGO_TARGET_DIR:-target}/release/examples/loopback" $(BIN)/seawall-loopback
	$(BIN)/python -m pip install -q --group bench
	$(BIN)/python -m pip install -q --group bench-heavy || echo "litellm cannot be had here: the bench goes on without it"
	$(BIN)/python -m pip install -q --no-deps --force-reinstall $(VENV)/wheels/*.whl
	@echo $(GUIDED) >$@
