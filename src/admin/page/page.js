// The status page: asks /status while it is looked at, and makes rates from the differences of its counters.

import { Chart, element } from "./charts.js";
import * as words from "./words.js";

// Milliseconds between two questions, after an answer and without one, and how long an answer may take.
const PACE = 1000;
const RETRY = 2000;
const PATIENCE = 5000;
// Seconds over which rates of charts and of tables are made, and figures at a glance.
const SMOOTH = 5;
const AWHILE = 10;
const MINUTE = 60;
// Longer than this between two answers is a gap, not a slope.
const GAP = 8;
const LONGEST = 300;
const FROM_MEMORY = ["hit", "stale", "joined"];
const LISTS = [...FROM_MEMORY, "miss", "bypass"];

const byId = (id) => document.getElementById(id);
const write = (id, text) => {
  const target = byId(id);
  if (target.textContent !== text) target.textContent = text;
};

// --- Numbers for people ---

const count = (number) => Math.round(number).toLocaleString("en");
const rate = (value) => (value >= 100 ? count(value) : value.toFixed(value >= 10 || value === 0 ? 0 : 1));
const percent = (value) => `${(value * 100).toFixed(value > 0.995 && value < 1 ? 1 : 0)} %`;

function amount(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const step = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** step;
  return `${value.toFixed(step === 0 || value >= 100 ? 0 : 1)} ${units[step]}`;
}

function time(seconds) {
  const [value, unit] = seconds < 1e-3 ? [seconds * 1e6, "µs"] : seconds < 1 ? [seconds * 1e3, "ms"] : [seconds, "s"];
  return `${value >= 10 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${unit}`;
}

function lasting(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first < 0) return "0 s";
  let left = seconds;
  return parts.slice(first, first + 2).map(([length, unit]) => {
    const whole = Math.floor(left / length);
    left -= whole * length;
    return `${whole} ${unit}`;
  }).join(" ");
}

const ago = (seconds) => (seconds === null ? "never" : `${lasting(seconds)} ago`);
const clock = (date) => date.toLocaleTimeString("en-GB");

// --- What has been answered ---

/** Answers of the last minute, and points of the charts of the last five; both begin anew with another process. */
let answers = [];
let points = [];
let failedSince = null;

const sum = (counts, keys = Object.keys(counts)) => keys.reduce((all, key) => all + (counts[key] ?? 0), 0);

/** The answer to compare the last one with: about so many seconds before it. */
function before(seconds) {
  const last = answers.at(-1);
  const within = answers.slice(0, -1).filter((answer) => answer.uptime_s >= last.uptime_s - seconds - 0.5);
  return within[0] ?? null;
}

/** What a counter has grown by a second. */
function perSecond(since, of) {
  if (!since) return null;
  const last = answers.at(-1);
  return Math.max(0, of(last) - of(since)) / (last.uptime_s - since.uptime_s);
}

const hitRatio = (since) => {
  if (!since) return null;
  const grown = (keys) => sum(answers.at(-1).requests, keys) - sum(since.requests, keys);
  const lists = grown(LISTS);
  return lists > 0 ? grown(FROM_MEMORY) / lists : null;
};

/** A quantile of what came since then, by interpolation within its bucket as Prometheus does it. */
function quantile(share, since, of, outcomes) {
  if (!since) return null;
  const { bounds_s: bounds } = of(answers.at(-1));
  const counts = [...bounds, 0].map((_, at) =>
    sum(Object.fromEntries(outcomes.map((name) => {
      const [now, then] = [of(answers.at(-1)), of(since)].map(({ counts }) => counts[name]?.[at] ?? 0);
      return [name, now - then];
    }))));
  const all = counts.reduce((all, one) => all + one, 0);
  if (all === 0) return null;
  let left = share * all;
  for (let at = 0; at < bounds.length; at += 1) {
    if (left <= counts[at]) {
      const low = at === 0 ? 0 : bounds[at - 1];
      return low + (bounds[at] - low) * (left / counts[at]);
    }
    left -= counts[at];
  }
  return bounds.at(-1);
}

const requestsOf = (answer) => sum(answer.requests);
const upstreamOf = (answer) => sum(answer.upstream.requests);
const latencyOf = (answer) => answer.latency;

function remember(answer) {
  const last = answers.at(-1);
  if (last && answer.uptime_s <= last.uptime_s) [answers, points] = [[], []];
  else if (last && answer.uptime_s - last.uptime_s > GAP) {
    // Nobody looked: what happened meanwhile belongs to no moment.
    answers = [];
    points.push({ ...nothing, t: answer.uptime_s - 0.01 });
  }
  answers.push(answer);
  answers = answers.filter(({ uptime_s: t }) => t >= answer.uptime_s - MINUTE - 2);
  const [smooth, awhile] = [before(SMOOTH), before(AWHILE)];
  if (!smooth) return;
  const of = (share, outcomes) => quantile(share, awhile, latencyOf, outcomes);
  points.push({
    t: answer.uptime_s,
    requests: perSecond(smooth, requestsOf),
    upstream: perSecond(smooth, upstreamOf),
    ratio: hitRatio(awhile),
    hit: of(0.5, ["hit", "stale"]),
    hit99: of(0.99, ["hit", "stale"]),
    miss: of(0.5, ["miss", "joined"]),
    miss99: of(0.99, ["miss", "joined"]),
  });
  points = points.filter(({ t }) => t >= answer.uptime_s - LONGEST - 1);
}

const nothing = { requests: null, upstream: null, ratio: null, hit: null, hit99: null, miss: null, miss99: null };

// --- Tables that are filled again and again, without moving what somebody reads ---

/** `rows` are `[key, text, ...cells]`; a cell is a text, or `{ share }` for a bar. */
function fill(place, name, { caption, heads = [], rows, nothing: none }) {
  let table = place.querySelector(`[data-name="${name}"]`);
  if (!table) {
    table = element("table", { "data-name": name });
    place.append(table);
  }
  const shape = JSON.stringify([caption, heads, rows.map(([key, , ...cells]) => [key, cells.length])]);
  if (table.dataset.shape !== shape) {
    table.dataset.shape = shape;
    const head = heads.length === 0 ? [] : [element("thead", {}, element("tr", {}, ...heads.map((text) =>
      element("th", { scope: "col" }, text))))];
    const body = rows.map(([, , ...cells]) => element("tr", {}, element("th", { scope: "row" }), ...cells.map((cell) =>
      element("td", typeof cell === "object" ? { class: "share", "aria-hidden": "true" } : {}))));
    const empty = rows.length === 0 ? [element("tr", { class: "none" }, element("td", { class: "nothing" }, none ?? "None"))] : [];
    table.replaceChildren(...(caption ? [element("caption", {}, caption)] : []), ...head,
      element("tbody", {}, ...body, ...empty));
  }
  rows.forEach(([, text, ...cells], at) => {
    const row = table.tBodies[0].rows[at];
    row.classList.toggle("none", cells[0] === "0");
    [text, ...cells].forEach((cell, column) => {
      const target = row.cells[column];
      if (typeof cell !== "object") {
        // A word of the metrics and the log has its meaning beside it; what is set may hold any character.
        const [word, meaning] = column === 0 ? cell.split("|") : [cell];
        if (target.dataset.told === cell) return;
        target.dataset.told = cell;
        target.replaceChildren(word, ...(meaning ? [element("span", {}, meaning)] : []));
        return;
      }
      if (!target.firstChild) target.append(element("div", {}, element("i")));
      const bar = target.firstChild.firstChild;
      bar.hidden = !(cell.share > 0);
      bar.style.width = `${Math.min(100, cell.share * 100)}%`;
    });
  });
}

/** Rows of counters: since the start, a second, and as a share of all; the largest first where `sorted`. */
function counters(of, names, { all = false } = {}) {
  const last = of(answers.at(-1));
  const since = before(AWHILE);
  const whole = sum(last);
  const known = Object.keys(names).filter((key) => key in last);
  const keys = [...known, ...Object.keys(last).filter((key) => !known.includes(key))];
  const told = all ? keys : keys.filter((key) => last[key] > 0);
  return told.map((key) => {
    const now = perSecond(since, (answer) => of(answer)[key] ?? 0);
    return [key, names[key] ?? key, count(last[key]), now ? `${rate(now)}/s` : "", { share: whole && last[key] / whole }];
  });
}

const facts = (place, text) => {
  let target = place.querySelector(".facts");
  if (!target) {
    target = element("p", { class: "facts" });
    place.prepend(target);
  }
  if (target.textContent !== text) target.textContent = text;
};

// --- The page ---

const charts = [
  new Chart(byId("chart-requests"), {
    title: "Requests a second",
    scale: "linear",
    format: rate,
    series: [
      { name: "of clients", style: "first", area: true, of: ({ requests }) => requests },
      { name: "to the upstream", style: "second", of: ({ upstream }) => upstream },
    ],
  }),
  new Chart(byId("chart-ratio"), {
    title: "Lists that did not need the upstream",
    scale: "percent",
    format: percent,
    series: [{ name: "hit ratio", style: "first", area: true, of: ({ ratio }) => ratio }],
  }),
  new Chart(byId("chart-latency"), {
    title: "Latency of lists",
    scale: "log",
    format: time,
    series: [
      { name: "hits", style: "first", of: ({ hit }) => hit },
      { name: "p99", style: "first thin", of: ({ hit99 }) => hit99 },
      { name: "misses", style: "second", of: ({ miss }) => miss },
      { name: "p99", style: "second thin", of: ({ miss99 }) => miss99 },
    ],
  }),
];

function big(id, text, unit = "") {
  const shown = text ?? "–";
  const target = byId(id);
  if (target.dataset.shown === shown + unit) return;
  target.dataset.shown = shown + unit;
  target.replaceChildren(shown, ...(text !== null && unit ? [element("span", {}, unit)] : []));
}

function bigTime(id, seconds) {
  const [value, unit] = seconds === null ? [null, ""] : time(seconds).split(" ");
  big(id, value, unit);
}

function tiles(answer) {
  const minute = before(MINUTE);
  const awhile = before(AWHILE);
  const ratio = hitRatio(minute);
  big("tile-hits", ratio === null ? null : percent(ratio).slice(0, -2), "%");
  const [requests, upstream] = [perSecond(awhile, requestsOf), perSecond(awhile, upstreamOf)];
  big("tile-requests", requests === null ? null : rate(requests), "/s");
  write("tile-requests-more", `of clients; ${count(requestsOf(answer))} in all`);
  big("tile-upstream", upstream === null ? null : rate(upstream), "/s");
  const spared = requests ? 1 - upstream / requests : 0;
  write("tile-upstream-more", spared > 0 ? `${percent(spared)} fewer than came` : `${count(upstreamOf(answer))} in all`);
  for (const [id, outcomes] of [["hit", ["hit", "stale"]], ["miss", ["miss", "joined"]]]) {
    bigTime(`tile-${id}`, quantile(0.5, minute, latencyOf, outcomes));
    const slow = quantile(0.99, minute, latencyOf, outcomes);
    write(`tile-${id}-more`, slow === null ? "none within a minute" : `median; p99 ${time(slow)}`);
  }
  const { bytes, limit_bytes: limit, entries } = answer.cache;
  const [value, unit] = amount(bytes).split(" ");
  big("tile-cache", value, unit);
  write("tile-cache-more", `of ${amount(limit)}; ${count(entries)} ${entries === 1 ? "list" : "lists"}`);
  byId("tile-cache-gauge").firstChild.style.width = `${limit ? Math.max(bytes > 0 ? 0.5 : 0, (bytes / limit) * 100) : 0}%`;
}

function upstreamPanel({ upstream }) {
  const place = byId("upstream");
  const { failing_for_s: failing, left_alone: alone, last_error: error } = upstream;
  const works = upstreamOf(answers.at(-1)) > 0 ? "Answers." : "Nothing was asked of it yet.";
  facts(place, failing === null ? works : `Has failed for ${lasting(failing)}.${alone ? " Left alone, but for one request a second." : ""}`);
  let words_ = place.querySelector(".words");
  if (error && !words_) {
    words_ = element("p", { class: "words" }, element("span"), element("time"));
    place.querySelector(".facts").after(words_);
  }
  if (error) {
    words_.classList.toggle("now", failing !== null);
    const [told, when] = words_.children;
    const text = error.status ? `${error.words} (${error.status})` : error.words;
    if (told.textContent !== text) told.textContent = text;
    when.textContent = `${failing === null ? "Last error, " : ""}${ago(error.ago_s)}${error.class ? ` · ${error.class}` : ""}`;
  }
  fill(place, "results", { rows: counters(({ upstream }) => upstream.requests, words.RESULTS), nothing: "No requests yet" });
  const of = ({ upstream }) => upstream.latency;
  const told = (phase) => [0.5, 0.99].map((share) => {
    const value = quantile(share, before(MINUTE), of, [phase]);
    return value === null ? "–" : time(value);
  });
  const rows = [["head", "until the head", ...told("head")], ["whole", "until the end", ...told("whole")]];
  fill(place, "latency", { heads: ["Its answers, within a minute", "median", "p99"], rows });
  const spared = sum(upstream.spared);
  const left = upstream.addresses.left_out ?? 0;
  const more = [];
  if (spared > 0) more.push(["spared", "requests it was spared", count(spared)]);
  if (left > 0) more.push(["left", "addresses left out", `${left} of ${left + upstream.addresses.used}`]);
  if (more.length > 0 || place.querySelector('[data-name="more"]')) fill(place, "more", { rows: more, nothing: "" });
}

function webhooksPanel({ webhooks }) {
  const place = byId("webhooks");
  const [state, why] = words.EVENTS[webhooks.state] ?? [webhooks.state, ""];
  const since = webhooks.silent_for_s === null ? "" : ` for ${lasting(webhooks.silent_for_s)}`;
  const last = webhooks.last_ago_s === null ? "" : ` The last one came ${ago(webhooks.last_ago_s)}.`;
  facts(place, `${state}${since}.${last}${why ? ` ${why}` : ""}`);
  const known = Object.keys(words.WEBHOOKS);
  const keys = [...known, ...Object.keys(webhooks.results).filter((key) => !known.includes(key))];
  const rows = keys.filter((key) => webhooks.results[key]?.count > 0).map((key) => {
    const { count: all, ago_s: when } = webhooks.results[key];
    return [key, words.WEBHOOKS[key] ?? key, count(all), ago(when)];
  });
  if (webhooks.state !== "off" || rows.length > 0) {
    const heads = rows.length > 0 ? ["What came of them", "count", "last"] : [];
    fill(place, "results", { heads, rows, nothing: "None has come" });
  }
  const overheard = sum(webhooks.overheard);
  if (overheard > 0) {
    const outdated = count(webhooks.overheard.outdated ?? 0);
    fill(place, "overheard", { rows: [["all", "messages overheard in WebSockets", count(overheard)], ["outdated", "of these put lists out of date", outdated]] });
  }
}

function roomPanel(answer) {
  const { in_flight: flight, cache, fetches, limits_reached: reached } = answer;
  const { limits } = flight;
  const row = (key, text, used, limit, told) => [key, text, `${told(used)} of ${told(limit)}`, { share: limit ? used / limit : 0 }];
  fill(byId("room"), "used", {
    rows: [
      row("cache", "lists", cache.bytes, cache.limit_bytes, amount),
      row("bodies", "bodies", cache.body_bytes, cache.body_limit_bytes, amount),
      row("fetches", "upstream", answer.upstream.in_flight, limits.upstream_in_flight, count),
      row("waiters", "waiting", flight.waiters, limits.waiters, count),
      row("requests", "requests", flight.requests, limits.requests, count),
      row("connections", "connections", flight.connections, limits.connections, count),
    ],
  });
  const tunnels = [["tunnels", "WebSockets", count(flight.tunnels)], ["flights", "shared fetches", count(fetches.under_way)]];
  fill(byId("room"), "more", { rows: tunnels });
  const gone = Object.entries(cache.evictions).filter(([, number]) => number > 0);
  fill(byId("room"), "gone", {
    caption: "Lists that left the memory",
    rows: gone.map(([key, number]) => [key, words.CAUSES[key] ?? key, count(number)]),
  });
  fill(byId("room"), "reached", {
    caption: "Limits that were reached",
    rows: Object.entries(reached).map(([key, number]) => [key, key, count(number)]),
  });
}

function contractPanel({ contract }) {
  const place = byId("contract");
  fill(place, "lists", { rows: counters(({ contract }) => contract.lists, words.LISTS), nothing: "No list yet" });
  const largest = [...contract.violations].sort((a, b) => b.count - a.count).slice(0, 20);
  fill(place, "violations", {
    caption: "What differs, by field",
    rows: largest.map(({ field, kind, count: number }) => [`${field} ${kind}`, `${field}: ${words.KINDS[kind] ?? kind}`, count(number)]),
  });
}

function settingsTable({ settings }) {
  const all = byId("settings-all").checked;
  const shown = settings.filter(({ value, origin, after_restart: later }) => all || later || (value !== null && origin !== "default"));
  const rows = shown.map(({ name, value, origin, after_restart: later }) =>
    [name, name, value ?? "not set", `${origin ?? ""}${later ? ` · after a restart: ${later}` : ""}`]);
  const none = settings.length === 0 ? "Nobody has told them" : "All are as by default";
  fill(byId("settings"), "all", { heads: ["Name", "Value", "From"], rows, nothing: none });
}

/** What is wrong now, each in a line. */
function alarms(answer) {
  const told = [];
  const { upstream, webhooks } = answer;
  if (!answer.ready) told.push(["drains", "", "The proxy is told to stop: it answers what is under way."]);
  if (upstream.failing_for_s !== null) {
    const alone = upstream.left_alone ? " It is left alone, but for one request a second." : "";
    told.push(["upstream", "bad", `${upstream.last_error.words}.${alone}`]);
  }
  if (webhooks.state === "silent") told.push(["webhooks", "", "Webhooks are silent: a message must have caused one, and none came."]);
  if (answer.panics > 0) told.push(["panics", "bad", `${count(answer.panics)} faults of the program: the log has the place.`]);
  if (answer.log_lines_lost > 0) told.push(["log", "", `${count(answer.log_lines_lost)} lines of the log were lost: standard error is not read, or too slowly.`]);
  const waiting = answer.settings.filter(({ after_restart: later }) => later).map(({ name }) => name);
  if (waiting.length > 0) told.push(["restart", "", `Wait for a restart: ${waiting.join(", ")}.`]);
  showAlarms(told);
  return told;
}

function showAlarms(told) {
  const place = byId("alarms");
  for (const shown of [...place.children]) if (!told.some(([key]) => key === shown.dataset.key)) shown.remove();
  for (const [key, kind, text] of told) {
    const shown = [...place.children].find((child) => child.dataset.key === key);
    if (!shown) place.append(element("p", { class: `alarm ${kind}`, "data-key": key }, text));
    else if (shown.textContent !== text) shown.textContent = text;
  }
}

function state(name, text) {
  document.body.dataset.state = name;
  write("state", text);
  document.title = `${text} · Anteroom`;
}

function show(answer) {
  write("about-upstream", answer.upstream.address);
  write("about-uptime", lasting(answer.uptime_s));
  write("about-version", `${answer.version} (${answer.commit})`);
  write("pace", `Counts are since the start, ${new Date(answer.started * 1000).toLocaleString("en-GB")}.`);
  const told = alarms(answer);
  const first = { drains: "Draining", upstream: "Upstream fails", webhooks: "Webhooks silent" };
  if (told.length === 0) state("ready", "Ready");
  else state(told.some(([, kind]) => kind === "bad") ? "failing" : "trouble", first[told[0][0]] ?? "Ready, with a warning");
  tiles(answer);
  for (const chart of charts) chart.show(points);
  upstreamPanel(answer);
  fill(byId("requests"), "all", { rows: counters(({ requests }) => requests, words.OUTCOMES), nothing: "No requests yet" });
  webhooksPanel(answer);
  fill(byId("fetches"), "all", { rows: counters(({ fetches }) => fetches.ends, words.ENDS), nothing: "No fetch yet" });
  fill(byId("bypass"), "all", { rows: counters((answer) => answer.not_shared, words.REASONS), nothing: "All lists were shared" });
  fill(byId("outdated"), "all", { rows: counters((answer) => answer.out_of_date_by, words.SOURCES), nothing: "Nothing has changed yet" });
  roomPanel(answer);
  contractPanel(answer);
  settingsTable(answer);
}

// --- Asking ---

let timer = null;

/** What the proxy answers; null if it does not. */
async function answered() {
  try {
    const response = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

function showSilence() {
  failedSince ??= new Date();
  state("silent", "No answer");
  const text = `The proxy has not answered since ${clock(failedSince)}. What is below is from before; this page goes on asking.`;
  showAlarms([["silent", "bad", text]]);
}

async function ask() {
  timer = null;
  const answer = await answered();
  // Whatever is wrong with this page, it goes on asking.
  plan(answer ? PACE : RETRY);
  if (!answer) return showSilence();
  failedSince = null;
  remember(answer);
  show(answer);
}

/** A page that nobody sees asks nothing. */
function plan(pace) {
  clearTimeout(timer);
  timer = document.hidden ? null : setTimeout(ask, pace);
}

document.addEventListener("visibilitychange", () => plan(0));
byId("settings-all").addEventListener("change", () => answers.length > 0 && settingsTable(answers.at(-1)));
plan(0);
