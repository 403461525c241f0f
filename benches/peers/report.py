"""What has been measured, as Markdown and as a picture."""

from xml.sax.saxutils import escape

from servers import PEERS

PEER_NAMES = [kind.name for kind in PEERS]
# Cases in the picture, if they were measured.
DRAWN = [("hit_12k", "Hit, 12 KB"), ("gzip", "Hit, gzip"), ("304", "304"), ("pass", "Pass-through")]


def number(value):
    """Three figures, or all of a large one."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|--" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def of_cpu(case, name):
    return case["servers"].get(name, {}).get("median", {}).get("cpu")


def best_peer(case):
    found = [of_cpu(case, name) for name in PEER_NAMES]
    return min((one for one in found if one), default=None)


def ratio(value, to):
    return f"{value / to:.2f}" if value and to else ""


def by_server(servers, head, cells):
    """A row for each server; `cells` gives what stands behind its name, unless it was not measured."""
    rows = []
    for name, figures in servers.items():
        said = "said" in figures
        row = ["not measured: " + figures["said"], *[""] * (len(head) - 2)] if said else cells(figures)
        rows.append([name, *row])
    return table(head, rows)


def timed(case):
    floor, peer = of_cpu(case, "floor"), best_peer(case)

    def cells(figures):
        one = figures["median"]
        return [number(one["cpu"]), ratio(one["cpu"], floor), ratio(one["cpu"], peer), number(one["rate"]),
                number(one["p50"]), number(one["p99"]), number(one["memory"] / (1 << 20)), f"{one['busy']:.2f}",
                f"{one['load_busy']:.2f}"]

    head = ["server", "CPU µs per request", "of the floor", "of the best peer", "requests/s", "p50 µs", "p99 µs",
            "resident MiB", "server busy", "load busy"]
    return by_server(case["servers"], head, cells)


def opened(case):
    floor = case["servers"].get("floor", {}).get("median", {}).get("p99")
    servers = {name: figures if "median" in figures else {"said": "no round ended", **figures}
               for name, figures in case["servers"].items()}

    def cells(figures):
        one = figures["median"]
        return [number(figures["saturation"]), f"{figures['busy']:.2f}", number(one["rate"]), number(one["p50"]),
                number(one["p99"]), ratio(one["p99"], floor)]

    head = ["server", "requests/s at most", "busy then", "requests/s offered", "p50 µs", "p99 µs",
            "p99 of the floor's"]
    return by_server(servers, head, cells)


def two_cores(case):
    def cells(figures):
        one, two = figures["one"], figures["two"]
        return [number(one["rate"]), number(two["rate"]),
                ratio(two["rate"], one["rate"]) if figures["apart"] else "not measured: takes four cores",
                number(one["cpu"]), number(two["cpu"])]

    head = ["server", "requests/s, one core", "two", "ratio", "CPU µs per request, one core", "two"]
    note = "" if all(figures.get("apart", True) for figures in case["servers"].values()) else (
        "\n\nWith fewer than four cores the load shares the second core with the server: requests per second with two "
        "are no measure. Twice the ratio of the CPU times, one core to two, is the most that two could give.")
    return by_server(case["servers"], head, cells) + note


def lists(case):
    def cells(figures):
        few, many = figures["few"], figures["many"]
        return [number(few["cpu"]), number(many["cpu"]), ratio(many["cpu"], few["cpu"]), number(many["p99"]),
                number(many["memory"] / (1 << 20))]

    head = ["server", "CPU µs among few", "among many", "ratio", "p99 µs among many", "resident MiB then"]
    return by_server(case["servers"], head, cells)


def memory(case):
    def cells(figures):
        beyond = f"{figures['beyond']:,.0f}"
        if figures["in_files"]:
            beyond += " (bodies lie in files)"
        account = figures.get("account")
        return [f"{figures['per_list']:,.0f}", beyond, f"{account:,.0f}" if account is not None else "",
                number(figures["resident"] / (1 << 20))]

    head = ["server", "resident bytes per list", "of these beyond the body", "by the store's own account",
            "resident MiB in all"]
    return by_server(case["servers"], head, cells)


def cold(case):
    def cells(figures):
        statuses = ", ".join(f"{status if status != '0' else 'none'}: {count:,}"
                             for status, count in figures["statuses"].items())
        return [f"{figures['upstream']:,}", f"{figures['failed']:,}", statuses, number(figures["longest_ms"])]

    return by_server(case["servers"], ["server", "upstream requests", "readers who failed", "by status", "longest ms"],
                     cells)


def summary(cases):
    """One line for each timed case: CPU time of all."""
    names = []
    for case in cases.values():
        names += [name for name in case["servers"] if name not in names]
    rows = []
    for case in cases.values():
        cells = [number(of_cpu(case, name)) or "-" for name in names]
        own = of_cpu(case, "Anteroom")
        ratios = [ratio(own, other) or "-" for other in (of_cpu(case, "floor"), best_peer(case))]
        rows.append([case["title"], *cells, *ratios])
    return table(["CPU µs per request", *names, "Anteroom of the floor", "of the best peer"], rows)


KINDS = {"timed": timed, "open": opened, "two_cores": two_cores, "lists": lists, "memory": memory, "cold": cold}


def markdown(results):
    about, cases = results["about"], results["cases"]
    out = [
        f"{about['date']}, {about['machine']}, Linux {about['kernel']}; servers on core "
        f"{about['server_cores'][0]}, load and origin on core {about['load_cores'][0]}; medians of {about['rounds']} "
        f"turns of {about['seconds']:g} s; `{about['command']}`",
        table(["server", "version", "set"],
              [[name, about["versions"].get(name, "") or "", about["missing"].get(name) or words]
               for name, words in about["settings"].items()]).replace("--:", "--"),
    ]
    all_timed = {name: case for name, case in cases.items() if case["kind"] == "timed"}
    if all_timed:
        out += ["## In short", summary(all_timed)]
    for case in cases.values():
        body = KINDS[case["kind"]](case) if case["kind"] in KINDS else "Not measured: " + case["said"]
        out += ["## " + case["title"], body]
    return "\n\n".join(out)


STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; } .note { font-size: 12px; fill: #59636e; } .none { fill: #59636e; font-style: italic; }
.bar { fill: #9aa4b0; } .own { fill: #0969da; } .ground { fill: #c9d1d9; } .page { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .note, .none { fill: #9198a1; }
  .bar { fill: #656c76; } .own { fill: #4493f8; } .ground { fill: #3d444d; } .page { fill: #0d1117; }
}
"""
WIDTH, LEFT, ROW, BAR = 720, 120, 22, 15


def picture(results):
    """Bars of CPU time per request; None if no such case was measured."""
    cases = results["cases"]
    drawn = [(title, cases[name]) for name, title in DRAWN if name in cases and any(
        of_cpu(cases[name], server) for server in cases[name]["servers"])]
    if not drawn:
        return None
    parts, y = [], 26
    parts.append(f'<text x="16" y="{y}" class="title">CPU microseconds per request; shorter is better</text>')
    for title, case in drawn:
        y += 34
        parts.append(f'<text x="16" y="{y}" class="title">{escape(title)}</text>')
        y += 8
        y = bars(parts, y, case)
    about = results["about"]
    y += 8
    for note in [f"{about['date']}, {about['machine']}", "one core for each server, 32 connections; make bench-peers"]:
        y += 16
        parts.append(f'<text x="16" y="{y}" class="note">{escape(note)}</text>')
    height = y + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t">'
    label = '<title id="t">CPU time per request of Anteroom and other caches</title>'
    page = f'<rect width="{WIDTH}" height="{height}" rx="6" class="page"/>'
    return "\n".join([head, label, f"<style>{STYLE}</style>", page, *parts, "</svg>", ""])


def bars(parts, y, case):
    longest = max(of_cpu(case, name) or 0 for name in case["servers"])
    for name, figures in case["servers"].items():
        if not of_cpu(case, name) and not name_worth_drawing(figures):
            continue
        y += ROW
        middle = y - 4
        parts.append(f'<text x="{LEFT}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        cpu = of_cpu(case, name)
        if not cpu:
            parts.append(f'<text x="{LEFT + 8}" y="{middle}" class="none">{escape(figures["said"])}</text>')
            continue
        width = (WIDTH - LEFT - 80) * cpu / longest
        kind = "own" if name == "Anteroom" else "bar" if name in PEER_NAMES else "ground"
        parts.append(f'<rect x="{LEFT + 8}" y="{y - BAR}" width="{width:.1f}" height="{BAR}" rx="2" class="{kind}"/>')
        parts.append(f'<text x="{LEFT + 14 + width:.1f}" y="{middle}">{number(cpu)}</text>')
    return y


def name_worth_drawing(figures):
    """A short reason is told in the picture; what asks no origin has no place among those that do."""
    return "said" in figures and figures["said"] != "asks no origin" and len(figures["said"]) < 60
