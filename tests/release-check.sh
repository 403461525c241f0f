#!/bin/sh
# Whether this commit may become a release: versions agree everywhere, nothing is left uncommitted, and the packages hold
# what is tracked and nothing else. Tests and lints are not run here: `make release-check` does both.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
wrong=0
complain() {
	echo "release-check: $1" >&2
	wrong=1
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$version" ] || complain "Cargo.toml has no version"
[ "$(sed -n 's/^version = "\(.*\)"/\1/p' stand-in/Cargo.toml | head -n 1)" = "$version" ] ||
	complain "stand-in/Cargo.toml has another version than Cargo.toml ($version)"
[ "$(sed -n 's/^rust-version = "\(.*\)"/\1/p' stand-in/Cargo.toml)" = "$rust" ] ||
	complain "stand-in/Cargo.toml promises another Rust than Cargo.toml ($rust)"
for name in anteroom anteroom-stand-in; do
	grep -A 1 "^name = \"$name\"\$" Cargo.lock | grep -q "^version = \"$version\"\$" ||
		complain "Cargo.lock has another version of $name than $version"
done
for field in "version: $version" "appVersion: \"$version\""; do
	grep -qxF "$field" deploy/helm/anteroom/Chart.yaml || complain "deploy/helm/anteroom/Chart.yaml does not say $field"
done

# The newest section of the changelog is this version's, with its date.
newest=$(grep -m 1 '^## \[' CHANGELOG.md || true)
case $newest in
"## [$version] - "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]) ;;
*) complain "CHANGELOG.md begins with \"$newest\", not with \"## [$version] - YYYY-MM-DD\"" ;;
esac

# What the program says of itself, and what the help says it is.
$cargo build --quiet --locked
told=$(target/debug/anteroom --version)
case $told in
"anteroom $version" | "anteroom $version "*) ;;
*) complain "anteroom --version says \"$told\", not $version" ;;
esac
description=$(sed -n 's/^description = "\(.*\)"/\1/p' Cargo.toml | cut -c 1-60)
grep -qF "$description" tests/fixtures/help.txt || complain "tests/fixtures/help.txt is of another description"

[ -z "$(git status --porcelain)" ] || complain "the tree is not clean: $(git status --porcelain | head -n 3 | tr '\n' ' ')"

# Each package: its licence and lock are ours to give, and everything in it is in the repository.
for package in anteroom anteroom-stand-in; do
	case $package in anteroom) folder=. ;; *) folder=stand-in ;; esac
	list=$($cargo package --quiet --list --locked --allow-dirty --package "$package")
	for file in $list; do
		case $file in
		Cargo.toml.orig | .cargo_vcs_info.json | Cargo.lock | Cargo.toml) continue ;;
		esac
		git ls-files --error-unmatch "$folder/$file" > /dev/null 2>&1 || complain "$package would hold $file, which is not tracked"
	done
done
for file in LICENSE-MIT LICENSE-APACHE README.md src/main.rs config/anteroom.toml; do
	$cargo package --quiet --list --locked --allow-dirty --package anteroom | grep -qxF "$file" ||
		complain "the package of anteroom lacks $file"
done

[ "$wrong" = 0 ] && echo "release-check: $version may be released once lints and tests have passed"
exit "$wrong"
