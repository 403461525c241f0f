"""One measurement: a load on a server, and what both used meanwhile."""

import gzip
import http.client
import json
import os
import select
import statistics
import subprocess
import time

import configurations
from payloads import FIELDS, PRIVATE, SHARED
from processes import NotMeasured, answers, end, free_port, start, wait_until

CORS = {
    "access-control-allow-origin": "$allowed",
    "access-control-allow-methods": "$methods",
    "access-control-max-age": "$longest",
}
# Failures are no answers: a figure with more than that share of them is none.
FAILED = 0.001
# Seconds: a million lists may take that long.
PATIENCE = 1800


class Origin:
    """nginx with the lists as files, on the load's core."""

    def __init__(self, folder, program, payloads, cores):
        self.port = free_port()
        self.folder = os.path.join(folder, "origin")
        os.makedirs(self.folder)
        values = {"folder": self.folder, "port": self.port, "user": "user root;" if os.geteuid() == 0 else ""}
        values["locations"] = "\n".join(self.location(one) for one in payloads.values())
        path = os.path.join(self.folder, "nginx.conf")
        with open(path, "w") as file:
            file.write(configurations.ORIGIN % values)
        command = [program, "-e", f"{self.folder}/error.log", "-c", path]
        nothing = {name: subprocess.DEVNULL for name in ["stdin", "stdout", "stderr"]}
        self.process = start(command, cores, **nothing)
        wait_until(lambda: answers(self.port), "the origin did not start", process=self.process)

    def location(self, payload):
        """A list, which may be kept, and messages as an agent reads them, which may not."""
        texts = []
        of_inbox, of_account = "/public/api/v1/inboxes/peers", "/api/v1/accounts/peers"
        for path, control, body in [
            (f"{of_inbox}{payload.name}/contacts/[^/]+/conversations", SHARED, payload.body),
            (f"{of_account}{payload.name}/conversations/[^/]+/messages", PRIVATE, payload.messages),
        ]:
            name = f"{payload.name}.{os.path.basename(path)}.json"
            with open(os.path.join(self.folder, name), "wb") as file:
                file.write(body)
            fields = {**FIELDS, **CORS, "etag": payload.etag, "cache-control": control, "x-request-id": "$request_id"}
            added = " ".join(f"add_header {name} '{value}';" for name, value in fields.items())
            texts.append(f"location ~ ^{path}$ {{ rewrite ^ /{name} break; {added} }}")
        return "\n        ".join(texts)

    def requests(self):
        """How many it has had, but for those that asked this."""
        _, body, _ = get(self.port, "/requests")
        self.asked = getattr(self, "asked", 0) + 1
        return int(body.split()[9]) - self.asked


def get(port, path, fields=None, timeout=20):
    """An answer: status, body as it came, fields."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"host": "bench.test", "accept-encoding": "identity", **(fields or {})})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException) as error:
        raise NotMeasured(f"no answer: {error}") from error
    finally:
        connection.close()


def probe(server, payload, gzipped=False, not_modified=False):
    """That a server answers as the case wants it; the fields that the load has to send."""
    path = payload.path("00000000")
    fields = {"accept-encoding": "gzip"} if gzipped else {}
    if "miss" not in server.asks:
        # It says the same to all, and bare hyper speaks one protocol at a time.
        return dict(fields, **({"if-none-match": payload.etag} if not_modified else {}))
    for _ in range(3):
        # What was asked for first may still be on its way into the store, or being compressed.
        status, body, got = get(server.port, path, fields)
        time.sleep(0.2)
    if gzipped and got.get("content-encoding") != "gzip":
        raise NotMeasured("a hit is not compressed")
    if status != 200 or (gzip.decompress(body) if gzipped else body) != payload.body:
        raise NotMeasured(f"another answer than the origin's, status {status}, {len(body)} bytes")
    if not_modified:
        if "etag" not in got:
            raise NotMeasured("a hit has no ETag")
        fields["if-none-match"] = got["etag"]
        status, body, _ = get(server.port, path, fields)
        if status != 304:
            raise NotMeasured(f"a conditional request is answered {status}")
    return fields


class Load:
    """load.c, once: connected and warm when this returns from `__init__`."""

    def __init__(self, program, port, cores, fields=None, **options):
        words = [f"{name}={value}" for name, value in dict(options, port=port).items()]
        words += [f"field={name}: {value}" for name, value in (fields or {}).items()]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = start([program, *words], cores, **pipes)
        if self.process.stdout.readline() != b"ready\n":
            said = self.process.stderr.read().decode().strip()
            self.end()
            raise NotMeasured(f"the load could not begin: {said}")

    def go(self):
        """Runs; what it has seen."""
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def result(self, seconds=PATIENCE):
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ready:
            raise NotMeasured(f"the load did not end within {seconds} s")
        line = self.process.stdout.readline()
        if not line:
            raise NotMeasured(f"the load broke off: {self.process.stderr.read().decode().strip()}")
        return json.loads(line)

    def end(self):
        self.process.stderr.close()
        end(self.process)


def measure(bench, server, fields=None, **options):
    """Figures of one run; CPU time is the server's, from the first request sent to the last answer read."""
    load = Load(bench.programs["load"], port_for(server, options), bench.load_cores, fields, **options)
    try:
        before, began = server.cpu(), time.monotonic()
        load.go()
        seen = load.result()
        used, took = server.cpu() - before, time.monotonic() - began
    finally:
        load.end()
    if seen["unanswered"] or seen["failed"] > FAILED * max(seen["requests"], 1):
        raise NotMeasured(f"{seen['failed']} of {seen['requests']} requests failed, by status {seen['statuses']}")
    if not seen["requests"] or used <= 0:
        raise NotMeasured("no request was answered")
    return {
        "cpu": used / 1000 / seen["requests"],
        "rate": seen["requests"] / seen["seconds"],
        "p50": seen["p50"],
        "p99": seen["p99"],
        "busy": used / 1e9 / took,
        "load_busy": seen["load_cpu"] / took,
        "memory": server.resident(),
        "requests": seen["requests"],
        "asked": seen["asked"],
        "failed": seen["failed"],
        "reconnects": seen["reconnects"],
    }


def port_for(server, options):
    return server.port_two if options.get("http2") else server.port


def fill(bench, server, payload, count, first=0, fields=None):
    """Asks for so many lists, one after the other, until all have been answered."""
    load = Load(
        bench.programs["load"], server.port, bench.load_cores, fields, path=payload.path(), connections=16, up=1,
        first=first, span=count, requests=count,
    )
    try:
        load.go()
        seen = load.result()
    finally:
        load.end()
    if seen["failed"] > FAILED * count or seen["requests"] < count:
        raise NotMeasured(f"while it was filled, {seen['failed']} of {count} requests failed: {seen['statuses']}")
    return seen


def median(rounds):
    """The middle of each figure."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
