// Asks for the state every second and shows it. A page that is not looked at asks less often, for the sake of its title.
const EVERY = 1000;
const UNSEEN = 10000;
const SIGNS = { calm: "M5 12.5l4.5 4.5L19 7.5", watch: "M12 3L22 20H2zM12 10v4.5M12 17v.2", bad: "M8 3h8l5 5v8l-5 5H8l-5-5V8zM12 7.5v5.5M12 16.5v.2", lost: "M4 12h4M16 12h4M10 8l4 8" };
const BAD = new Set(["critical", "emergency"]);

let charts, circuits, series;
let last = null; // the state shown
let heard = null; // when the process answered last
let trouble = null; // why it does not
let paused = false;
let timer = null;
let asking = false;

function levelOf(value, limits) {
  if (value === null || value === undefined) return null;
  return value > limits[1] ? "bad" : value > limits[0] ? "watch" : null;
}

function tile(title) {
  const [value, note] = [make("dd"), make("dd")];
  const box = make("div", {}, make("dt", {}, title), value, note);
  byId("tiles").append(box);
  return (text, beside, level) => {
    say(value, text);
    say(note, beside);
    mark(box, "data-level", level);
  };
}

let tiles;
function showTiles(state, now) {
  const { limits } = state;
  const enough = now.calls >= limits.minimum_calls;
  const judged = (value, names) => (enough ? levelOf(value, names) : null);
  const [failed, retried, fell] = [now.errors, now.retried, now.fallbacks].map((part) => rate(part, now.calls));
  tiles.calls(count(now.calls), now.calls ? `${(now.calls / Math.max(state.minute_seconds, 1)).toFixed(1)} a second` : "none yet");
  tiles.failed(share(failed), some(now.errors, "call"), judged(failed, limits.error_rate));
  tiles.retried(share(retried), some(now.retried, "call"), judged(retried, limits.retry_rate));
  tiles.fell(share(fell), some(now.fallbacks, "call"));
  tiles.latency(span(now.p95), `p50 ${span(now.p50)}, p99 ${span(now.p99)}`, judged(now.mean, limits.latency));
  tiles.tokens(count(now.tokens), now.cost === null ? "no price known" : `about ${money(now.cost)}`);
}

const list = (names, most) => names.slice(0, most).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");

// The worst first: what is wrong, in a sentence, and what goes with it.
function verdict(state, now) {
  const of = (...names) => state.breakers.filter((breaker) => names.includes(breaker.state));
  const [open, half] = [of("open", "forced_open"), of("half_open")];
  const failed = rate(now.errors, now.calls);
  const failing = now.calls >= state.limits.minimum_calls ? levelOf(failed, state.limits.error_rate) : null;
  const ill = state.monitors.filter((monitor) => monitor.level !== "normal");
  const calls = now.calls ? `${some(now.calls, "call")} in the last minute, ${now.errors ? `${share(failed)} failed` : "none failed"}` : "No calls in the last minute";
  const told = [...ill.map((monitor) => `monitor ${monitor.name}: ${monitor.level}`), calls];
  if (open.length) {
    const total = state.breakers.length;
    const text = `${open.length} of ${some(total, "circuit")} ${open.length === 1 ? "is" : "are"} open`;
    return { level: "bad", text, detail: [list(open.map(nameOf), 4), ...told].join(" · "), title: `(${open.length} open)` };
  }
  const worst = ill.find((monitor) => BAD.has(monitor.level));
  if (failing === "bad" || worst) {
    const text = failing === "bad" ? `${share(failed)} of calls fail` : `Monitor ${worst.name}: ${worst.level}`;
    return { level: "bad", text, detail: told.join(" · "), title: "(failing)" };
  }
  if (half.length || failing || ill.length) {
    const text = half.length ? `${half.length} of ${some(state.breakers.length, "circuit")} ${half.length === 1 ? "is" : "are"} half open`
      : failing ? `${share(failed)} of calls fail` : `Monitor ${ill[0].name} warns`;
    const names = half.length ? [list(half.map(nameOf), 4)] : [];
    return { level: "watch", text, detail: [...names, ...told].join(" · "), title: "(!)" };
  }
  const aside = of("disabled", "metrics_only").length;
  if (!state.breakers.length && !now.calls && !state.series.length) {
    return { level: null, text: "Nothing has happened yet", detail: "Guard a function, or call a model of seawall's, in this process: it appears here by itself." };
  }
  const closed = state.breakers.length - aside;
  const text = !state.breakers.length ? "All is well" : `${closed === 1 ? "The circuit is" : `All ${count(closed)} circuits are`} closed${aside ? `, ${aside} set aside by hand` : ""}`;
  return { level: "calm", text, detail: calls };
}

function showHealth(found) {
  say(byId("headline"), found.text);
  say(byId("detail"), found.detail);
  mark(byId("health"), "data-level", found.level);
  mark(byId("sign"), "d", SIGNS[found.level] ?? "M6 12h.1M12 12h.1M18 12h.1");
  document.title = [found.title, "seawall", last?.process.title].filter(Boolean).join(" · ");
}

function items(host, total, made, empty) {
  if (!total) {
    host.replaceChildren(make("div", { class: "sheet empty" }, ...empty));
    return;
  }
  // What is open stays open, and what has the focus keeps it: entries are kept by what they are.
  let place = host.querySelector("ul");
  if (!place) {
    place = make("ul", { class: "sheet list", tabindex: 0, role: "list" });
    host.replaceChildren(place);
  }
  mark(place, "aria-label", host.id);
  const known = new Map([...place.children].map((item) => [item.dataset.key, item]));
  made.forEach(([id, build], i) => {
    const item = known.get(id) ?? build();
    item.dataset.key = id;
    known.delete(id);
    if (place.children[i] !== item) place.insertBefore(item, place.children[i] ?? null);
  });
  for (const item of known.values()) item.remove();
}

const severity = (alert) => (alert.kind === "resolved" ? "calm" : BAD.has(alert.level) ? "bad" : "watch");

function showAlerts(state) {
  say(byId("alerts-count"), state.alerts.length ? count(state.alerts.length) : "");
  const made = [...state.alerts].reverse().map((alert) => [
    JSON.stringify([alert.name, alert.incident, alert.kind, alert.at]),
    () => make("li", { "data-level": severity(alert) },
      make("p", { class: "line" }, when(alert.at), make("span", { class: "word", "data-level": severity(alert) }, `${alert.kind}${alert.kind === "resolved" ? "" : `, ${alert.level}`}`), make("span", {}, alert.name)),
      make("p", { class: "what" }, alert.message)),
  ]);
  const watched = state.monitors.length;
  items(byId("alerts"), made.length, made, watched
    ? [`No alert so far. ${some(watched, "monitor")} ${watched === 1 ? "watches" : "watch"}.`]
    : ["No monitor watches. ", make("code", {}, "seawall.Monitor()"), " says once when an incident starts, when it becomes worse, and when it is over."]);
}

// What the attempts themselves tell.
const QUIET = new Set(["attempt.started", "retry.scheduled", "retry.exhausted"]);

function story(failure) {
  const heads = ["", "Where", "Outcome", "Took", "Then waited"].map((name, i) => make("th", { scope: "col", class: i > 2 ? "number" : null }, name || make("span", { class: "unseen" }, "Attempt")));
  const rows = failure.attempts.map((attempt, i) => make("tr", {},
    make("th", { scope: "row" }, `${i + 1}`), make("td", { class: "long" }, place(attempt.model, attempt.endpoint) || NONE),
    make("td", {}, [attempt.outcome, attempt.status].filter(Boolean).join(" ")),
    make("td", { class: "number" }, attempt.seconds === null ? "given up" : span(attempt.seconds)), make("td", { class: "number" }, attempt.wait ? span(attempt.wait) : NONE)));
  const table = make("table", {}, make("caption", { class: "unseen" }, "Attempts"), make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  const notes = failure.notes.filter((note) => !QUIET.has(note.event)).map((note) => `${span(note.seconds)} ${note.event.replace(".", " ").replaceAll("_", " ")}${note.place ? ` (${note.place})` : ""}`);
  return [rows.length ? table : null, notes.length ? make("p", { class: "quiet" }, `Policies: ${notes.join(", ")}`) : null];
}

function showFailures(state) {
  say(byId("failures-count"), state.failures.length ? `the last ${count(state.failures.length)}` : "");
  const made = [...state.failures].reverse().map((failure) => [
    JSON.stringify([failure.at, failure.pipeline, failure.model, failure.seconds]),
    () => {
      const what = failure.attempts.length ? `${some(failure.attempts.length, "attempt")} in ${span(failure.seconds)}` : `turned away before the first attempt`;
      const line = [when(failure.at), make("span", { class: "word", "data-level": "bad" }, failure.error || "failed"),
        make("span", { class: "what" }, [failure.pipeline, failure.model].filter(Boolean).join(", ") || "(no name)"), make("span", { class: "quiet" }, what)];
      const parts = story(failure).filter(Boolean);
      if (!parts.length) return make("li", {}, make("p", { class: "line alone" }, ...line));
      return make("li", {}, make("details", {}, make("summary", {}, make("span", { class: "line" }, ...line)), ...parts));
    },
  ]);
  items(byId("failures"), made.length, made, ["No call has failed since this dashboard was opened."]);
}

// Told to those who do not see it: alerts, and circuits that open or close. Nothing of what was before they came.
function speak(state, before) {
  if (!before || before.process.id !== state.process.id) return;
  const told = [];
  const was = new Map(before.breakers.map((breaker) => [breaker.id, breaker.state]));
  const changed = state.breakers.filter((breaker) => was.has(breaker.id) && was.get(breaker.id) !== breaker.state && breaker.state !== "half_open");
  for (const [word, them] of Map.groupBy(changed, (breaker) => STATES[breaker.state]?.word ?? breaker.state)) {
    told.push(them.length > 3 ? `${them.length} circuits are ${word}` : `Circuit ${them.map(nameOf).join(", ")} is ${word}`);
  }
  const newest = Math.max(0, ...before.alerts.map((alert) => alert.at));
  told.push(...state.alerts.filter((alert) => alert.at > newest).map((alert) => `Alert ${alert.kind}: ${alert.name}, ${alert.message}`));
  if (told.length) say(byId("spoken"), told.join(". "));
}

function show(state) {
  const now = state.minute;
  for (const breaker of state.breakers) breaker.now = state.now;
  for (const row of state.series) row.limits = state.limits;
  speak(state, last);
  last = state;
  say(byId("title"), state.process.title);
  say(byId("process"), `pid ${state.process.pid}, watched for ${age(state.now - state.process.watching_since)}`);
  say(byId("version"), `seawall ${state.process.version}.`);
  showHealth(verdict(state, now));
  showTiles(state, now);
  for (const chart of charts) chart.show(state.timeline, state.now, state.slot_seconds);
  const shown = circuits.show(state.breakers);
  say(byId("circuits-count"), state.breakers.length ? (shown === state.breakers.length ? count(shown) : `${count(shown)} of ${count(state.breakers.length)}`) : "");
  const rows = series.show(state.series);
  say(byId("series-count"), state.series.length ? (rows === state.series.length ? count(rows) : `${count(rows)} of ${count(state.series.length)}`) : "");
  showAlerts(state);
  showFailures(state);
}

function link() {
  const node = byId("link");
  mark(node, "data-link", paused ? "paused" : trouble ? "lost" : "live");
  say(node, paused ? "paused" : trouble ? "no answer" : "live");
  document.body.classList.toggle("stale", Boolean(trouble) && !paused);
  if (trouble && !paused) {
    const since = heard ? `Last heard at ${hour(heard)}; what is below is of then. ` : "";
    showHealth(trouble === 401
      ? { level: "lost", text: "The token is asked for again", detail: "Open this page with the token of the process that serves it now.", title: "(token)" }
      : { level: "lost", text: "The process does not answer", detail: `${since}It is asked again every second: start it again, and this page goes on by itself.`, title: "(no answer)" });
  }
}

async function ask() {
  clearTimeout(timer);
  if (paused || asking) return;
  asking = true;
  let state = null;
  try {
    const answer = await fetch("api/state", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    trouble = answer.ok ? null : answer.status;
    if (answer.ok) state = await answer.json();
  } catch {
    trouble = "silent";
  }
  asking = false;
  timer = setTimeout(ask, document.hidden ? UNSEEN : EVERY);
  if (state) heard = Date.now() / 1000;
  if (state && !paused) show(state);
  link();
}

function theme(next) {
  const names = ["system", "light", "dark"];
  let now = "system";
  try {
    now = localStorage.getItem("seawall-theme") ?? now;
    if (next) localStorage.setItem("seawall-theme", (now = names[(names.indexOf(now) + 1) % names.length]));
  } catch {
    if (next) now = names[(names.indexOf(document.documentElement.dataset.theme ?? now) + 1) % names.length];
  }
  mark(document.documentElement, "data-theme", now === "system" ? null : now);
  say(byId("theme"), `Theme: ${now}`);
}

theme(false);
charts = CHARTS.map((chart) => new Chart(byId("charts"), chart));
circuits = circuitsTable(byId("circuits-table"));
series = seriesTable(byId("series-table"));
tiles = {
  calls: tile("Calls"), failed: tile("Failed"), retried: tile("Retried"),
  fell: tile("Fallback used"), latency: tile("p95 latency"), tokens: tile("Tokens"),
};
const again = () => last && show(last);
byId("circuits-filter").addEventListener("input", (event) => { circuits.words = event.target.value; again(); });
byId("series-filter").addEventListener("input", (event) => { series.words = event.target.value; again(); });
for (const [name, state] of Object.entries(STATES)) byId("circuits-state").append(make("option", { value: name }, state.word));
byId("circuits-state").addEventListener("change", (event) => {
  const wanted = event.target.value;
  circuits.admits = (row) => !wanted || (wanted === "not_closed" ? row.state !== "closed" : row.state === wanted);
  again();
});
byId("theme").addEventListener("click", () => theme(true));
byId("pause").addEventListener("click", () => {
  paused = !paused;
  say(byId("pause"), paused ? "Go on" : "Pause");
  link();
  ask();
});
document.addEventListener("visibilitychange", () => document.hidden || ask());
ask();
