// Elements, made and changed; whatever is shown is set as text, never read as markup.
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const make = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

// Only what differs is touched: a selection and a reader's place stay where they are.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
function mark(node, name, value) {
  if (value === undefined || value === null || value === "") node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const NONE = "–";
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (n) => (n === null || n === undefined ? NONE : n < 100000 ? grouped.format(n) : compact.format(n));
const some = (n, one, many) => `${count(n)} ${n === 1 ? one : (many ?? one + "s")}`;

function share(x) {
  if (x === null || x === undefined || Number.isNaN(x)) return NONE;
  const percent = x * 100;
  if (percent === 0) return "0 %";
  if (percent < 0.1) return "<0.1 %";
  return `${percent < 9.95 ? percent.toFixed(1) : percent.toFixed(0)} %`;
}
function span(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 0.00005) return "<0.1 ms";
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 119.5) return `${seconds.toFixed(0)} s`;
  return age(seconds);
}
function age(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} d`;
}
const money = (usd) => (usd === null || usd === undefined ? NONE : `$${usd.toFixed(usd < 1 ? 4 : 2)}`);
const hour = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");
const when = (unix) => make("time", { class: "when", datetime: new Date(unix * 1000).toISOString() }, hour(unix));
const rate = (part, whole) => (whole > 0 ? part / whole : null);
// "gpt-4 at api.openai.com", from what is known of it.
const place = (model, endpoint) => [model, endpoint].filter(Boolean).join(" at ");
