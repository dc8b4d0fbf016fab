# A thin list: what needs logic is Rust in xtask.
.PHONY: help build test ci fmt lint

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

build: ## Build the realm binary
	cargo build -p realm

fmt: ## Format the code
	cargo fmt --all

lint: ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: lint ## Run every test; installs what it needs
	@cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest
	cargo nextest run --workspace --locked
	cargo test --workspace --locked --doc --quiet

ci: test ## What CI runs
