// Tables that can be sorted and filtered; a row stays the same element as long as what it shows is there.
class Table {
  constructor(host, { label, columns, identity, text, order, level, empty, nothing }) {
    Object.assign(this, { columns, identity, text, order, level, nothing });
    this.rows = new Map();
    this.sorted = null;
    this.words = "";
    this.admits = () => true;
    this.body = make("tbody");
    this.heads = columns.map((column, i) => {
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.sort(i));
      return make("th", { scope: "col", class: [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null }, button);
    });
    this.table = make("table", {}, make("caption", { class: "unseen" }, label), make("thead", {}, make("tr", {}, ...this.heads)), this.body);
    this.scroll = make("div", { class: "scroll sheet", tabindex: 0, role: "region", "aria-label": label }, this.table);
    this.empty = make("div", { class: "sheet empty" }, ...empty);
    this.none = make("p", { class: "sheet empty" }, nothing);
    host.append(this.scroll, this.empty, this.none);
    this.show([]);
  }

  // By a column, the other way round, and as it was.
  sort(i) {
    const first = this.columns[i].number ? -1 : 1;
    if (this.sorted?.column !== i) this.sorted = { column: i, way: first };
    else if (this.sorted.way === first) this.sorted.way = -first;
    else this.sorted = null;
    this.heads.forEach((head, j) => {
      const way = this.sorted?.column === j ? (this.sorted.way > 0 ? "ascending" : "descending") : null;
      mark(head, "aria-sort", way);
    });
    this.show(this.data);
  }

  compare(a, b) {
    if (this.sorted) {
      const { column, way } = this.sorted;
      const [x, y] = [a, b].map((row) => this.columns[column].value(row));
      const missing = (x === null || x === undefined) - (y === null || y === undefined);
      if (missing) return missing;
      const difference = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
      if (difference) return difference * way;
    }
    return this.order(a, b);
  }

  show(data) {
    this.data = data;
    const words = this.words.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = data.filter((row) => {
      const text = this.text(row).toLowerCase();
      return this.admits(row) && words.every((word) => text.includes(word));
    }).sort((a, b) => this.compare(a, b));
    this.scroll.hidden = !shown.length;
    this.empty.hidden = data.length > 0;
    this.none.hidden = !data.length || shown.length > 0;
    const kept = new Set();
    shown.forEach((row, i) => {
      const id = this.identity(row);
      kept.add(id);
      let line = this.rows.get(id);
      if (!line) {
        line = make("tr", {}, ...this.columns.map((column) =>
          make(column.head ? "th" : "td", { scope: column.head ? "row" : null, class: [column.number && "number", column.wide && "wide", column.long && "long"].filter(Boolean).join(" ") || null })));
        this.rows.set(id, line);
      }
      mark(line, "data-level", this.level?.(row));
      this.columns.forEach((column, j) => column.fill(line.cells[j], row));
      if (this.body.children[i] !== line) this.body.insertBefore(line, this.body.children[i] ?? null);
    });
    for (const [id, line] of this.rows) {
      if (!kept.has(id)) {
        line.remove();
        this.rows.delete(id);
      }
    }
    return shown.length;
  }
}

const plain = (form) => function fill(cell, row) { say(cell, form(this.value(row))); };

// What the switch of each state looks like: its lead, its blade, its knobs.
const STATES = {
  closed: { word: "closed", blade: "M7 8H19", rank: 4 },
  open: { word: "open", blade: "M7 8L17 1.5", rank: 0, level: "bad" },
  half_open: { word: "half open", blade: "M7 8L18 4.5", rank: 2, level: "watch" },
  forced_open: { word: "forced open", blade: "M7 8L17 1.5M14 10v4M18 10v4", rank: 1, level: "bad" },
  disabled: { word: "disabled", blade: "M9 4L17 12M17 4L9 12", rank: 3, level: "watch" },
  metrics_only: { word: "counts only", blade: "M10 12V8M13 12V4M16 12V7", rank: 3, level: "watch" },
};

function stateSign(name) {
  const state = STATES[name] ?? { word: name, blade: "" };
  const sign = draw("svg", { viewBox: "0 0 26 16", "aria-hidden": "true" },
    draw("path", { d: `M1 8H4M22 8H25${state.blade}` }), draw("circle", { class: "knob", cx: 6, cy: 8, r: 2.4 }), draw("circle", { class: "knob", cx: 20, cy: 8, r: 2.4 }));
  return make("span", { class: "state", "data-state": name }, sign, state.word);
}

// How near it is to opening: the nearer of its two limits.
function nearness(breaker) {
  const row = breaker.in_a_row_limit ? breaker.in_a_row / breaker.in_a_row_limit : null;
  const window = breaker.failure_rate_limit && breaker.failure_rate !== null ? breaker.failure_rate / breaker.failure_rate_limit : null;
  return row === null && window === null ? null : Math.max(row ?? 0, window ?? 0);
}

function failing(breaker) {
  const parts = [];
  if (breaker.in_a_row_limit) parts.push(`${breaker.in_a_row} of ${breaker.in_a_row_limit} in a row`);
  if (breaker.failure_rate !== null) parts.push(`${share(breaker.failure_rate)} of ${some(breaker.window_calls, "call")}`);
  return parts.join(", ") || NONE;
}

function twoLines(column, first, second, style) {
  return {
    ...column, long: true,
    fill: (cell, row) => {
      if (!cell.firstChild) cell.append(make("span"), make("span", { class: style }));
      say(cell.firstChild, first(row));
      say(cell.lastChild, second(row));
    },
  };
}

const nameOf = (breaker) => breaker.name ?? "(no name yet)";

function circuitsTable(host) {
  return new Table(host, {
    label: "Circuits",
    identity: (row) => row.id,
    text: (row) => `${nameOf(row)} ${row.state} ${STATES[row.state]?.word} ${row.why}`,
    order: (a, b) => (STATES[a.state]?.rank ?? 9) - (STATES[b.state]?.rank ?? 9) || nameOf(a).localeCompare(nameOf(b), "en", { numeric: true }) || a.id - b.id,
    level: (row) => STATES[row.state]?.level,
    empty: ["No circuit yet. A breaker is here once it has a name or guards something: ", make("code", {}, "@seawall.circuit"), " or ", make("code", {}, "seawall.guard(…)"), " around a function."],
    nothing: "No circuit fits the filter.",
    columns: [
      {
        title: "State", value: (row) => STATES[row.state]?.rank ?? 9,
        fill: (cell, row) => {
          if (cell.firstChild?.dataset?.state !== row.state) cell.replaceChildren(stateSign(row.state));
        },
      },
      twoLines({ title: "Circuit", head: true, value: nameOf }, nameOf, (row) => (row.state === "closed" ? "" : row.why), "sub narrow"),
      twoLines({ title: "Why", wide: true, value: (row) => row.why }, (row) => (row.since === null && row.state === "closed" ? NONE : row.why),
        (row) => (row.state === "closed" ? "" : row.rules.join(" ")), "sub"),
      { title: "Since", number: true, wide: true, value: (row) => (row.since === null ? null : row.now - row.since), fill: plain(age) },
      {
        title: "Failing", number: true, wide: true, value: nearness,
        fill: (cell, row) => {
          say(cell, failing(row));
          mark(cell, "class", `number wide${row.state === "closed" && nearness(row) >= 0.6 ? " near" : ""}`);
        },
      },
      { title: "Turned away", number: true, wide: true, value: (row) => row.rejected, fill: plain(count) },
      { title: "Openings", number: true, wide: true, value: (row) => row.openings, fill: plain(count) },
      { title: "Probe in", number: true, value: (row) => (row.state === "open" ? row.opens_in : null), fill: plain(span) },
    ],
  });
}

function seriesTable(host) {
  const number = (title, value, form, options) => ({ title, number: true, value, fill: plain(form), ...options });
  const judged = (title, value, limits, style = "") => ({
    title, number: true, value, wide: Boolean(style),
    fill: (cell, row) => {
      const level = row.calls >= row.limits.minimum_calls ? levelOf(value(row), row.limits[limits]) : null;
      say(cell, share(value(row)));
      mark(cell, "class", `number${style}${level === "bad" ? " over" : level === "watch" ? " near" : ""}`);
    },
  });
  return new Table(host, {
    label: "Calls by pipeline and model",
    identity: (row) => JSON.stringify([row.pipeline, row.model, row.endpoint]),
    text: (row) => `${row.pipeline} ${row.model} ${row.endpoint} ${row.classes.map(([name]) => name).join(" ")}`,
    order: (a, b) => b.calls - a.calls || a.pipeline.localeCompare(b.pipeline) || a.model.localeCompare(b.model),
    empty: ["No calls since this dashboard was opened. Calls through a guard, a pipeline or a model of seawall's are counted here by themselves."],
    nothing: "Nothing fits the filter.",
    columns: [
      twoLines({ title: "Pipeline", head: true, value: (row) => row.pipeline }, (row) => row.pipeline || NONE, (row) => row.model, "sub narrow"),
      twoLines({ title: "Model", wide: true, value: (row) => place(row.model, row.endpoint) }, (row) => row.model || NONE, (row) => row.endpoint, "sub"),
      number("Calls", (row) => row.calls, count),
      judged("Failed", (row) => rate(row.errors, row.calls), "error_rate"),
      {
        title: "As", wide: true, value: (row) => row.classes[0]?.[0] ?? null,
        fill: (cell, row) => say(cell, row.classes.map(([name, times]) => `${name || "failed"} ${count(times)}`).join(", ") || NONE),
      },
      judged("Retried", (row) => rate(row.retried, row.calls), "retry_rate", " wide"),
      number("Fallback", (row) => rate(row.fallbacks, row.calls), share, { wide: true }),
      number("Attempts", (row) => row.attempts, count, { wide: true }),
      number("p50", (row) => row.p50, span, { wide: true }),
      number("p95", (row) => row.p95, span),
      number("p99", (row) => row.p99, span, { wide: true }),
      number("Tokens", (row) => row.tokens, count, { wide: true }),
      number("Cost", (row) => row.cost, money, { wide: true }),
    ],
  });
}
