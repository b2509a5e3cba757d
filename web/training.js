// The training room: a file on its way up, columns confirmed, live curves, runs beside each other, the table of Q-learning, downloads.
import { call, notify } from "./app.js";
import { token } from "./auth.js";
import { colour, drawCharts, forgetCharts, register } from "./charts.js";

const POLL = 2000;
const METRICS = [
  ["reward", "Reward of a rollout"], ["excess", "Excess over equal weight, bp per session"], ["value_loss", "Value loss"],
  ["entropy", "Entropy"], ["explained_variance", "Explained variance"], ["steps_per_second", "Steps per second"],
];
const PALETTE = ["agent", "equal", "shadow", "benchmark"];
const DASHES = [[], [6, 3], [2, 3]];

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// --- a file on its way up

document.body.addEventListener("submit", (event) => {
  const form = event.target;
  const act = form.dataset.upload !== undefined ? send : form.dataset.columns !== undefined ? check : form.dataset.compare !== undefined ? compare : null;
  if (!act) return;
  event.preventDefault();
  const button = event.submitter ?? form.querySelector("button");
  button.disabled = true;
  Promise.resolve(act(form)).catch((error) => notify(error.message, "failed")).finally(() => (button.disabled = false));
});

async function send(form) {
  const file = form.elements.file.files[0];
  const most = Number(form.dataset.most);
  if (!file) return;
  if (file.size > most) throw new Error(`${file.name} has ${megabytes(file.size)}, at most ${megabytes(most)} are taken`);
  const place = await write("uploads", { file: file.name.slice(-255), size: file.size });
  await put(file, place.put, form);
  const run = await write("runs", { kind: "inspect", title: file.name.slice(0, 120), bars: { source: "upload", name: place.name } });
  location.hash = run.open;
}

function write(path, body) {
  return call(path, { method: "POST", body: JSON.stringify(body), headers: { "Idempotency-Key": crypto.randomUUID() } });
}

function put(file, url, form) {
  const line = form.querySelector("[data-sending]");
  const cancel = form.querySelector("[data-cancel]");
  const bar = line.querySelector("progress");
  const said = line.querySelector("output");
  const request = new XMLHttpRequest();
  line.hidden = cancel.hidden = false;
  cancel.onclick = () => request.abort();
  return new Promise((resolve, reject) => {
    const fails = (text) => () => reject(new Error(text));
    request.upload.onprogress = (event) => {
      bar.value = event.loaded / file.size;
      said.textContent = `${megabytes(event.loaded)} of ${megabytes(file.size)}`;
    };
    request.onload = () => (request.status < 300 ? resolve() : fails(refusal(request))());
    request.onerror = fails("The file did not arrive: the connection broke. Send it again.");
    request.onabort = fails("The upload was cancelled.");
    request.open("PUT", url);
    if (url.startsWith("/")) request.setRequestHeader("Authorization", `Bearer ${token()}`); // S3's address is signed instead
    request.send(file);
  }).finally(() => (line.hidden = cancel.hidden = true));
}

function refusal(request) {
  try {
    return JSON.parse(request.responseText).message;
  } catch {
    return `The file was refused: ${request.status} ${request.statusText}`;
  }
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1)} MB`;

async function check(form) {
  const columns = {};
  for (const select of form.querySelectorAll("select[data-column]")) if (select.value) columns[select.dataset.column] = select.value;
  const numbers = {};
  for (const select of form.querySelectorAll("select[data-form]")) {
    if (select.value && columns[select.dataset.form]) numbers[select.dataset.form] = select.value;
  }
  const bars = { source: "upload", name: form.dataset.columns, columns, numbers, adjusted: form.elements.adjusted.checked };
  const run = await write("runs", { kind: "inspect", title: form.dataset.title, bars });
  location.hash = run.open;
}

function compare(form) {
  const chosen = [...form.querySelectorAll("input[name=run]:checked")].map((one) => one.value);
  if (chosen.length < 2 || chosen.length > 6) throw new Error("Choose two to six trainings.");
  location.hash = `#/training/compare?runs=${chosen.join(",")}`;
}

document.body.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-download]");
  if (!button) return;
  try {
    const { link } = await call(button.dataset.download);
    made("a", { href: link, rel: "noreferrer" }).click();
  } catch (error) {
    notify(error.message, "failed");
  }
});

// --- curves: x counts folds, so that phases and runs of any length lie over each other

class Course {
  constructor(detail) {
    this.points = new Map();
    this.last = detail.events_after;
    detail.status.curve.forEach((point) => this.add(point));
  }

  add(point) {
    const name = `${point.seed}/${point.fold}`;
    // A fold that began again after a loss begins its curve again from there
    const kept = (this.points.get(name) ?? []).filter((one) => one.phase !== point.phase || one.timesteps < point.timesteps);
    this.points.set(name, [...kept, point]);
  }

  // seed -> [[x, point], ...]
  bySeed() {
    const folds = [...this.points.values()].map((one) => one[0].fold);
    const first = Math.min(...folds);
    const seeds = new Map();
    for (const points of [...this.points.values()].sort((a, b) => a[0].seed - b[0].seed || a[0].fold - b[0].fold)) {
      const phases = [...new Set(points.map((one) => one.phase))];
      const placed = points.map((one) => [round(one.fold - first + (phases.indexOf(one.phase) + one.timesteps / one.of) / phases.length), one]);
      seeds.set(points[0].seed, [...(seeds.get(points[0].seed) ?? []), ...placed.sort((a, b) => a[0] - b[0])]);
    }
    return seeds;
  }
}

const round = (value) => Math.round(value * 1e4) / 1e4;
const measured = (point, metric) => (point[metric] === null || metric !== "excess" ? point[metric] : point[metric] * 1e4);

// One small chart per metric that was measured: series are [label, [[x, value], ...]]
class Multiples {
  constructor(element) {
    this.element = element;
    this.shown = "";
    this.charts = [];
    this.watch = new ResizeObserver(() => this.charts.forEach(({ chart, box }) => chart.setSize({ width: box.clientWidth, height: 190 })));
    this.watch.observe(element);
  }

  draw(seriesOf) {
    const wanted = METRICS.map(([metric, words]) => [metric, words, seriesOf(metric).filter(([, points]) => points.some(([, value]) => value !== null))]).filter(
      ([, , series]) => series.length,
    );
    const shape = JSON.stringify(wanted.map(([metric, , series]) => [metric, series.map(([label]) => label)]));
    if (shape !== this.shown) this.rebuild(wanted, shape);
    this.charts.forEach(({ chart }, place) => chart.setData(aligned(wanted[place][2])));
    this.element.querySelector(".empty")?.remove();
    if (!wanted.length) this.element.append(made("p", { className: "empty", textContent: "No rollout has been measured yet." }));
  }

  rebuild(wanted, shape) {
    this.charts.forEach(({ chart }) => chart.destroy());
    this.shown = shape;
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const boxes = wanted.map(([, words]) => made("figure", { className: "chart", ariaLabel: words }, made("figcaption", { textContent: words })));
    this.element.replaceChildren(...boxes);
    this.charts = wanted.map(([, , series], place) => ({
      box: boxes[place],
      chart: new uPlot(
        {
          width: boxes[place].clientWidth - 16,
          height: 190,
          scales: { x: { time: false } },
          series: [
            { label: "folds", value: (_, value) => value?.toFixed(2) ?? "–" },
            ...series.map(([label], index) => ({
              label, spanGaps: true, width: 1.5, stroke: colour(PALETTE[index % 4]), dash: DASHES[Math.floor(index / 4) % 3],
              value: (_, value) => (value == null ? "–" : value.toPrecision(4)),
            })),
          ],
          axes: [axis, { ...axis, size: 64 }],
        },
        aligned(series),
        boxes[place],
      ),
    }));
  }

  destroy() {
    this.watch.disconnect();
    this.charts.forEach(({ chart }) => chart.destroy());
  }
}

// Every series over the x of all of them, null where it has none.
function aligned(series) {
  const x = [...new Set(series.flatMap(([, points]) => points.map(([at]) => at)))].sort((a, b) => a - b);
  return [x, ...series.map(([, points]) => { const known = new Map(points); return x.map((at) => known.get(at) ?? null); })];
}

function curves(element, detail) {
  const course = new Course(detail);
  const charts = new Multiples(element);
  const draw = () => charts.draw((metric) => [...course.bySeed()].map(([seed, points]) => [`seed ${seed}`, points.map(([x, one]) => [x, measured(one, metric)])]));
  draw();
  let timer = null;
  let over = false;
  async function poll() {
    if (document.hidden) return (timer = setTimeout(poll, POLL));
    try {
      const more = await call(`runs/${detail.run.id}/events?after=${course.last}`);
      if (over) return;
      course.last = more.last;
      const progress = more.events.filter((one) => one.kind === "progress");
      progress.forEach((one) => course.add(one));
      if (progress.length) draw();
      if (more.ended) return;
    } catch {
      // The page above says that the server does not answer; the next poll asks again
    }
    if (!over) timer = setTimeout(poll, POLL);
  }
  if (["queued", "running", "stopping"].includes(detail.run.state)) timer = setTimeout(poll, POLL);
  return { destroy: () => ((over = true), clearTimeout(timer), charts.destroy()) };
}

async function comparison(element, first) {
  const others = await Promise.all(element.dataset.others.split(",").map((id) => call(`runs/${id}`)));
  const runs = [first, ...others].map((detail) => [detail.run.title, new Course(detail)]);
  const charts = new Multiples(element);
  charts.draw((metric) => runs.map(([title, course], place) => [`${place + 1}: ${title}`, mean([...course.bySeed().values()], metric)]));
  return charts;
}

function mean(seeds, metric) {
  const sums = new Map();
  for (const [x, point] of seeds.flat()) {
    const value = measured(point, metric);
    if (value === null) continue;
    const [sum, count] = sums.get(x) ?? [0, 0];
    sums.set(x, [sum + value, count + 1]);
  }
  return [...sums].sort((a, b) => a[0] - b[0]).map(([x, [sum, count]]) => [x, sum / count]);
}

// --- the table of Q-learning: a row per state, the three values, the greedy action by letter and colour, how often it was tried

const LETTERS = { buy: "B", hold: "H", sell: "S" };

function qTable(element, table) {
  const { actions, features, states } = table;
  const all = states.flatMap((state) => Object.values(state.values).map(Math.abs));
  const most = Math.max(...all, 1e-9);
  const header = (text, numeric) => made("th", { scope: "col", textContent: text, className: numeric ? "" : "text" });
  const head = made("tr", {}, ...features.map((one) => header(one.name)), header("held"), header("does"), ...actions.map((one) => header(one, true)), header("tried", true), header("seeds agree", true));
  const rows = states.map((state) => {
    const tried = Object.values(state.visits).reduce((sum, one) => sum + one, 0);
    const does = tried
      ? made("td", { className: "text" }, made("span", { className: `action-${state.greedy}`, textContent: LETTERS[state.greedy] ?? state.greedy }), ` ${state.greedy}`)
      : made("td", { className: "text", textContent: "never seen" });
    const words = state.words.map((word, place) => made("td", { className: "text", textContent: word, title: features[place].bins[state.bins[place]].words }));
    const values = actions.map((action) => {
      const value = state.values[action];
      const strength = Math.min(4, Math.ceil((Math.abs(value) / most) * 4));
      const sign = value > 0 ? "up" : value < 0 ? "down" : "none";
      return made("td", { className: `heat ${sign}-${strength}${action === state.greedy && tried ? " greedy" : ""}`, textContent: `${value > 0 ? "+" : ""}${value.toFixed(2)}`, title: `${action}: tried ${state.visits[action].toLocaleString("en-US")} times` });
    });
    const more = [tried.toLocaleString("en-US"), tried ? `${Math.round(state.agree * 100)} %` : "–"].map((text) => made("td", { textContent: text }));
    return made("tr", {}, ...words, made("td", { className: "text", textContent: state.held ? "yes" : "no" }), does, ...values, ...more);
  });
  const counts = actions.map((action) => `${LETTERS[action] ?? action} (${action}) in ${states.filter((one) => one.greedy === action).length}`);
  const caption = made("caption", { textContent: `What it does in ${states.length} states: ${counts.join(", ")}. Values in ${table.unit}; ${Math.round(table.visited * 100)} % of all pairs were tried.` });
  const region = made("div", { className: "scroll tall", tabIndex: 0, role: "region", ariaLabel: "Table of values" }, made("table", { className: "q-table" }, caption, made("thead", {}, head), made("tbody", {}, ...rows)));
  const meanings = features.map((one) => made("li", { textContent: `${one.name}${one.formula ? ` = ${one.formula}` : ""}: ${one.bins.map((bin) => bin.words).join("; ")}` }));
  element.replaceChildren(region, made("details", {}, made("summary", { textContent: "What the words mean" }), made("ul", {}, ...meanings)));
  return null;
}

// --- another name on the candles of a backtest

document.body.addEventListener("change", (event) => {
  const figure = document.getElementById(event.target.dataset?.candles ?? "");
  if (!figure) return;
  forgetCharts(figure.parentElement);
  figure.replaceChildren();
  figure.dataset.source = `runs/${figure.dataset.run}/candles?symbol=${encodeURIComponent(event.target.value)}`;
  drawCharts(figure.parentElement);
});

register("run-curves", curves);
register("run-comparison", comparison);
register("q-table", qTable);
