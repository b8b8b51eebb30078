// Charts of the timeline: SVG at the size it is shown in, a reading under the pointer, and the same as a table.
const MARGIN = { left: 44, right: 10, top: 10, bottom: 20 };
const SPAN = 900;

const CHARTS = [
  {
    title: "Calls", unit: "per 10 s", bars: true, form: count, least: 4,
    series: [
      { name: "answered", style: "ok", of: (slot) => slot.calls - slot.errors },
      { name: "failed", style: "failed", of: (slot) => slot.errors },
    ],
  },
  {
    title: "Rates", unit: "of the calls of a minute", smooth: true, form: share, least: 0.05, most: 1,
    series: [
      { name: "failed", style: "errors", of: (slot) => rate(slot.errors, slot.calls) },
      { name: "retried", style: "retries", of: (slot) => rate(slot.retried, slot.calls) },
      { name: "fallback", style: "fallbacks", of: (slot) => rate(slot.fallbacks, slot.calls) },
    ],
  },
  {
    title: "Latency", unit: "of a call", form: span, least: 0.01,
    series: ["p50", "p95", "p99"].map((name) => ({ name, style: name, of: (slot) => slot[name] })),
  },
];

// A round number that is not below, so that the half of it is round too.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((top) => top >= value * 0.9999);
}

function key(chart, series) {
  const sample = chart.bars
    ? draw("rect", { class: `fill-${series.style}`, width: 10, height: 10, x: 4 })
    : draw("path", { class: `line-${series.style}`, d: "M1 5H17" });
  const value = make("b", {}, NONE);
  const label = make("span", { class: "key" }, draw("svg", { viewBox: "0 0 18 10", "aria-hidden": "true" }, sample), `${series.name} `, value);
  return { label, value };
}

// Of each slot the minute that ends with it: a share of three calls says little.
function minutes(slots, length) {
  return slots.map((slot, i) => {
    const sums = { at: slot.at, calls: 0, errors: 0, retried: 0, fallbacks: 0 };
    for (let j = i; j >= 0 && slots[j].at > slot.at + length - 60.5; j--) {
      for (const name of ["calls", "errors", "retried", "fallbacks"]) sums[name] += slots[j][name];
    }
    return sums;
  });
}

class Chart {
  constructor(host, chart) {
    this.chart = chart;
    this.slots = [];
    this.keys = chart.series.map((series) => key(chart, series));
    this.at = make("span", {}, "");
    this.plot = draw("svg", { class: "plot", role: "img" });
    this.rows = make("tbody");
    const heads = ["Time", ...chart.series.map((series) => series.name)].map((name, i) =>
      make("th", { scope: "col", class: i ? "number" : null }, make("span", {}, name)));
    const table = make("table", {}, make("caption", { class: "unseen" }, `${chart.title}, ${chart.unit}`), make("thead", {}, make("tr", {}, ...heads)), this.rows);
    const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${chart.title} as a table` }, table);
    this.details = make("details", { class: "data" }, make("summary", {}, "As a table"), scroll);
    this.details.addEventListener("toggle", () => this.list());
    const caption = make("figcaption", {}, make("h3", {}, chart.title), make("span", { class: "quiet" }, chart.unit),
      make("span", { class: "reading" }, this.at, ...this.keys.map((each) => each.label)));
    host.append(make("figure", {}, caption, this.plot, this.details));
    this.plot.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.paint()).observe(this.plot);
  }

  show(slots, now, length) {
    [this.slots, this.now, this.length] = [this.chart.smooth ? minutes(slots, length) : slots, now, length];
    this.paint();
    if (this.details.open) this.list();
  }

  x(time) {
    return MARGIN.left + (1 - (this.now - time) / SPAN) * (this.width - MARGIN.left - MARGIN.right);
  }

  y(value) {
    return this.height - MARGIN.bottom - (Math.min(value, this.top) / this.top) * (this.height - MARGIN.bottom - MARGIN.top);
  }

  // Where the slot's value is drawn: in its middle, but never in the future.
  middle(slot) {
    return this.x(Math.min(slot.at + this.length / 2, this.now));
  }

  paint() {
    const { width, height } = this.plot.getBoundingClientRect();
    if (width < 60 || this.now === undefined) return;
    [this.width, this.height] = [width, height];
    const { chart, slots } = this;
    const peak = (slot) => (chart.bars ? slot.calls : Math.max(...chart.series.map((series) => series.of(slot) ?? 0)));
    this.top = ceiling(Math.max(chart.least, ...slots.map(peak)));
    if (chart.most) this.top = Math.min(this.top, chart.most);
    const parts = [];
    for (const level of [0, 0.5, 1]) {
      const y = Math.round(this.y(level * this.top)) + 0.5;
      parts.push(draw("path", { class: level ? "grid" : "base", d: `M${MARGIN.left} ${y}H${width - MARGIN.right}` }));
      parts.push(draw("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, level ? chart.form(level * this.top).replace(".0", "") : "0"));
    }
    for (const minutes of [15, 10, 5, 0]) {
      const anchor = minutes === 15 ? "start" : minutes ? "middle" : "end";
      parts.push(draw("text", { x: this.x(this.now - minutes * 60), y: height - 5, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now"));
    }
    parts.push(...(chart.bars ? this.bars() : chart.series.flatMap((series) => this.line(series))));
    if (!slots.some((slot) => slot.calls)) {
      parts.push(draw("text", { x: (MARGIN.left + width) / 2, y: this.y(this.top * 0.75) + 4, "text-anchor": "middle" }, "No calls in this time"));
    }
    this.cross = draw("path", { class: "cross" });
    this.plot.replaceChildren(...parts, this.cross);
    mark(this.plot, "viewBox", `0 0 ${width} ${height}`);
    mark(this.plot, "aria-label", this.summary());
    this.point(this.pointed ?? null);
  }

  bars() {
    const bars = [];
    for (const slot of this.slots) {
      const [left, right] = [Math.max(this.x(slot.at), MARGIN.left), Math.min(this.x(slot.at + this.length), this.width - MARGIN.right)];
      let below = 0;
      for (const series of [...this.chart.series].reverse()) {
        const value = series.of(slot);
        if (value > 0 && right > left) {
          const [high, low] = [this.y(below + value), this.y(below)];
          bars.push(draw("rect", { class: `fill-${series.style}`, x: left + 0.5, width: Math.max(right - left - 1, 1), y: high, height: Math.max(low - high, 1) }));
          below += value;
        }
      }
    }
    return bars;
  }

  line(series) {
    let path = "";
    let last = null;
    this.slots.forEach((slot, i) => {
      const value = series.of(slot);
      if (value === null || value === undefined || this.x(slot.at + this.length) < MARGIN.left) {
        last = null;
        return;
      }
      const [x, y] = [Math.max(this.middle(slot), MARGIN.left), this.y(value)];
      const joined = last !== null && slot.at - last < this.length * 1.5;
      path += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      const next = this.slots[i + 1];
      const ends = !next || (series.of(next) ?? null) === null || next.at - slot.at > this.length * 1.5;
      // A value between two silences would be a line of no length.
      if (!joined && ends) path += "h0.1";
      last = slot.at;
    });
    return [draw("path", { class: `line-${series.style}`, d: path })];
  }

  summary() {
    const latest = this.latest();
    const values = latest ? this.chart.series.map((series) => `${series.name} ${this.chart.form(series.of(latest))}`).join(", ") : "no calls";
    return `${this.chart.title} ${this.chart.unit}, over the last 15 minutes. Latest: ${values}. The table below has all numbers.`;
  }

  latest() {
    return this.slots.findLast((slot) => slot.calls > 0);
  }

  point(offset) {
    this.pointed = offset;
    let slot = this.latest();
    let text = "";
    if (offset !== null && this.width) {
      const time = this.now - (1 - (offset - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right)) * SPAN;
      slot = this.slots.find((each) => each.at <= time && time < each.at + this.length) ?? null;
      text = time > this.now - SPAN && time <= this.now ? hour(slot ? slot.at : time) : "";
    }
    this.cross?.setAttribute("d", text && slot ? `M${this.middle(slot)} ${MARGIN.top}V${this.height - MARGIN.bottom}` : "");
    say(this.at, text);
    this.chart.series.forEach((series, i) => say(this.keys[i].value, slot ? this.chart.form(series.of(slot)) : NONE));
  }

  list() {
    if (!this.details.open) return;
    const rows = this.slots.filter((slot) => slot.calls).reverse().map((slot) =>
      make("tr", {}, make("th", { scope: "row" }, hour(slot.at)), ...this.chart.series.map((series) => make("td", { class: "number" }, this.chart.form(series.of(slot))))));
    this.rows.replaceChildren(...(rows.length ? rows : [make("tr", {}, make("td", { colspan: this.chart.series.length + 1 }, "No calls in this time"))]));
  }
}
