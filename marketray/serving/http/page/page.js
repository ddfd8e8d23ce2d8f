// Reads the service's JSON, draws it, follows the stream. What is null there is "—" here, with why.

const MINUTE = 60e3;
const SILENT = 40e3; // the stream has a heartbeat every 15 s
const POLL = 15e3;
const PARTS = {
  forecast: ["predict", drawForecast, showLink],
  model: ["model-info", drawModel, drawEvidence, drawForecast],
  traffic: ["traffic", drawTraffic, drawRollout],
  bars: ["bars/recent?limit=240", drawForecast],
  record: ["predictions/decisions?limit=120", drawRecord],
  news: ["news/recent?limit=60", drawNews],
  drift: ["monitoring/drift/check", drawDrift],
};
const data = {}; // latest answer by part
const wrong = {}; // why the latest answer of a part is none
const stream = { open: false, last: null, tries: 0, retryAt: 0, heard: 0 };

// Markup. What was read is only set as text.

const $ = id => document.getElementById(id);
const fill = (id, ...parts) => refill(document.querySelector(`#${id} .body`), parts);

function make(node, parts) { // nodes, texts, attributes as objects; null and false are left out
  for (const part of parts.flat(Infinity)) {
    if (part instanceof Node || typeof part === "string") node.append(part);
    else for (const [name, value] of Object.entries(part || {})) if (value !== null) node.setAttribute(name, value);
  }
  return node;
}
function refill(node, parts) {
  node.replaceChildren();
  return make(node, parts);
}
function h(what, ...parts) { // what: tag.class
  const [tag, kind = null] = what.split(".");
  return make(document.createElement(tag), [{ class: kind }, parts]);
}
const s = (tag, ...parts) => make(document.createElementNS("http://www.w3.org/2000/svg", tag), parts);

const note = (...text) => h("p.note", text);
const none = why => h("span.none", "— ", h("small", why));
const facts = (...pairs) => h("dl.facts",
  pairs.map(([name, ...value]) => h("div", h("dt", name), h("dd", value))));
const slotName = slot => h("span.slot " + slot, slot);
const scrolled = (label, child) =>
  h("div.scroll", { tabindex: 0, role: "region", "aria-label": label }, child);
const legend = entries => h("ul.legend",
  entries.map(([kind, text]) => h("li", h("i", { class: kind }), text)));
const callout = error => h("div.callout", h("strong", error.title ?? "Could not be read"),
  h("p", error.message), error.hint && note(error.hint));
const missing = name => wrong[name] ? callout(wrong[name]) : note("Reading …");

// Numbers, times

const known = value => typeof value === "number";
const fixed = (value, digits) => Math.abs(value).toLocaleString("en-US",
  { minimumFractionDigits: digits, maximumFractionDigits: digits });
const signed = (value, digits) => (value < 0 ? "−" : value > 0 ? "+" : "") + fixed(value, digits);
const chance = value => Math.round(value * 100) + " %";

function percent(fraction) {
  const value = fraction * 100;
  return signed(value, value && Math.min(6, Math.max(2, 1 - Math.floor(Math.log10(Math.abs(value)))))) + " %";
}
const price = value => fixed(value, value >= 100 ? 2 : value >= 10 ? 3 : 5); // about seven digits
const span = ({ low, high }) => `${price(low)} – ${price(high)}`;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format;
const time = iso => +new Date(iso);
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" }).format;
const sameDay = (a, b) => new Date(a).toDateString() === new Date(b).toDateString();

function told(given) {
  const at = new Date(given), year = at.getFullYear();
  if (sameDay(at, Date.now())) return clock(at);
  return `${day(at)}${year === new Date().getFullYear() ? "" : " " + year}, ${clock(at)}`;
}
const when = iso => h("time", { datetime: iso, title: new Date(iso).toISOString().slice(0, 16).replace("T", " ") + " UTC" },
  told(iso));
const ago = new Intl.RelativeTimeFormat("en");
function age(iso) {
  const minutes = Math.floor((time(iso) - Date.now()) / MINUTE) + 1;
  return minutes > -120 ? ago.format(Math.min(minutes, -0), "minute") : minutes > -2880
    ? ago.format(Math.ceil(minutes / 60), "hour") : ago.format(Math.ceil(minutes / 1440), "day");
}

// Charts. Pixels on the screen are units of the drawing.

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 10080, 43200].map(m => m * MINUTE);

const range = (from, to, step) => Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);

function numberTicks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(m => m >= raw);
  return range(Math.ceil(low / step), high / step, 1).map(n => n * step);
}
function timeTicks(low, high, count) {
  const step = STEPS.find(each => (high - low) / each <= count) ?? STEPS.at(-1);
  const zone = new Date(low).getTimezoneOffset() * MINUTE;
  return range(Math.ceil((low - zone) / step) * step + zone, high, step).map((at, i) =>
    [at, (step >= 1440 * MINUTE || !sameDay(at, i ? at - step : Date.now()) ? day : clock)(at)]);
}

// layers: ["line …", [[time, value]], longest gap], ["dot …", [[time, value]], radius], ["span …", [[time, low, high]]]
// says: [[time, text]], shown where one points; low, high: ends of the value axis
function chart(id, { label, layers, format, says, low, high, height, empty, key = [] }) {
  const box = $(id);
  box.redraw = () => {
    const all = layers.flatMap(layer => layer[1]), width = box.clientWidth;
    if (!all.length || width < 60) return refill(box, [!all.length && empty && note(empty)]);
    const values = all.flatMap(point => point.slice(1)), times = all.map(point => point[0]);
    const least = Math.min(...values), most = Math.max(...values);
    const room = (most - least || Math.abs(most) || 1) * 0.06;
    const bottom = low ?? least - room, top = high ?? most + room;
    let first = Math.min(...times), last = Math.max(...times);
    if (first === last) [first, last] = [first - 30 * MINUTE, last + 30 * MINUTE];
    const yTicks = numberTicks(bottom, top, height / 55).map(value => [value, format(value)]);
    const edge = width - 10 - 6.6 * Math.max(...yTicks.map(tick => tick[1].length));
    const X = at => 6 + (at - first) / (last - first) * (edge - 12);
    const Y = value => 12 + (top - value) / (top - bottom) * (height - 40);
    const line = (kind, x1, x2, y1, y2) => s("line", { class: kind, x1, x2, y1, y2 });
    const text = (x, y, words, anchor = "start") => s("text", { class: "tick", x, y, "text-anchor": anchor }, words);
    const drawn = yTicks.map(([value, words]) =>
      [line("grid", 0, edge, Y(value), Y(value)), text(edge + 6, Y(value) + 4, words)]);
    drawn.push(timeTicks(first, last, width / 85).map(([at, words]) =>
      text(X(at), height - 4, words, X(at) < 18 ? "start" : X(at) > width - 24 ? "end" : "middle")));
    for (const [name, points, extra = Infinity] of layers) {
      const kind = name.split(" ")[0];
      drawn.push(kind === "dot" ? points.map(([x, y]) => s("circle", { class: name, cx: X(x), cy: Y(y), r: extra }))
        : kind === "span" ? points.map(([x, a, b]) => line(name, X(x), X(x), Y(a), Y(b)))
          : s("path", { class: name, d: points.map(([x, y], i) =>
            `${i && x - points[i - 1][0] <= extra ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("") }));
    }
    const mark = line("pointer", 0, 0, 8, height - 22);
    const svg = s("svg", { role: "img", "aria-label": label, width, height }, ...drawn, mark);
    const words = h("p.readout", { "aria-hidden": true });
    svg.onpointermove = svg.onpointerdown = event => {
      const x = event.clientX - svg.getBoundingClientRect().left, far = point => Math.abs(X(point[0]) - x);
      const near = says.reduce((a, b) => far(b) < far(a) ? b : a);
      make(mark, [{ x1: X(near[0]), x2: X(near[0]), class: "pointer on" }]);
      words.textContent = `${told(near[0])}  ${near[1]}`;
    };
    svg.onpointerleave = () => {
      mark.setAttribute("class", "pointer");
      words.textContent = "";
    };
    return refill(box, [svg, words, legend(key)]);
  };
  box.redraw();
}
const noChart = id => chart(id, { layers: [] });

// Parts

function drawEvidence() {
  const { model } = data;
  if (!model) return fill("evidence", missing("model"));
  const { verdict, r2_oos: r2, p_value: p } = model.evidence;
  const skill = known(r2) && known(p) && r2 > 0 && p < 0.05;
  const value = known(p) && (p < 0.001 ? "< 0.001" : "= " + (p < 0.1 ? p.toPrecision(2) : p.toFixed(2)));
  $("evidence").className = "evidence " + (skill ? "good" : "plain");
  $("evidence-title").textContent = !value || !known(r2) ? "Skill over zero is not known"
    : `${skill ? "Skill" : "No skill"} over zero, p ${value}`;
  const story = {
    promoted: "Promoted: it beat the model before it on data that neither training nor selection had seen.",
    bootstrap: "Bootstrap: the first model there was, with no champion to beat. That is no promotion.",
    challenger: "Challenger: it has not beaten the champion.",
    refused: "Refused: the evidence was not enough for a promotion.",
  }[verdict] ?? `Verdict: ${verdict}.`;
  const rmse = model.test_rmse_pct;
  return fill("evidence", h("p", story), facts(
    ["R² over zero, out of sample", known(r2) ? percent(r2) : none("not measured")],
    ["p of no skill over zero", value ? value.replace("= ", "") : none("not tested")],
    ["RMSE on test rows", known(rmse) ? fixed(rmse, 3) + " %" : none("not stored with the model")]));
}

function drawModel() {
  const { model } = data;
  if (!model) return fill("model", missing("model"));
  const { uncertainty: about } = model;
  $("subject").textContent = `${model.instrument}, ${model.horizon_minutes} minutes ahead`;
  document.title = `${model.instrument} · marketray`;
  return fill("model", facts(
    ["Model", `${model.model_name}, version ${model.model_version} (${model.model_type})`],
    ["Features", `${model.features.length}, from ${fixed(model.lookback_bars, 0)} bars`],
    ["Intervals", about ? [about.method, ", from labels to ", when(about.as_of)] : none("stored without")],
    ["News scored by", model.scorer ?? none("it reads no news")],
    ["Feature definitions", h("code", model.feature_catalog.slice(0, 12))]));
}

function drawForecast() {
  const f = data.forecast, end = data.model?.last_bar_end_at;
  drawPrice(f);
  if (!f) return fill("forecast", missing("forecast"), facts(["Last bar ended", end ? when(end) : none("no bar")]));
  const unsure = () => none("this model is stored without it");
  return fill("forecast",
    h("p.lead", `${f.instrument} at `, when(f.target_at)),
    h("p.figure", known(f.prediction) ? price(f.prediction) : none("this model forecasts the direction alone")),
    h("p.way " + f.direction, { up: "▲ up ", down: "▼ down ", flat: "■ flat " }[f.direction],
      known(f.predicted_return) && percent(f.predicted_return),
      known(f.confidence) && h("small", ` ${chance(f.confidence)} sure`)),
    facts(
      ["80 % interval", f.interval ? span(f.interval) : unsure()],
      ["P(up)", known(f.probability_up) ? chance(f.probability_up) : unsure()],
      ["Last close", price(f.last_close)],
      ["Decided at", when(f.timestamp), " ", h("small.age", { "data-at": f.timestamp }, age(f.timestamp))],
      ["Answered by", `version ${f.model_version} in `, slotName(f.slot)]));
}

function drawPrice(f) {
  let points = (data.bars?.bars ?? []).map(bar => [time(bar.end_at), bar.close]);
  const opened = points.findLastIndex((point, i) => i && point[0] - points[i - 1][0] > 240 * MINUTE);
  if (opened > 0 && points.length - opened > 30) points = points.slice(opened); // the latest session alone
  const now = f && [time(f.timestamp), f.last_close];
  if (f && now[0] > (points.at(-1)?.[0] ?? 0)) points.push(now);
  const layers = [], key = [["line price", "close"]], says = points.map(([at, value]) => [at, price(value)]);
  let label = points.length ? `Price at ${points.length} times, last ${price(points.at(-1)[1])}` : "";
  if (f) {
    const words = [], to = time(f.target_at);
    for (const { level, low, high } of [...f.intervals ?? []].reverse()) {
      const kind = `span l${Math.round(level * 100)}`;
      layers.push([kind, [[to, low, high]]]);
      key.push([kind, chance(level)]);
    }
    if (known(f.prediction)) {
      layers.push(["line ahead", [now, [to, f.prediction]]], ["dot target", [[to, f.prediction]], 4]);
      key.splice(1, 0, ["line ahead", "forecast"]);
      words.push(`forecast ${price(f.prediction)}`);
    }
    if (f.interval) words.push(`80 %: ${span(f.interval)}`);
    if (words.length) says.push([to, words.join(", ")]);
    label += `; for ${told(to)}: ${words.join(", ") || f.direction}`;
  }
  layers.push(["line price", points, 5 * MINUTE]);
  chart("price-chart", { label, layers, format: price, says, key, height: 300,
    empty: wrong.bars ? `No price line: ${wrong.bars.message}` : "No bars yet." });
}

const right = row => known(row.actual_return) && row.actual_return !== 0 && row.direction !== "flat"
  ? (row.direction === "up") === (row.actual_return > 0) : null;

function summary(rows) {
  const of = what => rows.filter(row => known(row.actual_return) && what(row));
  const sized = of(row => known(row.predicted_return)), judged = of(row => right(row) !== null);
  const rmse = error => fixed(100 * Math.sqrt(sized.reduce((sum, row) => sum + error(row) ** 2, 0) / sized.length), 4) + " %";
  return judged.length + sized.length === 0 ? "what came true is not known yet"
    : `right in ${judged.filter(right).length} of ${judged.length} directions` + (sized.length ? "; RMSE "
      + `${rmse(row => row.predicted_return - row.actual_return)}, of forecasting zero ${rmse(row => row.actual_return)}` : "");
}

function drawRecord() {
  const rows = data.record?.decisions ?? [], slots = [...new Set(rows.map(row => row.slot))].sort();
  $("record-table").replaceChildren();
  if (!rows.length) {
    noChart("record-chart");
    return fill("record", data.record ? note("No forecast was given from the service's own bars yet.") : missing("record"));
  }
  const returns = rows.some(row => known(row.predicted_return));
  const value = row => returns ? row.predicted_return : row.probability_up;
  const said = row => known(value(row)) ? (returns ? percent : chance)(value(row)) : null;
  const came = row => returns || !known(row.actual_return) ? row.actual_return : Number(row.actual_return > 0);
  const at = row => time(row.decision_at);
  const points = (of, slot) => rows.filter(row => known(of(row)) && row.slot === (slot ?? row.slot))
    .map(row => [at(row), of(row)]).reverse();
  const middle = returns ? 0 : 0.5, what = returns ? "predicted return" : "P(up)", actual = points(came);
  chart("record-chart", {
    label: `${what} and what came true by decision time; the table has the numbers`, height: 230,
    format: returns ? percent : chance, ...!returns && { low: 0, high: 1 },
    says: rows.map(row => [at(row), `${row.slot} ${said(row) ?? row.direction}`
      + (known(row.actual_return) ? `, actual ${percent(row.actual_return)}` : "")]),
    layers: [["line zero", [[at(rows.at(-1)), middle], [at(rows[0]), middle]]],
      ["span stem", actual.map(([x, y]) => [x, middle, y])], ["dot actual", actual, 2.5],
      ...slots.flatMap(slot => [["line " + slot, points(value, slot), 30 * MINUTE], ["dot " + slot, points(value, slot), 2]])],
    key: [...slots.map(slot => ["line " + slot, `${what}, ${slot}`]),
      ["dot actual", returns ? "actual return" : "rose (100 %) or fell (0 %)"]],
  });
  const outcome = row => known(row.actual_return) ? percent(row.actual_return) : none(row.actual_reason
    ?? (time(row.target_at) > Date.now() ? `due ${told(row.target_at)}` : "not looked up yet"));
  const verdict = row => ({ true: h("span.hit", " ✓ right"), false: h("span.miss", " ✗ wrong") })[right(row)] ?? "";
  const cells = row => [h("th", { scope: "row" }, when(row.decision_at)),
    [`${row.model_version} `, slotName(row.slot)],
    [{ up: "▲ ", down: "▼ ", flat: "■ " }[row.direction] ?? "", said(row) ?? none("direction alone")],
    [outcome(row), verdict(row)]].map((cell, i) => i ? h("td", cell) : cell);
  const head = ["Decided", "Version", returns ? "Predicted" : "P(up)", "Actual"];
  $("record-table").append(scrolled("Predictions", h("table", h("caption", "Newest first"),
    h("thead", h("tr", head.map(text => h("th", { scope: "col" }, text)))),
    h("tbody", rows.map(row => h("tr", cells(row)))))));
  return fill("record", slots.map(slot => h("p", slotName(slot), " ", summary(rows.filter(row => row.slot === slot)))),
    note("Decisions overlap in time: their counts say less than as many apart would."));
}

function drawNews() {
  const articles = data.news?.articles ?? [];
  if (!articles.length) {
    noChart("news-chart");
    return fill("news", data.news ? note("There is no scored news in the lake.") : missing("news"));
  }
  const kind = score => score > 0.1 ? "good" : score < -0.1 ? "bad" : "even";
  const scored = articles.filter(a => known(a.score)), at = a => time(a.available_at);
  chart("news-chart", {
    label: `Sentiment of ${scored.length} articles by time, from −1 to 1; the list has the numbers`,
    layers: ["good", "even", "bad"].map(each => ["dot " + each,
      scored.filter(a => kind(a.score) === each).map(a => [at(a), a.score]), 4]),
    says: scored.map(a => [at(a), `${signed(a.score, 2)}  ${a.title}`]),
    format: value => signed(value, 1), low: -1, high: 1, height: 170, empty: "None of the articles has a score.",
  });
  return fill("news", scrolled("Headlines", h("ul.headlines", articles.map(a => h("li",
    known(a.score) ? h("span.score " + kind(a.score), signed(a.score, 2)) : none("no score"),
    h("div", /^https?:\/\//i.test(a.url) ? h("a", { href: a.url, rel: "noopener noreferrer", target: "_blank" }, a.title)
      : h("span", a.title), h("small", `${a.source} · `, when(a.available_at))))))));
}

const shares = weights => Object.entries(weights).map(([slot, weight]) => `${slot} ${weight} %`).join(", ");
function split(weights, height) {
  let from = 0;
  return s("svg", { class: "bar", role: "img", width: "100%", height, "aria-label": shares(weights) },
    Object.entries(weights).map(([slot, weight]) =>
      s("rect", { class: slot, x: (from += weight) - weight + "%", width: weight + "%", height })));
}

function drawTraffic() {
  const t = data.traffic;
  if (!t) return fill("traffic", missing("traffic"));
  const slots = Object.entries(t.models).map(([slot, wanted]) => {
    const there = t.answering[slot];
    const amiss = t.unwell[slot] ?? (there === wanted ? null
      : there === null ? "does not answer" : `still answers with version ${there}`);
    return h("li", slotName(slot), ` ${t.weights[slot]} % · `, wanted === null ? "empty" : `version ${wanted}`,
      t.shadow === slot && " · also answers unseen, as the shadow", amiss && h("p.amiss", amiss));
  });
  const changes = t.history.map(entry => h("li", when(entry.at), " ", h("strong", entry.action),
    ` ${shares(entry.weights)} `, h("small", `by ${entry.who}${entry.reason && ": " + entry.reason}`),
    split(entry.weights, 3)));
  return fill("traffic", split(t.weights, 14), h("ul.slots", slots), h("h3", "Changes"),
    scrolled("Changes of the traffic", h("ol.changes", changes)));
}

const PHASES = { shadow: "answers unseen", step: "takes over", done: "took over", broken: "was broken off" };
function drawRollout() {
  const t = data.traffic, r = t?.rollout;
  if (!r) return fill("rollout", t ? note("None was ever started.") : missing("traffic"));
  const running = r.ended_at === null;
  return fill("rollout",
    h("p", h("strong", `Version ${r.version} ${PHASES[r.phase] ?? "was " + r.phase}`), " in ", slotName(r.slot),
      running ? ", since " : ", ", when(running ? r.entered_at : r.ended_at)),
    h("ol.steps", { "aria-label": "Steps" }, r.steps.map((share, i) => {
      const now = running && i === r.step;
      return h("li", { class: now ? "now" : i < r.step || r.phase === "done" ? "past" : null,
        "aria-current": now ? "step" : null }, `${share} %`);
    })),
    h("p", r.reason),
    h("ol.changes", r.decisions.slice(0, 6).map(d =>
      h("li", when(d.at), " ", h("strong", d.kind), ` ${d.reason}`))),
    note(`Started by ${r.who}, `, when(r.started_at)));
}

function drawDrift() {
  const { drift } = data;
  if (wrong.drift?.status === 501) return fill("drift", h("p", "Not watched yet."), note(wrong.drift.message));
  return fill("drift", drift ? h("p", `${drift.status ?? "Watched."}`) : missing("drift"));
}

// Reading

const headers = { Accept: "application/json", "Content-Type": "application/json",
  "X-Client-Key": "page-" + Math.random().toString(36).slice(2) }; // one visitor keeps to one slot

async function read(address) {
  const answer = await fetch(address, { cache: "no-store", headers, signal: AbortSignal.timeout(POLL),
    ...address === "predict" && { method: "POST", body: "{}" } });
  const content = await answer.json().catch(() => null);
  if (answer.ok && content !== null) return content;
  throw Object.assign(new Error(content?.detail ?? `${address} answered ${answer.status}`), content, { status: answer.status });
}

function load(...names) {
  return Promise.all(names.map(async name => {
    const [address, ...draws] = PARTS[name];
    try {
      data[name] = await read(address);
      delete wrong[name];
    } catch (error) {
      wrong[name] = error;
      if (error.status) delete data[name]; // an answer that says no; where none came the last one stands
    }
    draws.forEach(draw => draw());
  }));
}

const loadAll = () => load(...Object.keys(PARTS));

async function poll() { // what the stream does not tell: bars by an ingest, what came true, news
  if (document.hidden) return;
  const before = data.model?.last_bar_end_at;
  await load("model", "record", "traffic", "news");
  if (wrong.forecast || data.model?.last_bar_end_at !== before) await load("bars", "forecast");
}

// The stream

function connect() {
  const address = new URL("ws/market-stream", document.baseURI);
  address.protocol = address.protocol.replace("http", "ws");
  if (stream.last !== null) address.searchParams.set("last_id", stream.last);
  const socket = new WebSocket(address);
  Object.assign(stream, { socket, retryAt: 0 });
  socket.onopen = () => {
    Object.assign(stream, { open: true, heard: Date.now() });
    showLink();
    loadAll();
  };
  socket.onmessage = message => {
    Object.assign(stream, { tries: 0, heard: Date.now() });
    hear(JSON.parse(message.data));
    showLink();
  };
  socket.onclose = () => socket === stream.socket && lost();
}

function lost() {
  const { socket, tries } = stream;
  const wait = 1e3 * Math.min(30, 2 ** tries) * (0.75 + Math.random() / 2);
  Object.assign(stream, { socket: null, open: false, tries: tries + 1, retryAt: Date.now() + wait });
  socket?.close();
  if (!data.model && !wrong.model) loadAll();
  showLink();
}

let soon; // forecasts may come in bursts
function hear({ id, kind, data: content }) {
  if (known(id)) stream.last = id;
  if (kind === "forecast") {
    const now = data.forecast;
    if (now && time(content.timestamp) > time(now.timestamp)) data.forecast = content; // it may resume
    drawForecast();
    clearTimeout(soon);
    soon = setTimeout(load, 300, "bars", "record", ...now ? [] : ["forecast"]);
  } else if (kind === "traffic" || kind === "rollout") load("traffic", "model", "forecast");
  else if (kind === "gap") loadAll();
}

function showLink() {
  const { open, tries, retryAt, heard } = stream, silent = Date.now() - heard, said = $("link-word");
  const away = !navigator.onLine ? "this device has no network" : retryAt < Date.now() ? "trying again"
    : `next try in ${Math.ceil((retryAt - Date.now()) / 1e3)} s`;
  const [word, why] = !open ? tries ? ["Offline", away] : ["Connecting", ""]
    : silent > SILENT ? ["Stale", `nothing heard for ${Math.round(silent / 1e3)} s`]
      : data.forecast || !wrong.forecast ? ["Live", ""] : ["Stale", wrong.forecast.title ?? "no forecast"];
  $("link").className = "link " + word.toLowerCase();
  if (said.textContent !== word) said.textContent = word;
  $("link-why").textContent = why;
}

addEventListener("offline", lost);
addEventListener("online", () => stream.socket || connect());
document.addEventListener("visibilitychange", poll);
setInterval(poll, POLL);
setInterval(load, 20 * POLL, "drift");
setInterval(() => {
  if (stream.retryAt && Date.now() >= stream.retryAt && navigator.onLine) connect();
  document.querySelectorAll(".age").forEach(node => refill(node, [age(node.dataset.at)]));
  showLink();
}, 1e3);

const resized = new ResizeObserver(entries => entries.forEach(entry => entry.target.redraw?.()));
document.querySelectorAll(".chart").forEach(box => resized.observe(box));
$("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
connect();
