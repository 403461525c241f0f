"""Cases that take much memory or many connections: one server at a time."""

import os
import shutil
import subprocess
import sys
import time

from cases import check, hold, say
from measure import Load, fill, get, measure, median, probe
from processes import NotMeasured, available, end, start

MIB = 1 << 20
# Memory that a cache is given for a list beyond its body, and what must be there besides.
BOOKKEEPING, SPARE = 12 * 1024, 1024 * MIB


def room(bench, count, payload):
    """What so many lists may take; less than is there, or the case is not measured."""
    memory = count * (len(payload.body) + BOOKKEEPING)
    if memory + SPARE > available():
        raise NotMeasured(f"{count:,} lists may take {memory // MIB:,} MiB; {available() // MIB:,} MiB are available")
    # nginx keeps a file of at least a block for each.
    if count * (len(payload.body) + 4096) * 1.2 > shutil.disk_usage(bench.folder).free:
        raise NotMeasured(f"{count:,} lists in files do not fit into {bench.folder}")
    return memory


class Each:
    """One cache after the other."""

    kind = ""

    def run(self, bench, name):
        result = {"title": self.titled(bench), "kind": self.kind, "servers": {}}
        for kind in bench.of_case(name):
            if "miss" not in kind.asks:
                continue
            reason = bench.missing.get(kind.name)
            try:
                if reason:
                    raise NotMeasured(reason)
                result["servers"][kind.name] = self.one(bench, kind)
            except NotMeasured as reason:
                result["servers"][kind.name] = {"said": str(reason)}
            say(f"{name}: {kind.name}: {shown(result['servers'][kind.name])}")
        return {name: result}


def shown(figures):
    return ", ".join(f"{name} {one:.1f}" if isinstance(one, float) else f"{name} {one}"
                     for name, one in figures.items() if not isinstance(one, (dict, list)))


class Lists(Each):
    """A hit on any of few lists against one on any of many: two of the same server, in turns."""

    kind = "lists"
    few = 100

    def titled(self, bench):
        size = len(bench.payloads["tiny"].body)
        return f"Hit on any of {bench.many:,} lists against any of {self.few}, {size} bytes each, 32 connections"

    def one(self, bench, kind):
        payload = bench.payloads["tiny"]
        memory = room(bench, bench.many, payload)
        small = kind(bench.setup(payload), "-few")
        large = kind(bench.setup(payload, memory=memory, lists=bench.many), "-many")
        rounds = {small: [], large: []}
        try:
            for server, count in [(small, self.few), (large, bench.many)]:
                server.begin()
                probe(server, payload)
                hold(bench, server, payload, count)
            for _ in range(bench.rounds):
                for server, count in [(small, self.few), (large, bench.many)]:
                    rounds[server].append(self.turn(bench, server, count))
            few, many = median(rounds[small]), median(rounds[large])
            return {"few": few, "many": many, "ratio": many["cpu"] / few["cpu"], "lists": bench.many}
        finally:
            small.end()
            large.end()

    def turn(self, bench, server, count):
        before = bench.origin.requests()
        path = server.setup.payload.path()
        one = measure(bench, server, path=path, span=count, connections=32, seconds=bench.seconds, warm=0.3)
        one["upstream"] = bench.origin.requests() - before
        check("hit", one)
        return one


class Memory(Each):
    """Resident memory that lists take beyond their bodies."""

    kind = "memory"

    def __init__(self, size):
        self.size = size

    def titled(self, bench):
        return f"Resident memory of {bench.kept:,} lists of {len(bench.payloads[self.size].body):,} bytes"

    def one(self, bench, kind):
        if kind.takes_all:
            raise NotMeasured("it takes all the memory of its cache when it starts")
        payload, count = bench.payloads[self.size], bench.kept
        memory = room(bench, count, payload)
        server = kind(bench.setup(payload, memory=memory, lists=count + 1000))
        try:
            server.begin()
            probe(server, payload)
            # Connections and whatever is made at the first request are there before.
            fill(bench, server, payload, 200, first=90_000_000)
            before, account = settled(server), held(server)
            hold(bench, server, payload, count)
            after = settled(server)
            told = {"per_list": (after - before) / count, "resident": after, "body": len(payload.body)}
            told["in_files"] = kind.in_files
            told["beyond"] = told["per_list"] - (0 if kind.in_files else len(payload.body))
            if account is not None:
                told["account"] = (held(server) - account) / count - len(payload.body)
            return told
        finally:
            server.end()


def settled(server):
    """Its resident memory, once it hardly changes."""
    last = server.resident()
    for _ in range(10):
        time.sleep(1.5)
        found = server.resident()
        if abs(found - last) < 0.002 * last:
            break
        last = found
    return found


def held(server):
    """Anteroom's own account of its store."""
    if not hasattr(server, "admin"):
        return None
    _, body, _ = get(server.admin, "/metrics")
    for line in body.decode().splitlines():
        if line.startswith("anteroom_cache_bytes "):
            return float(line.split()[1])
    return None


class Cold(Each):
    """Many readers ask at once for a list that nobody has."""

    kind = "cold"

    def titled(self, bench):
        return f"{bench.readers:,} readers at once of a list that is not there, origin thinks for half a second"

    def one(self, bench, kind):
        payload = bench.payloads["12k"]
        body = os.path.join(bench.folder, "cold.json")
        with open(body, "wb") as file:
            file.write(payload.body)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow_origin.py")
        origin = start([sys.executable, "-B", script, body], bench.load_cores, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE)
        server = None
        try:
            port = int(origin.stdout.readline())
            server = kind(bench.setup(payload, origin=port, connections=bench.readers + 200))
            server.begin()
            return self.rush(bench, server, payload, port)
        finally:
            if server:
                server.end()
            end(origin)

    def rush(self, bench, server, payload, port):
        load = Load(bench.programs["load"], server.port, bench.load_cores, path=payload.path("00000000"),
                    connections=bench.readers, requests=bench.readers)
        try:
            load.go()
            seen = load.result()
        finally:
            load.end()
        _, told, _ = get(port, "/requests", timeout=60)
        return {
            "upstream": int(told),
            "readers": seen["requests"],
            "failed": seen["failed"] + seen["unanswered"],
            "statuses": seen["statuses"],
            "longest_ms": seen["longest"] / 1000,
        }


HEAVY = {"lists": Lists(), "cold": Cold(), "memory_1k": Memory("1k"), "memory_12k": Memory("12k")}
