"""Cases that are timed: all servers run side by side and are measured in turns, A B C A B C."""

import dataclasses
import sys
import time

from measure import fill, measure, median, probe
from processes import NotMeasured
from servers import Setup

# So many requests may go to the origin among hits: a thousandth.
STRAY = 0.001


def say(text):
    print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass
class Case:
    """A load, and what must come of it: "hit" asks the origin for nothing, "miss" and "pass" for each answer."""

    title: str
    payload: str = "12k"
    what: str = "hit"
    options: dict = dataclasses.field(default_factory=dict)
    gzip: bool = False
    not_modified: bool = False
    two: bool = False
    # Of each turn; by default one of 32 connections.
    variants: dict = dataclasses.field(default_factory=lambda: {"": {"connections": 32}})

    def run(self, bench, name):
        """Figures by variant and server."""
        running, said = {}, {}
        payload = bench.payloads[self.payload]
        kinds = {"gzip": self.gzip, "not_modified": self.not_modified, "two": self.two, "passes": self.what == "pass"}
        setup = bench.setup(payload, **kinds)
        fields = {}
        for kind in bench.of_case(name):
            if self.what not in kind.asks:
                said[kind.name] = "asks no origin"
                continue
            reason = kind.lacks.get(name) or bench.missing.get(kind.name)
            if reason:
                said[kind.name] = reason
                continue
            server = kind(setup)
            try:
                server.begin()
                fields[server.name] = probe(server, payload, self.gzip, self.not_modified)
                # A list may be kept once more for HTTP/2 (HAProxy does).
                early = {**self.whole(bench, server), "connections": 8, "seconds": 0.2}
                server.asked += measure(bench, server, fields[server.name], **early)["asked"]
                running[server.name] = server
            except NotMeasured as reason:
                said[server.name] = str(reason)
                server.end()
        try:
            return self.turns(bench, name, running, said, fields)
        finally:
            for server in running.values():
                server.end()

    def turns(self, bench, name, running, said, fields):
        rounds = {variant: {} for variant in self.variants}
        for turn in range(bench.rounds):
            for server in list(running.values()):
                told = []
                for variant, options in self.variants.items():
                    try:
                        one = self.once(bench, server, fields[server.name], options)
                        rounds[variant].setdefault(server.name, []).append(one)
                        told.append(f"{one['cpu']:.1f} us")
                    except NotMeasured as reason:
                        said[server.name] = str(reason)
                        running.pop(server.name).end()
                        told.append(str(reason))
                        break
                say(f"{name}, turn {turn + 1} of {bench.rounds}: {server.name}: {', '.join(told)}")
        results = {}
        for variant, of in rounds.items():
            named = name + variant
            title = self.title % options_words(self.variants[variant])
            servers = {}
            for kind in bench.servers:
                if kind.name in said:
                    servers[kind.name] = {"said": said[kind.name]}
                elif kind.name in of:
                    servers[kind.name] = {"median": median(of[kind.name]), "rounds": of[kind.name]}
            results[named] = {"title": title, "kind": "timed", "servers": servers}
        return results

    def whole(self, bench, server):
        """The load's options that are the same in all variants."""
        payload = bench.payloads[self.payload]
        whole = {"path": payload.path(), "status": 304 if self.not_modified else 200, **self.options}
        if self.what != "hit":
            # Each list once, and none twice in all the run.
            whole.update(up=1, first=server.asked, span=50_000_000)
        if self.what == "pass":
            whole["path"] = payload.passed()
        return whole

    def once(self, bench, server, fields, options):
        """One measurement, checked against what the origin has seen."""
        whole = {**self.whole(bench, server), "seconds": bench.seconds, "warm": bench.seconds / 5, **options}
        before = bench.origin.requests()
        one = measure(bench, server, fields, **whole)
        one["upstream"] = bench.origin.requests() - before
        server.asked += one["asked"]
        check(self.what, one)
        return one


def options_words(options):
    """For a title such as "hit, 12 KB, %(connections)s"."""
    count = options["connections"]
    return {"connections": f"{count:,} connection{'' if count == 1 else 's'}"}


def check(what, one):
    share = one["upstream"] / one["asked"]
    if what == "hit" and share > STRAY:
        raise NotMeasured(f"no hits: {one['upstream']} of {one['asked']} requests went to the origin")
    if what != "hit" and share < 1 - STRAY:
        raise NotMeasured(f"only {one['upstream']} of {one['asked']} requests went to the origin")


CONNECTIONS = {"_1": {"connections": 1}, "_32": {"connections": 32}, "_1000": {"connections": 1000}}

TIMED = {
    "hit_1k": Case("Hit, 1 KB, %(connections)s", payload="1k"),
    "hit_12k": Case("Hit, 12 KB, %(connections)s"),
    "hit_200k": Case("Hit, 200 KB, %(connections)s", payload="200k"),
    "gzip": Case("Hit, 12 KB, the client takes gzip, %(connections)s", gzip=True),
    "304": Case("Hit, 304, %(connections)s", not_modified=True),
    "miss": Case("Miss, 12 KB, each list once, %(connections)s", what="miss"),
    "pass": Case("Pass-through, 12 KB of messages, %(connections)s", what="pass"),
    "http2": Case(
        "Hit, 12 KB, HTTP/2 without TLS, 4 streams on each of %(connections)s", two=True,
        options={"http2": 1, "depth": 4}, variants={"": {"connections": 8}},
    ),
    "connections": Case("Hit, 12 KB, %(connections)s", variants=CONNECTIONS),
}


class OpenLoop:
    """Latency where requests do not wait for answers: at 70 % of what each server does at most."""

    title = "Hit, 12 KB, open loop at 70 % of saturation, 64 connections"
    share = 0.7

    def run(self, bench, name):
        payload = bench.payloads["12k"]
        setup = bench.setup(payload)
        servers, result = {}, {"title": self.title, "kind": "open", "servers": {}}
        try:
            for kind in bench.of_case(name):
                self.begin(bench, kind, setup, servers, result)
            for turn in range(bench.rounds):
                for server in list(servers.values()):
                    self.turn(bench, f"{name}, turn {turn + 1} of {bench.rounds}", server, result["servers"], servers)
        finally:
            for server in servers.values():
                server.end()
        for figures in result["servers"].values():
            if figures.get("rounds") and "said" not in figures:
                figures["median"] = median(figures["rounds"])
        return {name: result}

    def begin(self, bench, kind, setup, servers, result):
        """Starts one and finds its saturation."""
        figures = result["servers"].setdefault(kind.name, {})
        if bench.missing.get(kind.name):
            figures["said"] = bench.missing[kind.name]
            return
        server = servers[kind.name] = kind(setup)
        try:
            server.begin()
            probe(server, setup.payload)
            found = [
                measure(bench, server, path=setup.payload.path(), connections=32, seconds=bench.seconds, warm=0.2)
                for _ in range(3)
            ]
            figures.update(saturation=median(found)["rate"], busy=median(found)["busy"], rounds=[])
            say(f"open_loop: {kind.name}: at most {figures['saturation']:.0f} requests/s")
        except NotMeasured as reason:
            figures["said"] = str(reason)
            servers.pop(kind.name).end()

    def turn(self, bench, where, server, results, servers):
        figures = results[server.name]
        rate = self.share * figures["saturation"]
        try:
            path = server.setup.payload.path()
            one = measure(bench, server, path=path, connections=64, seconds=bench.seconds, warm=0.2, rate=rate)
            figures["rounds"].append(one)
            say(f"{where}: {server.name}: p99 {one['p99']:.0f} us at {rate:.0f} requests/s")
        except NotMeasured as reason:
            figures["said"] = str(reason)
            servers.pop(server.name).end()


class TwoCores:
    """Anteroom with two worker threads on two cores against one on one."""

    title = "Hit, 12 KB, 64 connections, one core against two"

    def run(self, bench, name):
        kinds = [kind for kind in bench.servers if kind.name == "Anteroom"]
        result = {"title": self.title, "kind": "two_cores", "servers": {}}
        if not kinds:
            return {name: result}
        reason = bench.missing.get("Anteroom")
        if not reason and len(bench.all_cores) < 2:
            reason = "there is one core"
        if reason:
            result["servers"]["Anteroom"] = {"said": reason}
            return {name: result}
        # With four cores the load has two of its own; else it shares the server's second one.
        apart = len(bench.all_cores) >= 4
        payload, servers, rounds = bench.payloads["12k"], {}, {1: [], 2: []}
        try:
            for workers in rounds:
                setup = bench.setup(payload, workers=workers, cores=bench.all_cores[:workers])
                servers[workers] = kinds[0](setup, f"-{workers}")
                servers[workers].begin()
                probe(servers[workers], payload)
            for turn in range(bench.rounds):
                for workers, server in servers.items():
                    rounds[workers].append(bench.measure_with_two_loads(server, payload, apart))
                    say(f"{name}, turn {turn + 1} of {bench.rounds}: {workers}: {rounds[workers][-1]['rate']:.0f}/s")
            one, two = median(rounds[1]), median(rounds[2])
            result["servers"]["Anteroom"] = {"one": one, "two": two, "apart": apart}
        except NotMeasured as reason:
            result["servers"]["Anteroom"] = {"said": str(reason)}
        finally:
            for server in servers.values():
                server.end()
        return {name: result}


def hold(bench, server, payload, count, first=0):
    """Fills it, and reads all once more: what is not there then is not held."""
    began = time.monotonic()
    fill(bench, server, payload, count, first)
    before = bench.origin.requests()
    fill(bench, server, payload, count, first)
    again = bench.origin.requests() - before
    say(f"{server.name}: {count} lists in {time.monotonic() - began:.0f} s, {again} asked for again")
    if again > STRAY * count:
        raise NotMeasured(f"it does not hold {count:,} lists: {again:,} of them were fetched again")
