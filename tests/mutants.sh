#!/usr/bin/env bash
# Shows that the tests notice: applies each mutation of tests/mutants.txt to a copy of the sources in target/mutants,
# runs the test that is named with it, and fails if one of them still passes. Words on the command line choose
# mutations whose lines hold one of them.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tree=$root/target/mutants
# A target directory of its own: cargo would take what was built from a mutation for what is built from the sources.
export CARGO_TARGET_DIR=$tree/target RUST_BACKTRACE=0 MODEL_SCHEDULES=${MODEL_SCHEDULES:-4000}
wanted=$(IFS='|'; echo "$*")

mkdir -p "$tree"
rm -rf "$tree/src" "$tree/tests" "$tree/benches" "$tree/fuzz" "$tree/stand-in"
for part in Cargo.toml Cargo.lock build.rs clippy.toml src stand-in tests benches fuzz config dashboards deploy docs compose.yaml; do
    [ -e "$part" ] && cp -R "$part" "$tree/"
done

# Runs "<binary> <filter>" in the copy. 0 passed, 1 failed, 2 was not built, 3 has no such test.
run_test() {
    local binary=${1%% *} filter=${1#* } log=$tree/log
    local where=(--test "$binary")
    [ "$binary" != lib ] || where=(--lib)
    (cd "$tree" && cargo test --quiet "${where[@]}" --no-run) >"$log" 2>&1 || return 2
    if (cd "$tree" && timeout 300 cargo test --quiet "${where[@]}" -- "$filter") >"$log" 2>&1; then
        grep -Eq '^test result: ok\. [1-9]' "$log" || return 3
        return 0
    fi
    return 1
}

survivors=0 total=0
judge() {
    [ -n "$what" ] || return 0
    if [ -n "$wanted" ] && ! grep -Eq "$wanted" <<<"$what $file $test"; then return 0; fi
    total=$((total + 1))
    local verdict
    cp "$root/$file" "$tree/$file"
    if OLD=${old%$'\n'} NEW=${new%$'\n'} perl -0pi -e '
        BEGIN { $found = 0 }
        $found = () = /\Q$ENV{OLD}\E/g;
        s/\Q$ENV{OLD}\E/$ENV{NEW}/;
        END { exit($found == 1 ? 0 : 1) }' "$tree/$file"; then
        local result=0
        run_test "$test" || result=$?
        case $result in
        0) verdict=SURVIVED ;;
        1) verdict=noticed ;;
        2) verdict="NOT BUILT" ;;
        *) verdict="NO SUCH TEST" ;;
        esac
    else
        verdict="NOT FOUND"
    fi
    [ "$verdict" = noticed ] || survivors=$((survivors + 1))
    printf '%-12s  %-72s  %s\n' "$verdict" "$what" "${test#* }"
    cp "$root/$file" "$tree/$file"
    touch "$tree/$file"
}

# The tests must pass as things are.
for binary in $(grep '^! ' tests/mutants.txt | cut -d' ' -f2 | sort -u); do
    where=(--test "$binary")
    [ "$binary" != lib ] || where=(--lib)
    (cd "$tree" && cargo test --quiet "${where[@]}" -- --skip crowd) >"$tree/log" 2>&1 || {
        echo "the tests of $binary fail without any mutation:" >&2
        tail -20 "$tree/log" >&2
        exit 1
    }
done

what='' file='' test='' old='' new=''
while IFS= read -r line || [ -n "$line" ]; do
    case $line in
    '= '*) judge; what=${line#= } file='' test='' old='' new='' ;;
    '@ '*) file=${line#@ } ;;
    '! '*) test=${line#! } ;;
    '- '*) old+=${line#- }$'\n' ;;
    '+ '*) new+=${line#+ }$'\n' ;;
    esac
done < tests/mutants.txt
judge
echo "$((total - survivors)) of $total mutations were noticed"
[ "$survivors" -eq 0 ]
