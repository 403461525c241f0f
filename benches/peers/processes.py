"""Processes that the benchmark starts, what they use, and their end."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import time

# All that run. Whoever leaves ends them: by `atexit`, after Ctrl-C and SIGTERM too; and if even that does not come
# about, the kernel tells each (setpriv).
RUNNING = []


class NotMeasured(Exception):
    """Why a figure cannot be had. It is said in the table, and the run goes on."""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(command, cores, **how):
    """Starts it on these cores; its descendants stay there."""
    pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", ",".join(map(str, cores)), *command]
    process = subprocess.Popen(pinned, start_new_session=True, **how)
    RUNNING.append(process)
    return process


def end(process):
    """Ends it with its descendants, gently first."""
    family = {pid: began(pid) for pid in tree(process.pid)}
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            pass
    for pid, moment in family.items():
        # A number may belong to somebody else by now.
        if moment is not None and began(pid) == moment:
            kill(pid)
    process.wait()
    for pipe in [process.stdin, process.stdout]:
        if pipe:
            pipe.close()
    if process in RUNNING:
        RUNNING.remove(process)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_all():
    for process in list(reversed(RUNNING)):
        end(process)


def leave_well(folder):
    """Sees to it that nothing is left, on whatever way the benchmark ends."""

    def told(number, _frame):
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]:
        signal.signal(number, told)
    # The last one named comes first.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(end_all)


def fields(pid):
    """Of /proc/PID/stat, from the state on: the name before it may hold anything."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def parent(pid):
    found = fields(pid)
    return int(found[1]) if found else None


def began(pid):
    """When it was started; with its number that says which process it is."""
    found = fields(pid)
    return int(found[19]) if found else None


def tree(pid):
    """It and its descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(parent(name), []).append(int(name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found if fields(pid) else []


def threads(process):
    """Process and thread, of all its processes."""
    for pid in tree(process.pid):
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                yield pid, int(thread)
        except FileNotFoundError:
            continue


def put_back(process, cores):
    """Puts threads on these cores again that have chosen others themselves."""
    for _, thread in threads(process):
        try:
            if not os.sched_getaffinity(thread) <= set(cores):
                os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            continue


def cpu(process):
    """Nanoseconds that all threads of all its processes have run: the kernel's own account of each."""
    total = 0
    for pid, thread in threads(process):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                total += int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def resident(process):
    """Bytes in memory of all its processes; what they share is counted once (Pss)."""
    total = 0
    for pid in tree(process.pid):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                for line in file:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def available():
    """Bytes of memory that may be had."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise KeyError("MemAvailable")


def wait_until(condition, what, seconds=20, process=None):
    """Asks again and again; a process that has ended, or patience that has, is a reason not to measure."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if process is not None and process.poll() is not None:
            raise NotMeasured(f"{what}: it ended with {process.returncode}")
        if condition():
            return
        time.sleep(0.05)
    raise NotMeasured(f"{what}: not within {seconds} s")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False
