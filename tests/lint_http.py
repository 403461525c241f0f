"""REDbot, lint for HTTP, run against the proxy as a program: fails on any note of level "bad" without a reason.

Usage: python tests/lint_http.py PROGRAM REPORT. What was noted, all levels, is written to REPORT.
"""

import http.client
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from configparser import ConfigParser
from urllib.parse import urlsplit

import thor
from httplint import HttpResponseLinter, levels
from redbot.resource import HttpResource
from redbot.resource.fetch import RedFetcher, RedHttpClient

# Notes of level "bad" that are right as they are: the case ("*" for all), the note's name, and why.
CORS = "the application's own fields on every answer (rack-cors), which the proxy gives as the application would"
REASONS = [("*", "CORS_PREFLIGHT_ONLY", CORS)]

INBOX = "hmUxdYZ7nFu4KqJ8sT2vWbXc"


class Program:
    """The proxy, on ports that the system chose; it ends with this."""

    def __init__(self, *arguments, **settings):
        addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*arguments, *addresses], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **settings},
        )
        prefix = "listening on "
        self.url = next(line[len(prefix):].strip() for line in self.process.stdout if line.startswith(prefix))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def list(self, contact):
        return f"{self.url}/public/api/v1/inboxes/{INBOX}/contacts/{contact}/conversations"


class Origin(http.server.BaseHTTPRequestHandler):
    """An upstream whose answers say for how long they are fresh."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("if-none-match") == '"a"':
            self.send_response(304)
            self.send_header("cache-control", "max-age=600")
            self.send_header("etag", '"a"')
            self.end_headers()
            return
        body = b"A text that is long enough for a part of it.\n"
        self.send_response(200)
        for name, value in [
            ("cache-control", "max-age=600"),
            ("content-type", "text/plain; charset=utf-8"),
            ("etag", '"a"'),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("accept-ranges", "bytes"),
            ("content-length", str(len(body))),
        ]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def config():
    parser = ConfigParser()
    parser.read_dict({"redbot": {"enable_local_access": "True"}})
    return parser["redbot"]


def redbot(url, headers=(), active=True):
    """What REDbot notes of an answer, and then, if `active`, of the resource, by requests of its own."""
    status, cache_status, notes = fetched(url, headers, active=False)
    if active:
        notes.extend(fetched(url, headers, active=True)[2])
    return status, cache_status, notes


def fetched(url, headers, active):
    # A connection that is kept does not outlive its run of the loop.
    RedFetcher.client = RedHttpClient()
    resource = HttpResource(config(), active_checks_enabled=active)
    resource.set_request(url, headers=list(headers))
    resource.on("check_done", thor.stop)
    resource.check()
    thor.run()
    if resource.fetch_error:
        sys.exit(f"{url}: {resource.fetch_error.desc}")
    response = resource.response
    cache_status = [value for name, value in response.headers.text if name.lower() == "cache-status"]
    notes = list(response.notes)
    for check in resource.subreqs.values() if active else ():
        notes.extend(check.response.notes)
    return int(response.status_code), cache_status[-1], notes


def httplint(url, method):
    """What httplint notes of an answer: REDbot's own requests are all GET."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=10)
    began = time.time()
    connection.request(method, target.path, headers={"user-agent": "lint"})
    answer = connection.getresponse()
    linter = HttpResponseLinter(start_time=began)
    linter.is_head_response = method == "HEAD"
    linter.base_uri = url
    linter.process_response_topline(b"1.1", str(answer.status).encode(), answer.reason.encode())
    linter.process_headers([(name.encode(), value.encode("latin-1")) for name, value in answer.getheaders()])
    linter.feed_content(answer.read())
    linter.finish_content(True)
    connection.close()
    return answer.status, answer.getheader("cache-status"), list(linter.notes)


def cases(program):
    """Each with what the proxy must have answered, so that what is linted is what is meant."""
    with Program(program, "demo", "--no-acts") as demo:
        hit = demo.list("visitor-a")
        origin = ("origin", "https://shop.test")
        yield "miss", redbot(demo.list("visitor-b"), active=False), 200, "fwd=uri-miss"
        redbot(hit, active=False)  # so that the next is none
        yield "hit", redbot(hit), 200, "hit"
        yield "hit for another origin", redbot(hit, [origin]), 200, "hit"
        yield "hit in a coding", redbot(hit, [("accept-encoding", "gzip")], active=False), 200, "hit"
        yield "304", redbot(hit, [("if-none-match", "*")], active=False), 304, "hit"
        yield "error of the upstream", redbot(demo.list("nobody"), [origin]), 404, "fwd=uri-miss"
        yield "pass-through", redbot(hit.removesuffix("/conversations")), 200, "fwd=bypass"
        yield "bypass", redbot(hit, [("cookie", "a=b")]), 200, "fwd=bypass"
        yield "HEAD", httplint(hit, "HEAD"), 200, "hit"
        yield "refusal", httplint(hit, "TRACE"), 405, "detail=method"
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with Program(program, "serve", "--upstream", nobody) as alone:
        yield "error of our own", redbot(alone.list("visitor-a"), [origin]), 502, "detail=connect"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    upstream = f"http://127.0.0.1:{server.server_port}"
    says = {"ANTEROOM_CACHE__TTL": "origin", "ANTEROOM_PAYLOAD__VALIDATE": "off"}
    with Program(program, "serve", "--upstream", upstream, **says) as cache:
        kept = cache.list("visitor-a")
        yield "miss as it says", redbot(kept, active=False), 200, "fwd=uri-miss; fwd-status=200; stored"
        yield "hit as it says", redbot(kept), 200, "hit"
        yield "304 as it says", redbot(kept, [("if-none-match", '"a"')], active=False), 304, "hit"
        yield "part as it says", redbot(kept, [("range", "bytes=2-9")], active=False), 206, "hit"
        yield "no part as it says", redbot(kept, [("range", "bytes=999-")], active=False), 416, "hit"
        yield "HEAD as it says", httplint(kept, "HEAD"), 200, "hit"
    server.shutdown()


def main():
    program, report = sys.argv[1:]
    failed, used = False, set()
    with open(report, "w", encoding="utf-8") as out:
        for case, (status, cache_status, notes), expected, told in cases(program):
            out.write(f"{case}: {status}, {cache_status}\n")
            if status != expected or told not in cache_status:
                failed = True
                print(f"{case}: {status} and \"{cache_status}\", not {expected} and \"{told}\"")
            for note in {(type(note), note.summary): note for note in notes}.values():
                name, level = type(note).__name__, note.level.value
                reason = next((entry for entry in REASONS if entry[0] in (case, "*") and entry[1] == name), None)
                out.write(f"  {level:8} {name}: {note.summary}\n")
                if note.level == levels.BAD and reason:
                    used.add(reason)
                elif note.level == levels.BAD:
                    failed = True
                    print(f"{case}: {name}: {note.summary}\n{note.detail}")
    for case, name, _ in set(REASONS) - used:
        failed = True
        print(f"{case}: {name} is not noted any more: its reason can go")
    sys.exit(failed)


if __name__ == "__main__":
    main()
