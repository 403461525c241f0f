"""The servers that are compared: how each is set and started.

What holds for all: one worker thread where there is such a number, access logs off, memory of `setup.memory` for lists,
connections kept alive without end, and one request to the origin for many readers of a cold list where it can be had.
"""

import dataclasses
import os
import shutil
import subprocess

import configurations
from payloads import Payload
from processes import NotMeasured, answers, cpu, end, free_port, put_back, resident, start, wait_until

MIB = 1 << 20


@dataclasses.dataclass
class Setup:
    """What a case asks of all servers."""

    folder: str
    programs: dict
    payload: Payload
    origin: int
    cores: list
    gzip: bool = False
    not_modified: bool = False
    two: bool = False
    passes: bool = False
    memory: int = 256 * MIB
    lists: int = 1000
    connections: int = 2000
    workers: int = 1


class Server:
    """A running server: `port` speaks HTTP/1.1, `port_two` HTTP/2 where it is another."""

    name = ""
    # What it can be asked: bare hyper and the floor keep nothing.
    asks = ("hit", "miss", "pass")
    # Its lists lie in files, so that its resident memory says nothing of them.
    in_files = False
    # It takes all the memory of its cache when it starts.
    takes_all = False
    # HTTP/2 comes to the same port.
    speaks_both = False
    # The cases for which it is started; all, if none is named.
    only = ()
    # What it lacks, by word of its manual.
    lacks = {}
    command = ""
    package = ""

    def __init__(self, setup, mark=""):
        self.setup = setup
        self.folder = os.path.join(setup.folder, "servers", self.name.replace(" ", "-") + mark)
        self.port = free_port()
        self.port_two = self.port if self.speaks_both else free_port()
        # For misses: what has been asked for already.
        self.asked = 10_000_000
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.process = None

    def begin(self):
        words, environment = self.words()
        log = open(os.path.join(self.folder, "log"), "wb")
        whole = dict(os.environ, **environment)
        self.process = start(words, self.setup.cores, env=whole, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        try:
            wait_until(self.is_up, "it did not start", process=self.process)
        except NotMeasured as reason:
            raise NotMeasured(f"{reason}: {self.last_words()}") from reason
        put_back(self.process, self.setup.cores)

    def last_words(self):
        """The end of what it said."""
        with open(os.path.join(self.folder, "log"), errors="replace") as file:
            return " ".join(file.read().split())[-300:].replace("|", "/")

    def is_up(self):
        return answers(self.port)

    def words(self):
        raise NotImplementedError

    def end(self):
        if self.process:
            end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def cpu(self):
        return cpu(self.process)

    def resident(self):
        return resident(self.process)

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def values(self):
        """For the text of a configuration."""
        setup = self.setup
        return {
            "compress": "off", "folder": self.folder, "port": self.port, "port_two": self.port_two, "origin": setup.origin,
            "memory": setup.memory, "mib": setup.memory // MIB, "lists": setup.lists,
            "connections": setup.connections, "files": 2 * setup.connections + 1000,
            "user": "user root;" if os.geteuid() == 0 else "",
        }

    @classmethod
    def program(cls, programs):
        """Where it is; None if it is not installed."""
        return programs.get(cls.name) or shutil.which(cls.command, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


class Floor(Server):
    name = "floor"
    asks = ("hit", "pass")
    lacks = {"http2": "it speaks HTTP/1.1 only"}
    settings = "epoll, one thread, one prepared answer; what passes goes on as it came"

    def words(self):
        if self.setup.passes:
            return [self.setup.programs[self.name], "--to", str(self.setup.origin)], {}
        answer = self.setup.payload.answer(self.setup.gzip, self.setup.not_modified)
        return [self.setup.programs[self.name], self.write("answer", answer)], {}

    def is_up(self):
        return printed_port(self)


class Bare(Server):
    name = "bare hyper"
    asks = ("hit", "pass")
    settings = "one current-thread runtime, moka, jemalloc; what passes goes on by a connection for each of a client's"

    def words(self):
        if self.setup.passes:
            return [self.setup.programs[self.name], "pass", str(self.setup.origin)], {}
        payload = self.setup.payload
        plain, gzipped = self.write("plain", payload.body), self.write("gzipped", payload.gzipped)
        protocol = "h2" if self.setup.two else "h1"
        return [self.setup.programs[self.name], protocol, plain, gzipped, payload.etag], {}

    def is_up(self):
        return printed_port(self)


def printed_port(server):
    """These choose their port themselves and print it first."""
    with open(os.path.join(server.folder, "log")) as file:
        first = file.readline()
    if first.endswith("\n") and first.strip().isdigit():
        server.port = server.port_two = int(first)
        return answers(server.port)
    return False


class Anteroom(Server):
    name = "Anteroom"
    speaks_both = True
    settings = 'TOKIO_WORKER_THREADS=1, payload.validate as it is, log.only = "trouble", cache.ttl = "1h"'

    def __init__(self, setup, mark=""):
        super().__init__(setup, mark)
        self.admin = free_port()

    def words(self):
        text = configurations.ANTEROOM % dict(self.values(), admin=self.admin)
        path = self.write("anteroom.toml", text)
        workers = {"TOKIO_WORKER_THREADS": str(self.setup.workers)}
        return [self.program(self.setup.programs), "serve", "--config", path], workers

    @classmethod
    def program(cls, programs):
        return programs.get("Anteroom")


class AnteroomPacked(Anteroom):
    """The same, with lists kept in zstd: what that costs a hit, and saves."""

    name = "Anteroom zstd"
    only = ("hit_12k", "memory_1k", "memory_12k")
    settings = 'the same with cache.compress = "zstd"'

    def values(self):
        return dict(super().values(), compress="zstd")


class Nginx(Server):
    name, command, package = "nginx", "nginx", "nginx-light"
    in_files = True
    settings = "worker_processes 1, proxy_cache in files, proxy_cache_lock, open_file_cache, sendfile, tcp_nopush"

    def words(self):
        values = self.values()
        values["keys"] = max(10, self.setup.lists // 4000)
        values["gzip"] = "gzip on; gzip_types application/json; gzip_comp_level 6;" if self.setup.gzip else ""
        path = self.write("nginx.conf", configurations.NGINX % values)
        return [self.program(self.setup.programs), "-e", f"{self.folder}/error.log", "-c", path], {}


class Varnish(Server):
    name, command, package = "Varnish", "varnishd", "varnish"
    speaks_both = True
    settings = "one thread pool, malloc storage, no varnishlog; do_gzip in the case gzip only"

    def words(self):
        do_gzip = "set beresp.do_gzip = true;" if self.setup.gzip else ""
        path = self.write("list.vcl", configurations.VARNISH % dict(self.values(), gzip=do_gzip))
        # Its idle readers wait without a thread.
        pool = ["thread_pools=1", "thread_pool_min=100", "thread_pool_max=5000"]
        given = [word for one in [*pool, "timeout_idle=600", "feature=+http2"] for word in ("-p", one)]
        storage = f"malloc,{self.setup.memory}"
        command = [self.program(self.setup.programs), "-F", "-j", "none", "-n", f"{self.folder}/work"]
        return [*command, "-a", f"127.0.0.1:{self.port}", "-f", path, "-s", storage, *given], {}


class Haproxy(Server):
    name, command, package = "HAProxy", "haproxy", "haproxy"
    takes_all = True
    settings = "nbthread 1, cache, Vary taken off (it would keep nothing else), no log"

    def words(self):
        values = self.values()
        # The most that it takes.
        values["mib"] = min(values["mib"], 4095)
        values["largest"] = min(values["mib"] * MIB // 2 - 1, 4 * MIB)
        values["gzip"] = configurations.HAPROXY_GZIP if self.setup.gzip else ""
        path = self.write("haproxy.cfg", configurations.HAPROXY % values)
        return [self.program(self.setup.programs), "-db", "-f", path], {}


class TrafficServer(Server):
    name, command, package = "Traffic Server", "traffic_server", "trafficserver"
    speaks_both = True
    settings = "exec_thread.limit 1, RAM cache before a file, read_while_writer, no log"

    def words(self):
        values = dict(self.values(), storage=max(512 * MIB, 2 * self.setup.memory))
        for name in ["etc", "run", "log", "cache"]:
            os.makedirs(os.path.join(self.folder, "ats", name))
        plugin = "compress.so compress.config\n" if self.setup.gzip else ""
        for name, text in {**configurations.TRAFFIC_SERVER, "plugin.config": plugin}.items():
            self.write(os.path.join("ats/etc", name), text % values)
        root = self.write("ats/runroot.yaml", configurations.RUNROOT % values)
        return [self.program(self.setup.programs), "--run-root=" + root], {}


class Squid(Server):
    name, command, package = "Squid", "squid", "squid"
    lacks = {"http2": "it speaks HTTP/1.1 only", "gzip": "it compresses nothing"}
    settings = "one worker, memory only, collapsed_forwarding, no log"

    def words(self):
        os.chmod(self.folder, 0o777)
        path = self.write("squid.conf", configurations.SQUID % self.values())
        # It would change its user itself, and then the kernel no longer ends it after this process.
        user = ["--reuid", "proxy", "--regid", "proxy", "--clear-groups"] if os.geteuid() == 0 else []
        words = ["setpriv", *user, "--pdeathsig", "TERM"]
        return [*words, self.program(self.setup.programs), "-N", "-f", path], {}


SERVERS = [Floor, Bare, Anteroom, AnteroomPacked, Nginx, Haproxy, Varnish, TrafficServer, Squid]
PEERS = [Nginx, Haproxy, Varnish, TrafficServer, Squid]
