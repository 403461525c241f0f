# The image holds the program and the system's certificates, nothing else.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
# Dependencies first: they change less often than the sources.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests/it && echo 'fn main() {}' | tee src/main.rs benches/hot_path.rs > src/lib.rs \
    && cargo build --release --locked --no-default-features --lib || true
COPY . .
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --no-default-features \
    && strip target/release/anteroom

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/anteroom /usr/local/bin/anteroom
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s CMD ["/usr/local/bin/anteroom", "ready"]
ENTRYPOINT ["/usr/local/bin/anteroom"]
CMD ["serve"]
