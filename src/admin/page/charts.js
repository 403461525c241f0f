// Line charts over time, drawn as SVG: no library, since three charts need a hundred lines and a library brings fifty
// kilobytes that somebody has to keep up to date.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const MARGIN = { left: 46, right: 6, top: 8, bottom: 20 };
// Seconds that a chart shows at least and at most.
const SHORTEST = 60;
const LONGEST = 300;
// Rows of the table that says the same as a chart, and the seconds between them.
const ROWS = 12;
const ROW_EVERY = 5;

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The next of 1, 2, 5, 10, 20, ... that is not less. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** What stands at the left, and how far up a value lies: 0 at the bottom, 1 at the top. */
const SCALES = {
  linear(values) {
    const top = roundUp(Math.max(1, ...values));
    return { ticks: [0, top / 2, top], at: (value) => value / top };
  },
  percent() {
    return { ticks: [0, 0.5, 1], at: (value) => value };
  },
  // Hits take microseconds and misses up to seconds: only so are both to be seen.
  log(values) {
    const low = Math.floor(Math.log10(Math.min(1e-4, ...values)));
    const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(1e-3, ...values))));
    const step = high - low > 4 ? 2 : 1;
    const ticks = [];
    for (let power = low; power <= high; power += step) ticks.push(10 ** power);
    return { ticks, at: (value) => (Math.log10(value) - low) / (high - low) };
  },
};

/**
 * A chart in a figure. `series` are `{ name, style, area, of }`, where `of` takes a value out of a point; a point has
 * its time in seconds as `t`. Null is a gap.
 */
export class Chart {
  constructor(figure, { title, scale, format, series }) {
    Object.assign(this, { figure, title, scale, format, series, points: [], looked: null });
    const legend = element("ul", { class: "legend" });
    for (const { name, style } of series) {
      const sample = shape("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" });
      sample.append(shape("path", { d: "M0 4H18", class: `line ${style}` }));
      legend.append(element("li", {}, sample, name));
    }
    this.svg = shape("svg", { role: "img", tabindex: "0" });
    this.empty = element("p", { class: "empty" }, "Nothing to show yet");
    this.output = element("output", { "aria-live": "off" });
    this.details = element("details", { class: "data" }, element("summary", {}, "As a table"), element("div"));
    figure.append(
      element("figcaption", {}, element("h2", {}, title), legend),
      element("div", { class: "plot" }, this.svg, this.empty),
      this.output,
      this.details,
    );
    this.details.addEventListener("toggle", () => this.tabulate());
    this.svg.addEventListener("pointermove", (event) => this.look(event.offsetX));
    for (const left of ["pointerleave", "blur"]) this.svg.addEventListener(left, () => this.look(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  show(points) {
    this.points = points;
    this.draw();
    if (this.details.open) this.tabulate();
  }

  draw() {
    const { points, series } = this;
    const width = this.svg.clientWidth;
    if (width === 0) return;
    const last = points.at(-1)?.t ?? 0;
    const span = Math.min(LONGEST, Math.max(SHORTEST, last - (points[0]?.t ?? last)));
    const seen = points.filter((point) => point.t >= last - span);
    const values = series.flatMap(({ of }) => seen.map(of)).filter((value) => value !== null && value >= 0);
    this.empty.hidden = values.length > 0;
    const { ticks, at } = SCALES[this.scale](values.filter((value) => this.scale !== "log" || value > 0));
    const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
    this.x = (t) => MARGIN.left + (1 - (last - t) / span) * inner.width;
    this.y = (value) => MARGIN.top + (1 - Math.min(1, Math.max(0, at(value)))) * inner.height;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const drawn = [];
    for (const tick of ticks) {
      const y = Math.round(this.y(tick)) + 0.5;
      drawn.push(shape("path", { d: `M${MARGIN.left} ${y}H${width - MARGIN.right}`, class: "grid" }));
      const label = shape("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" });
      label.textContent = this.format(tick);
      drawn.push(label);
    }
    for (const [place, text] of [["start", span < 120 ? `${Math.round(span)} s ago` : `${Math.round(span / 60)} min ago`], ["end", "now"]]) {
      const x = place === "start" ? MARGIN.left : width - MARGIN.right;
      const label = shape("text", { x, y: HEIGHT - 4, "text-anchor": place });
      label.textContent = text;
      drawn.push(label);
    }
    for (const one of series) drawn.push(...this.lines(seen, one));
    this.svg.replaceChildren(...drawn);
    this.mark();
  }

  /** The line of a series, and what lies below it; broken where there is nothing. */
  lines(points, { of, style, area }) {
    const drawn = [];
    const bottom = this.y(0);
    let run = [];
    const end = () => {
      if (run.length > 1) {
        const d = "M" + run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
        if (area) {
          const below = `L${run.at(-1)[0].toFixed(1)} ${bottom}L${run[0][0].toFixed(1)} ${bottom}Z`;
          drawn.push(shape("path", { d: d + below, class: "area" }));
        }
        drawn.push(shape("path", { d, class: `line ${style}` }));
      }
      run = [];
    };
    for (const point of points) {
      const value = of(point);
      if (value === null) end();
      else run.push([this.x(point.t), this.y(value)]);
    }
    end();
    return drawn;
  }

  /** The point that somebody looks at, by pointer or by keyboard. */
  look(x) {
    if (x === null || this.points.length === 0) this.looked = null;
    else {
      const distance = (point) => Math.abs(this.x(point.t) - x);
      this.looked = this.points.reduce((best, point) => (distance(point) < distance(best) ? point : best)).t;
    }
    this.mark();
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || this.points.length === 0) return;
    event.preventDefault();
    const at = this.looked === null ? this.points.length - 1 : this.points.findIndex((point) => point.t >= this.looked);
    this.looked = this.points[Math.min(this.points.length - 1, Math.max(0, at + by))].t;
    this.output.setAttribute("aria-live", "polite");
    this.mark();
  }

  mark() {
    this.svg.querySelector(".cross")?.remove();
    const point = this.points.find((point) => point.t === this.looked) ?? this.points.at(-1);
    const told = point ? this.series.map(({ name, of }) => `${name} ${this.told(of(point))}`).join(" · ") : "";
    const ago = point ? Math.round(this.points.at(-1).t - point.t) : 0;
    const when = ago === 0 ? "now" : `${ago} s ago`;
    this.output.textContent = told && `${when}: ${told}`;
    if (this.looked === null) {
      this.output.setAttribute("aria-live", "off");
      this.svg.setAttribute("aria-label", `${this.title}. ${this.output.textContent || "Nothing to show yet"}`);
    } else if (this.x) {
      const x = Math.round(this.x(point.t)) + 0.5;
      this.svg.append(shape("path", { d: `M${x} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}`, class: "cross" }));
    }
  }

  told(value) {
    return value === null ? "–" : this.format(value);
  }

  /** The same for those who read tables. */
  tabulate() {
    const last = this.points.at(-1)?.t ?? 0;
    const rows = [];
    for (let row = 0; row < ROWS; row += 1) {
      const point = this.points.findLast((point) => point.t <= last - row * ROW_EVERY);
      if (!point) break;
      const cells = this.series.map(({ of }) => element("td", {}, this.told(of(point))));
      rows.push(element("tr", {}, element("th", { scope: "row" }, `${Math.round(last - point.t)} s ago`), ...cells));
    }
    const heads = this.series.map(({ name }) => element("th", { scope: "col" }, name));
    const head = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "When"), ...heads));
    this.details.lastChild.replaceChildren(element("table", {}, head, element("tbody", {}, ...rows)));
  }
}
