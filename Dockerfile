# The image holds the program and the system's certificates, nothing else.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
ENV RUSTFLAGS="-C target-feature=+crt-static" TARGET=x86_64-unknown-linux-gnu
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev ca-certificates
# Dependencies first: they change less often than the sources.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests && touch src/lib.rs benches/hot_path.rs && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --no-default-features --target $TARGET
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --no-default-features --target $TARGET \
    && strip -o /anteroom target/$TARGET/release/anteroom

FROM scratch
COPY --from=build /anteroom /anteroom
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s CMD ["/anteroom", "ready"]
ENTRYPOINT ["/anteroom"]
CMD ["serve"]
