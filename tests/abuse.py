"""Attacks with slow clients on a running proxy, while a well-behaved client measures: `make abuse`.

    abuse.py PROGRAM [REPETITIONS [ATTACK...]]

Each attack is measured against quiet phases of the same run, in turns; what counts is the median of the ratios of p99.
Where there are two cores, the attackers have one for themselves: what they need of a processor to attack is not the proxy's
doing. The well-behaved client comes from ::1, slowhttptest from 127.0.0.1, idle sockets and slow readers from fifty addresses. The
limits are those that the proxy is shipped with: from one address 512 connections are let in. With PER_ADDRESS=8000 in the
environment everybody gets all he asks for.
"""

import itertools
import json
import os
import resource
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

SECONDS = 4
# The most by which the p99 may rise, as a ratio, if it rises by more than the machine's own unrest (milliseconds).
RISE, UNREST = 1.10, 0.5
# Resident memory at its peak, in MiB: what the settings below allow for bodies, and 24 KiB for each connection.
MEMORY = 64 + 10_000 * 24 / 1024
LIST = "/public/api/v1/inboxes/in/contacts/%s/conversations"

SETTINGS = """
upstream.url = "http://127.0.0.1:%(upstream)d"
listen.address = ["127.0.0.1:%(port)d", "[::1]:%(port)d"]
admin.address = "127.0.0.1:%(admin)d"
cache.memory = "32MiB"
cache.fetch_memory = "16MiB"
cache.ttl = "1h"
payload.validate = "off"
limits.connections = 10000
limits.connections_per_address = %(per_address)s
drain.notice = "0s"
drain.deadline = "2s"
log.level = "warn"
"""

NGINX = """
daemon off; pid %(folder)s/nginx.pid; error_log %(folder)s/nginx.log; worker_processes 1;
events { worker_connections 4096; }
http {
    access_log off; default_type application/json; keepalive_requests 1000000; client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/a; fastcgi_temp_path %(folder)s/b; uwsgi_temp_path %(folder)s/c; scgi_temp_path %(folder)s/d;
    server {
        listen 127.0.0.1:%(upstream)d;
        root %(folder)s;
        location ~ contacts/large { try_files /large.json =404; }
        location ~ /conversations$ { error_page 405 =200 /small.json; try_files /small.json =404; }
    }
}
"""


CORES = sorted(os.sched_getaffinity(0))


def start(command, core=CORES[0], **streams):
    """A process on one core: the first for the proxy, its upstream and the well-behaved client, the last for attackers."""
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {core}), **streams)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Proxy:
    def __init__(self, program, folder):
        self.folder = folder
        # nginx's worker is somebody else.
        os.chmod(folder, 0o755)
        self.ports = {"upstream": free_port(), "port": free_port(), "admin": free_port(), "folder": folder}
        self.ports["per_address"] = os.environ.get("PER_ADDRESS", "512")
        one = [{"id": 1, "contact": {"id": 1}, "messages": [], "pad": "x" * 2000}]
        self.write("small.json", json.dumps(one))
        one[0]["pad"] = "x" * (1 << 20)
        self.write("large.json", json.dumps(one))
        nginx = self.write("nginx.conf", NGINX % self.ports)
        settings = self.write("anteroom.toml", SETTINGS % self.ports)
        self.upstream = start(["nginx", "-c", nginx])
        self.process = start([program, "serve", "--config", settings], stdout=subprocess.DEVNULL)

    def fill(self):
        for _ in range(200):
            try:
                self.admin("/ready")
                break
            except OSError:
                time.sleep(0.05)
        # Every list that is hit is there.
        for name in ["hit", "large"]:
            urllib.request.urlopen(self.url(LIST % name)).read()

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def url(self, path, host="[::1]"):
        return f"http://{host}:{self.ports['port']}{path}"

    def admin(self, path, timeout=5):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['admin']}{path}", timeout=timeout) as answer:
            return answer.read().decode()

    def metric(self, name):
        for line in self.admin("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def connections(self):
        return int(self.metric('anteroom_connections{listener="public"}'))

    def memory(self, name):
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) / 1024
        raise KeyError(name)

    def stop(self):
        self.process.terminate()
        ended = self.process.wait(60)
        self.upstream.terminate()
        self.upstream.wait(10)
        return ended


class WellBehaved:
    """Asks for hits and for misses at a steady pace, and notes how long each took."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.asked = 0

    def measure(self):
        # h2load would leave the brackets of an address out of Host.
        uris = {"hit": ["http://front.test" + LIST % "hit"]}
        uris["miss"] = [f"http://front.test{LIST % f'miss-{self.asked + n}'}" for n in range(SECONDS * 100)]
        door = f"--connect-to=[::1]:{self.proxy.ports['port']}"
        self.asked += len(uris["miss"])
        running = {}
        for kind, pace in [("hit", 100), ("miss", 50)]:
            log = os.path.join(self.proxy.folder, kind + ".log")
            open(log, "w").close()
            listed = self.proxy.write(kind + ".txt", "\n".join(uris[kind]) + "\n")
            count = SECONDS * pace * 2
            command = ["h2load", "--h1", door, "-c", "2", "--rps", str(pace), "-n", str(count), "--log-file", log, "-i", listed]
            running[kind] = (start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), log, count)
        took = {}
        for kind, (process, log, count) in running.items():
            process.wait(60)
            with open(log) as lines:
                rows = [line.split("\t") for line in lines]
            good = sorted(int(row[2]) / 1000 for row in rows if row[1] == "200")
            if len(good) != count:
                raise SystemExit(f"only {len(good)} of {count} {kind} requests were answered")
            took[kind] = {"p50": good[len(good) // 2], "p99": good[len(good) * 99 // 100]}
        return took


class Slowhttptest:
    def __init__(self, *arguments):
        self.arguments = arguments

    def start(self, proxy):
        target = proxy.url(LIST % "large", "127.0.0.1")
        command = ["slowhttptest", *self.arguments, "-v", "0", "-l", "600", "-u", target]
        self.process = start(command, CORES[-1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Sockets:
    """So many connections, which say and read what is asked of them; from several addresses."""

    def __init__(self, count, request=b"", reads=0):
        self.count, self.request, self.reads = count, request, reads

    def start(self, proxy):
        self.ended = threading.Event()
        self.sockets = []
        for number in range(self.count):
            one = socket.socket()
            if self.reads:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.bind((f"127.0.{1 + number // 5000}.{1 + number % 50}", 0))
            one.connect(("127.0.0.1", proxy.ports["port"]))
            one.sendall(self.request)
            one.setblocking(False)
            self.sockets.append(one)
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        """Each reads once a second, and not all at the same moment: they do not know of each other."""
        parts = 100
        for part in itertools.cycle(range(parts)):
            if self.ended.wait(1 / parts):
                return
            for one in self.sockets[part::parts] if self.reads else []:
                try:
                    one.recv(self.reads)
                except OSError:
                    pass

    def stop(self):
        self.ended.set()
        self.thread.join()
        for one in self.sockets:
            one.close()


ATTACKS = {
    # What the machine does by itself.
    "no attack": Sockets(0),
    "slow heads (-H)": Slowhttptest("-H", "-c", "2000", "-r", "1000", "-i", "5"),
    "slow bodies (-B)": Slowhttptest("-B", "-c", "2000", "-r", "1000", "-i", "5", "-s", "8192"),
    "ranges (-R)": Slowhttptest("-R", "-c", "2000", "-r", "1000", "-a", "10", "-b", "3000"),
    "slow reading (-X)": Slowhttptest(*"-X -c 2000 -r 1000 -w 512 -y 1024 -n 5 -z 32 -k 3".split()),
    "5,000 idle sockets": Sockets(5000),
    "1,000 slow readers of 1 MB": Sockets(
        1000, (f"GET {LIST % 'large'} HTTP/1.1\r\nhost: h\r\n\r\n").encode(), 64
    ),
}


def settle(proxy):
    """Waits until the attackers have gone."""
    for _ in range(300):
        if proxy.connections() < 10:
            return
        time.sleep(0.1)
    raise SystemExit(f"{proxy.connections()} connections stay open after their clients have gone")


def at_its_height(proxy):
    """Waits until the attackers have stopped coming; gives how many there are. What it costs to let them in is not measured:
    a thousand new connections a second, each with its request, are a load and no slow attack."""
    before, steady = -1, 0
    for _ in range(50):
        time.sleep(0.2)
        now = proxy.connections()
        steady = steady + 1 if now == before else 0
        before = now
        if steady == 5:
            break
    return before


def chosen():
    """All attacks, or those whose names hold a word of the command line."""
    words = sys.argv[3:]
    return {name: attack for name, attack in ATTACKS.items() if not words or any(word in name for word in words)}


def run(proxy, repetitions):
    proxy.fill()
    client = WellBehaved(proxy)
    client.measure()
    failures = []
    print(f"{'attack':28} {'open':>6} {'peak MiB':>8} {'/ready ms':>9}  p99 of hits, of misses: quiet -> attacked (ratio)")
    for name, attack in chosen().items():
        ratios = {"hit": [], "miss": []}
        quiets = {"hit": [], "miss": []}
        attackeds = {"hit": [], "miss": []}
        opened, reached, peak = [], [], 0
        for _ in range(repetitions):
            settle(proxy)
            quiet = client.measure()
            attack.start(proxy)
            open_now = at_its_height(proxy)
            attacked = client.measure()
            began = time.monotonic()
            proxy.admin("/ready", timeout=2)
            proxy.metric("anteroom_ready")
            reached.append((time.monotonic() - began) * 1000)
            opened.append(max(open_now, proxy.connections()))
            attack.stop()
            peak = max(peak, proxy.memory("VmHWM"))
            for kind in ratios:
                ratios[kind].append(attacked[kind]["p99"] / quiet[kind]["p99"])
                quiets[kind].append(quiet[kind]["p99"])
                attackeds[kind].append(attacked[kind]["p99"])
        told = []
        for kind in ratios:
            ratio, quiet, attacked = (statistics.median(all[kind]) for all in (ratios, quiets, attackeds))
            told.append(f"{quiet:.2f} -> {attacked:.2f} ms ({ratio:.2f})")
            if ratio > RISE and attacked - quiet > UNREST:
                failures.append(f"{name}: the p99 of a {kind} rose to {ratio:.2f} of what it was")
        print(f"{name:28} {max(opened):6} {peak:8.0f} {max(reached):9.1f}  {', '.join(told)}", flush=True)
        if peak > MEMORY:
            failures.append(f"{name}: {peak:.0f} MiB of memory, more than {MEMORY:.0f}")
    settle(proxy)
    print(f"{'afterwards':28} {proxy.connections():6} {proxy.memory('VmRSS'):8.0f} MiB resident")
    return failures


def main():
    program, repetitions = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
    # The attackers that are threads of this process are here.
    os.sched_setaffinity(0, {CORES[-1]})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 16_000:
        raise SystemExit(f"ulimit -n allows {hard} files; this needs 16,000")
    folder = tempfile.mkdtemp()
    proxy = Proxy(program, folder)
    try:
        failures = run(proxy, repetitions)
    finally:
        for attack in ATTACKS.values():
            if getattr(attack, "process", None):
                attack.process.kill()
        ended = proxy.stop()
        shutil.rmtree(folder)
    if ended != 0:
        failures.append(f"the proxy ended with {ended}")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


main()
