"""Anteroom beside other caches, the floor and bare hyper: `make bench-peers`.

    peers.py [--cases hit_12k,304] [--servers Anteroom,nginx] [--rounds 5] [--seconds 2] [--quick] [--out build/peers]

Prints tables as Markdown, and writes figures.json and peers.svg. benches/peers/README.md says what is measured and how.
"""

import argparse
import datetime
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile

import report
from cases import TIMED, OpenLoop, TwoCores, say
from heavy import HEAVY
from measure import Load, Origin
from payloads import SIZES, Payload
from processes import NotMeasured, leave_well
from servers import PEERS, SERVERS, AnteroomPacked, Setup

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CASES = {**TIMED, "open_loop": OpenLoop(), "two_cores": TwoCores(), **HEAVY}


class Bench:
    """What all cases use."""

    def __init__(self, options, folder):
        self.folder = folder
        self.rounds, self.seconds = options.rounds, options.seconds
        self.many, self.kept, self.readers = options.lists, options.kept, options.readers
        self.all_cores = sorted(os.sched_getaffinity(0))
        self.server_cores, self.load_cores = self.all_cores[:1], self.all_cores[1:2] or self.all_cores[:1]
        chosen = [word.lower() for word in options.servers.split(",") if word]
        self.servers = [kind for kind in SERVERS if not chosen or kind.name.lower() in chosen]
        self.payloads = {name: Payload(name) for name in SIZES}
        self.programs, self.missing, self.versions = {}, {}, {}
        self.limit_readers()

    def of_case(self, name):
        """The servers that take part in a case."""
        return [kind for kind in self.servers if not kind.only or name in kind.only]

    def limit_readers(self):
        """A server may need two files for each reader."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        most = (hard - 1000) if hard < 2 * self.readers + 1000 else self.readers
        if most < self.readers:
            say(f"ulimit -n allows {hard} files: {most} readers on a cold list, not {self.readers}")
            self.readers = most

    def setup(self, payload, **how):
        given = {"origin": self.origin.port, "cores": self.server_cores, **how}
        return Setup(folder=self.folder, programs=self.programs, payload=payload, **given)

    def find_programs(self, options):
        """Compiles and installs what is missing. What cannot be had is said; the origin must be had."""
        programs = os.path.join(self.folder, "programs")
        os.makedirs(programs)
        for name in ["load", "floor"]:
            self.programs[name] = os.path.join(programs, name)
            source = os.path.join(HERE, name + ".c")
            subprocess.run(["cc", "-O2", "-Wall", "-o", self.programs[name], source], check=True)
        for name, path in [("Anteroom", options.anteroom), ("bare hyper", options.bare or self.build_bare())]:
            if path and os.access(path, os.X_OK):
                self.programs[name] = os.path.abspath(path)
            else:
                self.missing[name] = f"there is no {path or 'binary'}"
        if "Anteroom" in self.missing:
            self.missing[AnteroomPacked.name] = self.missing["Anteroom"]
        for kind in PEERS:
            if not kind.program({}) and not options.no_install:
                install(kind)
            if not kind.program({}):
                self.missing[kind.name] = "not installed"
        if "nginx" in self.missing:
            raise SystemExit("the origin is an nginx, which is not installed")
        self.versions = {kind.name: version(kind, self.programs) for kind in SERVERS if kind.name not in self.missing}

    def build_bare(self):
        if not any(kind.name == "bare hyper" for kind in self.servers):
            return None
        command = "cargo bench --locked --no-run --bench peers_bare --message-format=json-render-diagnostics".split()
        try:
            built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"bare hyper could not be built: {error}")
            return None
        artifacts = [json.loads(line) for line in built.stdout.splitlines()]
        return next(one["executable"] for one in artifacts if one.get("target", {}).get("name") == "peers_bare")

    def start_origin(self):
        self.origin = Origin(self.folder, PEERS[0].program({}), self.payloads, self.load_cores)

    def measure_with_two_loads(self, server, payload, apart):
        """Requests per second and CPU time while two loads run, each with a core of its own if there are four."""
        cores = [self.all_cores[2:3], self.all_cores[3:4]] if apart else [self.load_cores, self.load_cores]
        how = {"path": payload.path("00000000"), "connections": 32, "seconds": self.seconds, "warm": self.seconds / 5}
        loads = []
        try:
            for of in cores:
                loads.append(Load(self.programs["load"], server.port, of, **how))
            before = server.cpu()
            for load in loads:
                load.go()
            seen = [load.result() for load in loads]
            used = server.cpu() - before
        finally:
            for load in loads:
                load.end()
        requests = sum(one["requests"] for one in seen)
        if not requests or sum(one["failed"] for one in seen):
            raise NotMeasured("requests failed")
        return {"cpu": used / 1000 / requests, "rate": sum(one["requests"] / one["seconds"] for one in seen)}

    def about(self):
        with open("/proc/cpuinfo") as file:
            model = re.search(r"model name\s*: (.*)", file.read())
        return {
            "date": datetime.date.today().isoformat(),
            "machine": f"{model.group(1) if model else platform.machine()}, {len(self.all_cores)} cores",
            "kernel": platform.release(),
            "server_cores": self.server_cores,
            "load_cores": self.load_cores,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "command": " ".join(["python3 -B benches/peers/peers.py", *sys.argv[1:]]),
            "versions": self.versions,
            "settings": {kind.name: kind.settings for kind in self.servers},
            "missing": self.missing,
            "payloads": {name: [len(one.body), len(one.gzipped)] for name, one in self.payloads.items()},
        }


def install(kind):
    """By apt, if this is root; else it stays missing."""
    if os.geteuid() != 0:
        return
    say(f"{kind.name}: installing {kind.package}")
    script = os.path.join(ROOT, "tests/tools.sh")
    subprocess.run(["sh", script, f"{kind.command}:{kind.package}"], stdout=sys.stderr, check=False)


def version(kind, programs):
    if kind.name not in ("Anteroom", AnteroomPacked.name, *(one.name for one in PEERS)):
        return ""
    ask = {"nginx": "-v", "Varnish": "-V", "HAProxy": "-v", "Squid": "-v", "Anteroom": "--version", AnteroomPacked.name: "--version"}.get(kind.name, "-V")
    told = subprocess.run([kind.program(programs), ask], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)*", told.stdout + told.stderr)
    return found.group(0) if found else "of unknown version"


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="some of " + ",".join(CASES))
    parser.add_argument("--servers", default="", help="some of " + ",".join(kind.name for kind in SERVERS))
    parser.add_argument("--rounds", type=int, default=None, help="turns of each case (5)")
    parser.add_argument("--seconds", type=float, default=None, help="of one measurement (2)")
    parser.add_argument("--lists", type=int, default=None, help="in the case lists (1,000,000)")
    parser.add_argument("--kept", type=int, default=None, help="lists in the cases memory_* (100,000)")
    parser.add_argument("--readers", type=int, default=None, help="in the case cold (10,000)")
    parser.add_argument("--quick", action="store_true", help="a short run: 2 rounds of half a second, fewer lists")
    parser.add_argument("--anteroom", default=os.path.join(ROOT, "target/release/anteroom"), help="the binary")
    parser.add_argument("--bare", default=None, help="the binary peers_bare; without it, cargo builds it")
    parser.add_argument("--no-install", action="store_true", help="what is not installed is not measured")
    parser.add_argument("--out", default=os.path.join(ROOT, "build/peers"), help="folder of figures.json and peers.svg")
    options = parser.parse_args()
    defaults = {"rounds": (5, 2), "seconds": (2, 0.5), "lists": (1_000_000, 20_000), "kept": (100_000, 5_000),
                "readers": (10_000, 2_000)}
    for name, (long, short) in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, short if options.quick else long)
    options.cases = [word for word in options.cases.split(",") if word] or list(CASES)
    unknown = [word for word in options.cases if word not in CASES]
    if unknown or options.rounds < 1 or options.seconds <= 0:
        parser.error(f"no such case: {', '.join(unknown)}" if unknown else "at least one round, and some time")
    return options


def main():
    options = parse()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = tempfile.mkdtemp(prefix="bench-peers-")
    # A server's workers may be somebody else.
    os.chmod(folder, 0o755)
    leave_well(folder)
    bench = Bench(options, folder)
    if len(bench.all_cores) < 2:
        say("there is one core: servers and load share it, and only CPU times mean anything")
    bench.find_programs(options)
    bench.start_origin()
    results = {"about": bench.about(), "cases": {}}
    for name in options.cases:
        try:
            results["cases"].update(CASES[name].run(bench, name))
        except NotMeasured as reason:
            results["cases"][name] = {"title": name, "kind": "failed", "said": str(reason), "servers": {}}
        keep(results, options.out)
    print(report.markdown(results))
    say(f"written: {options.out}/figures.json and peers.svg")


def keep(results, out):
    """After each case, so that a run that is broken off has not been for nothing."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "figures.json"), "w") as file:
        json.dump(results, file, indent=1)
    picture = report.picture(results)
    if picture:
        with open(os.path.join(out, "peers.svg"), "w") as file:
            file.write(picture)


if __name__ == "__main__":
    main()
