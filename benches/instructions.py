"""Counts instructions of the hit path below callgrind, and compares them with benches/instructions.txt.

    python3 benches/instructions.py BINARY            fails if a count has risen by more than 5 %
    python3 benches/instructions.py BINARY --write    writes the counts down

BINARY is the benchmark `instructions`, as `cargo bench --no-run` builds it. Each case is run twice; the difference of
the two counts, by operation, has nothing of the start in it.
"""

import os
import re
import subprocess
import sys

CASES = {"hit": 400, "not_modified": 400, "key": 4000, "ledger": 20000, "payload": 60}
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


def main():
    binary, write = sys.argv[1], "--write" in sys.argv[2:]
    written = {}
    if os.path.exists(WRITTEN):
        with open(WRITTEN, encoding="utf-8") as file:
            written = {case: int(number) for case, number in map(str.split, file)}
    risen, counted = [], {}
    for case, times in CASES.items():
        counted[case] = (count(binary, case, 2 * times) - count(binary, case, times)) // times
        before = written.get(case)
        ratio = counted[case] / before if before else float("nan")
        print(f"{case:14} {counted[case]:9} instructions, {ratio:.3f} of what is written down", flush=True)
        if not write and not ratio <= ALLOWED:
            risen.append(case)
    if write:
        with open(WRITTEN, "w", encoding="utf-8") as file:
            file.writelines(f"{case} {number}\n" for case, number in counted.items())
    if risen:
        sys.exit(f"more instructions than before: {', '.join(risen)}; if that has to be, write them down with --write")


if __name__ == "__main__":
    main()
