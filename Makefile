# A thin list: what needs logic is Rust in xtask, or a script.
.PHONY: help build release demo test soak mutants fuzz bench ci fmt lint check

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

build: ## Build the realm binary
	cargo build --locked -p realm

release: ## One static binary, in target/x86_64-unknown-linux-gnu/release
	RUSTFLAGS="-C target-feature=+crt-static" \
	cargo build --locked --release -p realm --target x86_64-unknown-linux-gnu

demo: ## Start two agents here, push a program, follow its log
	@scripts/demo.sh

fmt: ## Format the code
	cargo fmt --all
	cd guests && cargo fmt --all

lint: ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

check: ## Check layers, coverage, tidiness, guests' record and dependencies
	cargo xtask check
	@scripts/deny.sh

test: lint check ## Run every test; installs what it needs
	@if ! cargo nextest --version >/dev/null 2>&1; then \
	  cargo install --locked cargo-nextest || echo "cargo-nextest did not install: using cargo test"; fi
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace --locked; \
	else cargo test --workspace --locked; fi
	cargo test --workspace --locked --doc --quiet

mutants: ## Change the verify path in every small way: each change has to fail a test (hours)
	@cargo mutants --version >/dev/null 2>&1 || cargo install --locked cargo-mutants
	cargo mutants --output target $(MUTANTS)

soak: ## Every attack at once on two agents, for SOAK_MINUTES (10)
	SOAK_MINUTES=$${SOAK_MINUTES:-10} \
	cargo nextest run -p realm --locked -E 'test(/^flood::soak::/)' --run-ignored all --no-capture

bench: ## Measure beside other programs, and write docs/benchmarks.md; ONLY=push for one
	cargo build --locked --release -p realm
	cargo run --locked --release -p realm-bench -- $(ONLY)

fuzz: ## Feed every reader of bytes with a fuzzer; FUZZ_SECONDS=600 each, TARGET=frames for one
	cargo xtask fuzz $(TARGET)

ci: ## What CI runs
	.ci/run
