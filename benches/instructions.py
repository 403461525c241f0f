"""Counts instructions of the hit path below callgrind, and compares them with benches/instructions.txt.

    python3 benches/instructions.py BINARY            fails if a count has risen by more than 5 %
    python3 benches/instructions.py BINARY --write    writes the counts down

BINARY is the benchmark `instructions`, as `cargo bench --no-run` builds it. Each case is run twice; the difference of
the two counts, by operation, has nothing of the start in it.

Counts do not depend on what else a machine does, but on the compiler, the C library and what the processor can do: where
these are others than those that the counts were written down with, the counts are shown and nothing is compared.
"""

import os
import platform
import re
import subprocess
import sys

CASES = {
    # Over a connection, from bytes to bytes: most hits, and what passes, with what the client and the upstream take.
    "plain_hit": 400, "passing": 200,
    # Calls: a hit that is not plain, one under `ttl = "origin"`, and parts of it.
    "hit": 400, "as_it_says": 400, "not_modified": 400, "key": 4000, "ledger": 20000, "payload": 60,
}
WRITTEN = os.path.join(os.path.dirname(__file__), "instructions.txt")
ALLOWED = 1.05


def count(binary, case, times):
    """All instructions of one run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, case, str(times)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or not found:
        sys.exit(f"{case} could not be counted:\n{run.stderr[-2000:]}")
    return int(found.group(1))


def where():
    """What counts depend on."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
    has = flags.group(1).split() if flags else []
    can = " ".join(flag for flag in ["avx2", "erms", "fsrm"] if flag in has)
    return f"{rustc}; {' '.join(platform.libc_ver())}; {platform.machine()} {can}"


def read():
    """Where the counts were written down, and the counts."""
    if not os.path.exists(WRITTEN):
        return None, {}
    with open(WRITTEN, encoding="utf-8") as file:
        first, *rest = file.read().splitlines()
    return first, {case: int(number) for case, number in map(str.split, rest)}


def main():
    write, here = "--write" in sys.argv, where()
    (binary,) = (word for word in sys.argv[1:] if word != "--write")
    there, written = read()
    risen, counted = [], {}
    for case, times in CASES.items():
        counted[case] = (count(binary, case, 2 * times) - count(binary, case, times)) // times
        before = written.get(case)
        ratio = counted[case] / before if before else float("nan")
        print(f"{case:14} {counted[case]:9} instructions, {ratio:.3f} of what is written down", flush=True)
        if not ratio <= ALLOWED:
            risen.append(case)
    if write:
        with open(WRITTEN, "w", encoding="utf-8") as file:
            file.writelines([here + "\n"] + [f"{case} {number}\n" for case, number in counted.items()])
    elif here != there:
        print(f"nothing is compared: the counts were written down with {there}, this is {here}")
    elif risen:
        sys.exit(f"more instructions than before: {', '.join(risen)}; if that has to be, write them down with --write")


if __name__ == "__main__":
    main()
