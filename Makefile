# Each command once; CI calls these.

CARGO ?= cargo

.PHONY: run test test-rust test-clients lint lint-http bench model fuzz

run: ## the stand-in and the proxy in front of it
	$(CARGO) run --release -- demo

test: test-rust test-clients ## everything that must hold

test-rust: tools
	$(CARGO) test --locked

# The SDK's version is the one whose behaviour the documents describe.
test-clients: tools
	$(CARGO) build --locked
	mkdir -p build/clients
	test -d build/clients/node_modules/@figuro/chatwoot-sdk || \
		npm install --prefix build/clients --no-save --no-audit --no-fund --loglevel=error @figuro/chatwoot-sdk@1.1.17
	ANTEROOM=$(CURDIR)/target/debug/anteroom node --test tests/clients/

lint: ## formatting, clippy and documentation, with warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- --deny warnings
	$(CARGO) clippy --locked --no-default-features -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --no-deps

lint-http: ## REDbot on a hit, a miss, a 304, errors and what passes; build/redbot/report.txt has all it noted
	@sh tests/tools.sh python3:python3-venv
	$(CARGO) build --locked
	test -d build/redbot || python3 -m venv build/redbot
	build/redbot/bin/pip install --quiet --disable-pip-version-check redbot==2.7.1 httplint==2026.10.4
	build/redbot/bin/python -B tests/lint_http.py target/debug/anteroom build/redbot/report.txt

bench: ## the hot path, as ratios against a baseline of the same run
	$(CARGO) bench --locked

fuzz: ## the parsers of strangers' bytes: half a million mutated samples, on the stable toolchain
	ANTEROOM_FUZZ_EXECUTIONS=500000 $(CARGO) test --locked --test fuzz_payload

.PHONY: tools
tools: ## what the tests need beyond Rust and a C compiler
	@sh tests/tools.sh curl:curl node:nodejs npm:npm
