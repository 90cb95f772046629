"use strict";
// The page's own script. Data comes from the JSON element; every piece of it enters the page as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const BASE = data.table.baseline; // what every row is set against
const PER_PAGE = 25, PER_GROUP = 12;

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}
const number = (x, digits = 3) => (x === null || x === undefined ? "unknown" : x.toFixed(digits));
const signed = (x) => (x === null ? "unknown" : (x > 0 ? "+" : "") + x.toFixed(3));
const mean = (xs) => (xs.length ? xs.reduce((a, b) => a + b, 0) / xs.length : null);
const scored = (xs) => xs.filter((x) => x !== null);

// ---- header and table
const VERDICT = { better: "better", worse: "worse", "no difference shown": "null", "": "null" };

function interval(x, show) {
  if (!x) return "";
  if (x.mean === null) return "unscored";
  const range = x.lower === null ? " (one prompt)" : ` [${show(x.lower)}, ${show(x.upper)}]`;
  return el("span", {}, show(x.mean), el("span", { class: "range" }, range));
}

function drawTable() {
  const versus = data.table.rows.some((r) => r.difference);
  const extra = data.extra ? data.extra.map((e) => e.head) : ["tokens a prompt", "unscored prompts"];
  const head = ["strategy", "expected reward", ...(versus ? ["minus " + BASE, "against " + BASE] : []), ...extra];
  const right = (name) => (extra.includes(name) ? "number" : null);
  const body = data.table.rows.map((r, i) => {
    const verdict = r.verdict;
    const chip = verdict ? el("span", { class: "chip " + VERDICT[verdict] }, verdict) : "";
    const unscored = r.unscored > 5e-4 ? `${+r.unscored.toPrecision(3)} of ${r.n}` : "0";
    return el("tr", {},
      el("th", { scope: "row" }, r.name),
      el("td", {}, interval(r.reward, number)),
      ...(versus ? [el("td", {}, interval(r.difference, signed)), el("td", {}, chip)] : []),
      ...(data.extra ? data.extra.map((e) => e.values[i]) : [r.tokens === null ? "unknown" : Math.round(r.tokens).toLocaleString("en"), unscored])
        .map((text) => el("td", { class: "number" }, text)));
  });
  $("table").append(
    el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col", class: right(h) }, h)))),
    el("tbody", {}, ...body));
  $("notes").append(...data.notes.map((n) => el("li", {}, n)));
}

function drawSummary() {
  $("title").textContent = data.title;
  const rows = data.table.rows;
  const lines = [[`Better than ${BASE}: `, "better"], [`No difference to ${BASE} shown: `, "no difference shown"], [`Worse than ${BASE}: `, "worse"]];
  for (const [text, verdict] of lines) {
    const names = rows.filter((r) => r.verdict === verdict && r.name !== "oracle" && !r.name.startsWith("always ")).map((r) => r.name);
    if (names.length) $("summary").append(el("span", {}, text, el("b", {}, names.join(", ")), ". "));
  }
  const n = data.table.rows.length ? data.table.rows[0].n : 0;
  const k = data.table.meta.k ? `, ${data.table.meta.k} completions to choose from` : "";
  $("summary").append(el("span", {}, `${n} prompts${k}. Every number has a 95 % interval over prompts.`));
}

function drawFacts() {
  for (const [key, value] of Object.entries(data.meta)) {
    const text = value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
    $("facts").append(el("dt", {}, key.replaceAll("_", " ")), el("dd", {}, text));
  }
}

// ---- figures: roles become the theme's colours
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const ROLE = /^(series[0-7]|better|worse|null|muted)$/;

function painted(value, key) {
  if (typeof value === "string" && (key === "color" || key === "fillcolor") && ROLE.test(value)) return style(value);
  if (Array.isArray(value)) return value.map((v) => (typeof v === "object" ? painted(v) : v));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, k)]));
}

function layoutOf(figure) {
  const title = (own) => ({ ...own, title: { ...own?.title, font: { size: 13 }, standoff: 8 } });
  const axis = { gridcolor: style("line"), zeroline: false, linecolor: style("line"), tickcolor: style("line"), automargin: true };
  const own = painted(figure.layout);
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height: 330, margin: { l: 10, r: 14, t: 10, b: 10 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: style("ink") }, hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, xanchor: "left", font: { size: 12 } }, showlegend: figure.data.some((t) => t.showlegend !== false) && figure.kind !== "headline",
    hoverlabel: { bgcolor: style("card"), bordercolor: style("line"), font: { color: style("ink") } },
    ...own, xaxis: { ...axis, ...title(own.xaxis) }, yaxis: { ...axis, ...title(own.yaxis) },
  };
}

function drawFigures() {
  const options = { responsive: true, displayModeBar: false };
  const plots = data.figures.map((figure) => {
    const plot = el("div", { class: "plot", role: "img", "aria-label": `${figure.title}. ${figure.note}` });
    const parts = [el("h3", {}, figure.title), plot, el("p", { class: "note" }, figure.note)];
    if (figure.kind === "headline") { $("headline").append(...parts); plot.style.minHeight = figure.layout.height + "px"; }
    else $("figures").append(el("div", { class: "card", style: figure.kind === "wide" ? "grid-column: 1 / -1" : null }, ...parts));
    return [plot, figure];
  });
  const draw = () => plots.forEach(([plot, figure]) => Plotly.react(plot, painted(figure.data), layoutOf(figure), options));
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  if (plots.length < 2) $("figures").parentElement.remove();
}

// ---- the browser of groups
const state = { shown: [], page: 0, at: -1, more: 1 };
const all = scored(data.groups.flatMap((g) => g.rewards));
const low = all.length ? all.reduce((a, b) => Math.min(a, b)) : 0, high = all.length ? all.reduce((a, b) => Math.max(a, b)) : 1;
const shade = (r, from) => (r === null ? "" : `color-mix(in srgb, var(--better) ${Math.round((100 * (r - low)) / (high - low || 1))}%, var(--${from}))`);
const chosenReward = (g, w) => mean(scored(g.chosen[w].map((i) => g.rewards[i])));
const best = (g) => { const r = scored(g.rewards); return r.length ? Math.max(...r) : null; };

const FILTERS = [
  ["every prompt", () => true],
  ["rewards differ", (g) => best(g) !== null && Math.min(...scored(g.rewards)) < best(g)],
  ["no completion reaches the highest reward", (g) => best(g) !== null && best(g) < high],
  ["some completion is unscored", (g) => g.rewards.includes(null)],
  ["strategies differ in reward", (g) => new Set(data.strategies.map((_, w) => chosenReward(g, w))).size > 1],
  ...data.strategies.map((name, w) => [`a better one was missed by ${name}`, (g) => best(g) !== null && (chosenReward(g, w) === null || chosenReward(g, w) < best(g) - 1e-9)]),
];
const ORDERS = [
  ["index", (g) => g.completions.map((_, i) => -i)],
  ["reward", (g) => g.rewards],
  ...data.rankings.map((name, v) => [`value of ${name}`, (g) => g.values[v]]),
];

function matching() {
  const words = $("search").value.trim().toLowerCase();
  const test = FILTERS[$("filter").selectedIndex][1];
  return data.groups.filter((g) => {
    if (!test(g)) return false;
    g.lower ||= [g.id, g.prompt, ...g.completions.map((c) => c[0])].join("\n").toLowerCase();
    return !words || g.lower.includes(words);
  });
}

function search() {
  state.shown = matching();
  state.page = 0;
  drawList();
  openGroup(0, false);
}

function drawList() {
  const pages = Math.max(1, Math.ceil(state.shown.length / PER_PAGE));
  const from = state.page * PER_PAGE;
  $("list").replaceChildren(...state.shown.slice(from, from + PER_PAGE).map((g, i) => {
    const rewards = scored(g.rewards);
    const bar = [...g.rewards].sort((a, b) => (b ?? -Infinity) - (a ?? -Infinity)).slice(0, 64);
    return el("li", {}, el("button", { type: "button", onclick: () => openGroup(from + i, true) },
      el("span", { class: "text" }, g.prompt.trim().slice(0, 120) || g.id),
      el("span", { class: "mean", title: "mean reward" }, rewards.length ? number(mean(rewards), 2) : "unscored"),
      el("span", { class: "bar", "aria-hidden": "true" }, ...bar.map((r) => { const i = el("i"); i.style.background = shade(r, "line"); return i; }))));
  }));
  $("count").textContent = `${state.shown.length.toLocaleString("en")} of ${data.groups.length.toLocaleString("en")} prompts`;
  $("page").textContent = `page ${state.page + 1} of ${pages}`;
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page >= pages - 1;
  mark();
}

function mark() {
  [...$("list").querySelectorAll("button")].forEach((b, i) => b.setAttribute("aria-current", String(state.page * PER_PAGE + i === state.at)));
}

function turn(step) {
  state.page += step;
  drawList();
  openGroup(state.page * PER_PAGE, false);
  $("list").scrollTop = 0;
}

function openGroup(at, jump) {
  state.at = at;
  state.more = 1;
  mark();
  drawGroup();
  if (jump && matchMedia("(max-width: 48rem)").matches) $("group").scrollIntoView();
}

function completionCard(g, i) {
  const [text, finish, tokens, logprob, model] = g.completions[i];
  const strategies = data.strategies.filter((_, w) => g.chosen[w].includes(i)).map((name, _) => {
    const ties = g.chosen[data.strategies.indexOf(name)].length;
    return el("span", { class: "chip pick" }, ties > 1 ? `${name} (1 of ${ties} tied)` : name);
  });
  const reward = el("span", { class: "chip" }, g.rewards[i] === null ? "unscored" : `reward ${+g.rewards[i].toFixed(4)}`);
  if (g.rewards[i] !== null) reward.style.color = shade(g.rewards[i], "null");
  const values = data.rankings.map((name, v) => el("span", {}, name + " ", el("b", {}, number(g.values[v][i]))));
  return el("div", { class: "card completion" + (strategies.length ? " chosen" : "") },
    el("div", { class: "facts" }, el("b", {}, `#${i}`), reward, ...values, ...described(text, finish, tokens, logprob, model)),
    g.why[i] ? el("p", { class: "note" }, g.why[i]) : null,
    strategies.length ? el("div", { class: "strategies" }, ...strategies) : null,
    el("pre", { tabindex: "0" }, text || "(empty)"));
}

function described(text, finish, tokens, logprob, model) {
  return [
    el("span", {}, tokens === null ? `${text.length.toLocaleString("en")} characters` : `${tokens} tokens`),
    logprob === null ? null : el("span", { title: "natural log" }, `log-prob ${number(logprob, 1)}` + (tokens ? `, ${number(logprob / tokens, 2)} a token` : "")),
    finish === "length" ? el("span", { class: "chip worse" }, "cut at the limit") : el("span", {}, finish),
    el("span", {}, model),
  ];
}

function drawGroup() {
  const g = state.shown[state.at];
  const place = $("group");
  if (!g) { place.replaceChildren(el("p", { class: "note" }, "No prompt matches.")); return; }
  const key = ORDERS[$("order").selectedIndex][1](g);
  const order = g.completions.map((_, i) => i).sort((a, b) => (key[b] ?? -Infinity) - (key[a] ?? -Infinity) || a - b);
  const shown = order.slice(0, state.more * PER_GROUP);
  const greedy = data.greedy[g.id];
  const rest = order.length - shown.length;
  place.replaceChildren(
    el("h3", {}, g.id), el("pre", { class: "prompt", tabindex: "0" }, g.prompt),
    g.target === null ? null : el("details", {}, el("summary", {}, "Target"), el("pre", {}, g.target)),
    greedy ? el("div", { class: "card completion" },
      el("div", { class: "facts" }, el("b", {}, "greedy"), el("span", { class: "chip" }, greedy[5] === null || greedy[5] === undefined ? "unscored" : `reward ${+greedy[5].toFixed(4)}`), ...described(...greedy.slice(0, 5))),
      el("pre", { tabindex: "0" }, greedy[0] || "(empty)")) : null,
    ...shown.map((i) => completionCard(g, i)),
    rest ? el("button", { type: "button", id: "more", onclick: () => { state.more += 1; drawGroup(); } }, `Show ${Math.min(rest, PER_GROUP)} more of ${rest}`) : null);
}

function startBrowser() {
  if (!data.groups.length) { $("browser").remove(); document.querySelector(".skip").remove(); return; }
  $("filter").append(...FILTERS.map(([name]) => el("option", {}, name)));
  $("order").append(...ORDERS.map(([name]) => el("option", {}, name)));
  let wait = 0;
  $("search").addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(search, 120); });
  $("filter").addEventListener("change", search);
  $("order").addEventListener("change", drawGroup);
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...$("list").querySelectorAll("button")];
    const target = buttons[buttons.indexOf(document.activeElement) + step];
    if (target) { target.focus(); openGroup(state.page * PER_PAGE + buttons.indexOf(target), false); }
  });
  search();
}

drawSummary();
drawTable();
drawFacts();
startBrowser();
drawFigures();
document.documentElement.dataset.ready = "yes";
