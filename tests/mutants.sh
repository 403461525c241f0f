#!/usr/bin/env bash
# Shows that the tests notice: applies each mutation of tests/mutants.txt to a copy of the sources in target/mutants,
# runs the test that is named with it, and fails if one of them still passes. Words on the command line choose
# mutations whose lines hold one of them; MUTANTS_FROM=n begins with the n-th. What each test said is in
# target/mutants/logs, by number.
#
# `it` is built with the modules alone that a test needs, so that a mutation takes seconds; mutations whose tests need
# the same ones follow each other, and their tests must pass before the first of them is applied.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$PWD/target/mutants
# A target directory of its own: cargo would take what was built from a mutation for what is built from the sources.
export CARGO_TARGET_DIR=$tree/target CARGO_PROFILE_DEV_DEBUG=0 RUST_BACKTRACE=0 MODEL_SCHEDULES=${MODEL_SCHEDULES:-4000}
wanted=$(IFS='|'; echo "$*")

rows=0 what=() file=() test=() old=() new=()
while IFS= read -r line || [ -n "$line" ]; do
    case $line in
    '= '*) rows=$((rows + 1)); what[rows]=${line#= } file[rows]='' test[rows]='' old[rows]='' new[rows]='' ;;
    '@ '*) file[rows]=${line#@ } ;;
    '! '*) test[rows]=${line#! } ;;
    '- '*) old[rows]+=${old[rows]:+$'\n'}${line#- } ;;
    '+ '*) new[rows]+=${new[rows]:+$'\n'}${line#+ } ;;
    esac
done < tests/mutants.txt

mkdir -p "$tree/logs"
rm -rf "$tree"/{sources,src,tests,benches,fuzz,stand-in} "$tree"/{tests-of-,logs/}*
mkdir "$tree/sources"
for part in Cargo.toml Cargo.lock build.rs clippy.toml src stand-in tests benches fuzz config dashboards deploy docs compose.yaml; do
    cp -R "$part" "$tree/sources/"
done
cd "$tree"
# `sources` restores what a mutation has changed.
cp -R sources/* .
log=logs/before

# Builds the test binary $1; its path is then in `built`.
build() {
    local which=(--test "$1")
    [ "$1" != lib ] || which=(--lib)
    cargo test --locked "${which[@]}" --no-run >"$log" 2>&1 || return 1
    built=$(sed -n 's/.*Executable .* (\(.*\))/\1/p' "$log")
}

# The tests of the binary that $1 names by "<binary> <filter>": those whose path, or a part of it, begins with the filter.
tests_of() {
    sed -n 's/: test$//p' "tests-of-${1%% *}" | grep -E "(^|::)${1#* }" || true
}

# The modules of `it` that the tests $* need: their own, and whatever these name.
modules_of() {
    local needed more module
    more=$(printf '%s\n' origin support "${@%%::*}" | sort -u)
    while [ "$more" != "${needed:-}" ]; do
        needed=$more
        more=$({ echo "$needed"; for module in $needed; do
            find "sources/tests/it/$module.rs" "sources/tests/it/$module" -name '*.rs' -exec cat {} + 2>/dev/null |
                grep -Eo '(crate|super)::[a-z0-9_]+' | sed 's/.*:://' | grep -Fxf modules || true
        done; } | sort -u)
    done
    echo $needed
}

# What each mutation needs, in an order in which those that need the same follow each other.
sed -n 's/^mod \(.*\);/\1/p' sources/tests/it/main.rs >modules
plan=()
for row in $(seq "$rows"); do
    if [ -n "$wanted" ] && ! grep -Eq "$wanted" <<<"${what[row]} ${file[row]} ${test[row]}"; then continue; fi
    binary=${test[row]%% *} needs=''
    if [ ! -e "tests-of-$binary" ]; then
        build "$binary" || { cat "$log" >&2; exit 1; }
        "$built" --list >"tests-of-$binary"
    fi
    [ "$binary" != it ] || needs=$(modules_of $(tests_of "${test[row]}"))
    plan+=("$binary $needs:$row")
done
mapfile -t plan < <(printf '%s\n' "${plan[@]}" | sort -t: -k1,1 -k2,2n)

# Runs the tests $2 and so on of the binary that was built last, for $1 seconds at most. 124 if they took longer.
run() {
    timeout "$1" "$built" --exact "${@:2}" >"$log" 2>&1 || return
    grep -q '^test result: ok\. [1-9]' "$log"
}

# The verdict on row $1.
judge() {
    local tests
    tests=$(tests_of "${test[$1]}")
    [ -n "$tests" ] || { verdict="NO SUCH TEST"; return; }
    OLD=${old[$1]} NEW=${new[$1]} perl -0pi -e '
        BEGIN { $found = 0 }
        $found = () = /\Q$ENV{OLD}\E/g;
        s/\Q$ENV{OLD}\E/$ENV{NEW}/;
        END { exit($found == 1 ? 0 : 1) }' "${file[$1]}" || { verdict="NOT FOUND"; return; }
    build "${test[$1]%% *}" || { verdict="NOT BUILT"; return; }
    local result=0
    run "$limit" $tests || result=$?
    case $result in
    0) verdict=SURVIVED ;;
    124) verdict="noticed late" ;; # the test waits for what never comes
    *) verdict=noticed ;;
    esac
}

# Builds what $1, a binary and its modules, needs, and runs all its tests without any mutation.
begin() {
    local step tests began
    if [ "${1%% *}" = it ]; then
        { sed '/^mod /,$d' sources/tests/it/main.rs; printf 'mod %s;\n' ${1#* }; } >tests/it/main.rs
    fi
    tests=$(for step in "${plan[@]}"; do [ "${step%:*}" != "$1" ] || tests_of "${test[${step##*:}]}"; done | sort -u)
    if build "${1%% *}"; then
        began=$SECONDS
        if [ -z "$tests" ] || run 900 $tests; then
            limit=$((60 + 5 * (SECONDS - began)))
            return
        fi
    fi
    echo "the tests of \"$1\" fail without any mutation:" >&2
    tail -20 "$log" >&2
    return 1
}

number=0 total=${#plan[@]} judged=0 survivors=0 last=''
for step in "${plan[@]}"; do
    number=$((number + 1)) needs=${step%:*} row=${step##*:}
    [ "$number" -ge "${MUTANTS_FROM:-1}" ] || continue
    judged=$((judged + 1))
    if [ "$needs" != "$last" ]; then
        last=$needs fine=yes log=logs/$number-before
        begin "$needs" || fine=no
    fi
    began=$SECONDS log=logs/$number verdict="FAILS ANYWAY"
    [ "$fine" = no ] || judge "$row"
    [ "${verdict% late}" = noticed ] || survivors=$((survivors + 1))
    printf '%3d/%d  %-12s %4ds  %-72s  %s\n' "$number" "$total" "$verdict" "$((SECONDS - began))" "${what[row]}" "${test[row]#* }"
    cp "sources/${file[row]}" "${file[row]}"
done
echo "$((judged - survivors)) of $judged mutations were noticed, in $((SECONDS / 60)) minutes"
[ "$survivors" -eq 0 ]
