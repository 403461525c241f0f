# The image holds the program and the system's certificates, nothing else.
#
#   docker build --tag anteroom --build-arg COMMIT="$(git rev-parse --short HEAD)" .
FROM rust:1-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
# No versions: within a stable release of Debian only fixes change them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc make libc6-dev ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# A static glibc. With --target the flag is for the program alone, not for build scripts and macros.
ENV RUSTFLAGS="-C target-feature=+crt-static"
# Dependencies first: they change less often than the sources. Every target of Cargo.toml has to have a file.
COPY Cargo.toml Cargo.lock ./
COPY stand-in/Cargo.toml stand-in/Cargo.toml
RUN mkdir -p src benches fuzz stand-in/src \
    && touch src/lib.rs stand-in/src/lib.rs benches/forms.rs benches/freshness.rs benches/hot_path.rs benches/payload.rs benches/webhooks.rs fuzz/events.rs fuzz/payload.rs \
    && echo 'fn main() {}' > src/main.rs \
    && rustc -vV | sed -n 's/^host: //p' > /target \
    && cargo build --release --locked --no-default-features --features otlp --target "$(cat /target)"
COPY build.rs ./
COPY src src
# The private listener shows the manual.
COPY docs docs
# There is no git here: the commit comes from outside.
ARG COMMIT=unknown
RUN touch src/lib.rs src/main.rs \
    && ANTEROOM_COMMIT="$COMMIT" cargo build --release --locked --no-default-features --features otlp --target "$(cat /target)" \
    && strip -o /anteroom "target/$(cat /target)/release/anteroom"

# With the stand-in for the API, for compose.yaml: docker build --target demo
FROM build AS build-demo
COPY stand-in stand-in
ARG COMMIT=unknown
RUN touch stand-in/src/lib.rs \
    && ANTEROOM_COMMIT="$COMMIT" cargo build --release --locked --target "$(cat /target)" \
    && strip -o /anteroom "target/$(cat /target)/release/anteroom"

FROM scratch AS demo
COPY --from=build-demo /anteroom /anteroom
USER 65532:65532
EXPOSE 3000 8080
ENTRYPOINT ["/anteroom"]
CMD ["demo", "--no-acts", "--stand-in", "0.0.0.0:3000", "--listen", "0.0.0.0:8080"]

FROM scratch
COPY --from=build /anteroom /anteroom
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
# 8080 is for clients. The private listener is on the container's own loopback unless ANTEROOM_ADMIN__ADDRESS says
# otherwise.
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["/anteroom", "ready"]
ENTRYPOINT ["/anteroom"]
CMD ["serve"]
