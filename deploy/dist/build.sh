#!/bin/sh
# Static programs for x86_64 and aarch64, and what goes with them: manual pages and completions. zig compiles jemalloc, zstd
# and ring for the other architecture, and links with musl.
#
#   sh deploy/dist/build.sh FOLDER     makes FOLDER/x86_64/anteroom, FOLDER/aarch64/anteroom, FOLDER/man, FOLDER/completions
set -eu
mkdir -p "$1"
out=$(realpath "$1")
cargo=${CARGO:-cargo}
[ -x build/zig/bin/cargo-zigbuild ] ||
	pip install --quiet --no-deps --target build/zig cargo-zigbuild==0.24.1 ziglang==0.17.1
export PYTHONPATH="$PWD/build/zig" PATH="$PWD/build/zig/bin:$PATH"
export ANTEROOM_COMMIT="${ANTEROOM_COMMIT:-$(git rev-parse --short=12 HEAD)}"
for arch in x86_64 aarch64; do
	target=$arch-unknown-linux-musl
	rustup target add "$target" 2> /dev/null
	# jemalloc works where pages are no larger than it was told: there are kernels with 64 KiB for aarch64.
	case $arch in aarch64) page=16 ;; *) page=12 ;; esac
	export JEMALLOC_SYS_WITH_LG_PAGE=$page
	profile=
	if [ "$arch" = "$(uname -m)" ]; then
		CARGO=$cargo sh deploy/dist/profile.sh "$target" "$out/$arch.profdata"
		profile=-Cprofile-use=$out/$arch.profdata
	fi
	RUSTFLAGS="${RUSTFLAGS:-} $profile" $cargo zigbuild --release --locked --bin anteroom --target "$target"
	mkdir -p "$out/$arch"
	"$arch-linux-gnu-strip" -o "$out/$arch/anteroom" "${CARGO_TARGET_DIR:-target}/$target/release/anteroom"
done
rm -rf "$out/man" "$out/completions"
$cargo run --quiet --locked --example man -- "$out/man"
mkdir -p "$out/completions"
for shell in bash zsh fish; do
	"$out/$(uname -m)/anteroom" completions $shell > "$out/completions/anteroom.$shell"
done
