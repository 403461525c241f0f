#!/bin/sh
# What the program does most, for the compiler (profile-guided optimisation): the program with counters in it answers one
# turn of each case of `make bench-peers`. Worth doing for the architecture of this machine alone: the program has to run.
#
#   sh deploy/dist/profile.sh TARGET FILE     makes FILE, for RUSTFLAGS=-Cprofile-use=FILE
set -eu
target=$1 file=$2
counts=$file.counts
sh tests/tools.sh python3:python3 cc:gcc musl-gcc:musl-tools taskset:util-linux nginx:nginx-light
rustup component add llvm-tools 2> /dev/null
rm -rf "$counts"
# Not by zig, which does not know an argument of the linker's that counting needs.
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$counts" \
	${CARGO:-cargo} build --release --locked --bin anteroom --target "$target" --target-dir "${CARGO_TARGET_DIR:-target}/counting"
# The program would take its commit for a setting.
env -u ANTEROOM_COMMIT python3 -B benches/peers/peers.py --no-install --servers Anteroom --rounds 1 --seconds 1 --out "$counts/peers" \
	--cases hit_1k,hit_12k,hit_200k,gzip,304,miss,pass,http2,connections \
	--anteroom "${CARGO_TARGET_DIR:-target}/counting/$target/release/anteroom" > /dev/null
profdata=$(rustc --print target-libdir)/../bin/llvm-profdata
"$profdata" merge --output "$file" "$counts"/*.profraw
# A profile of a start alone does more harm than good.
total=$("$profdata" show "$file" | sed -n 's/^Total count: //p')
[ "$total" -gt 500000000 ] || { echo "the profile has $total counts, too few: what benches/peers/peers.py says without > /dev/null tells why" >&2; exit 1; }
rm -rf "$counts"
