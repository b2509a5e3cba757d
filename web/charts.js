// Charts: an element says what it shows (data-chart), from which part of the API (data-source), and which columns (data-series="column:Name").
// A chart has a text alternative: its aria-label, and the table beside it.
import { call, notify } from "./app.js";

const drawn = new Map();
const FORMATS = {
  money: (value) => `$${value.toLocaleString("en-US", { maximumFractionDigits: 0 })}`,
  percent: (value) => `${(value * 100).toFixed(1)} %`,
  number: (value) => value.toLocaleString("en-US", { maximumFractionDigits: 3 }),
};
const KINDS = { lines };

export function register(kind, draw) {
  KINDS[kind] = draw;
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export async function drawCharts(root) {
  for (const element of root.querySelectorAll("[data-chart]")) {
    if (drawn.has(element)) continue;
    drawn.set(element, null);
    try {
      drawn.set(element, await KINDS[element.dataset.chart](element, await call(element.dataset.source)));
    } catch (error) {
      element.append(Object.assign(document.createElement("p"), { className: "failed", textContent: error.message }));
      notify(error.message, "failed");
    }
  }
}

export function forgetCharts(root) {
  for (const [element, chart] of drawn) {
    if (root.contains(element)) {
      chart?.destroy?.();
      drawn.delete(element);
    }
  }
}

// Lines over sessions or numbers: {<x>: [...], <column>: [...]}; a null is a gap.
function lines(element, data) {
  const format = FORMATS[element.dataset.format] ?? FORMATS.number;
  const columns = element.dataset.series.split(",").map((one) => one.split(":"));
  const dates = typeof data[element.dataset.x][0] === "string";
  const x = data[element.dataset.x].map((one) => (dates ? Date.parse(`${one}T00:00:00Z`) / 1000 : one));
  if (!x.length) {
    element.append(Object.assign(document.createElement("p"), { className: "empty", textContent: "Nothing to show yet." }));
    return null;
  }
  const dashes = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
  const palette = ["agent", "equal", "benchmark", "shadow"];
  const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const chart = new uPlot(
    {
      width: element.clientWidth,
      height: Number(element.dataset.height ?? 260),
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      scales: { x: { time: dates } },
      series: [{}, ...columns.map(([, label], index) => ({
        label, stroke: colour(palette[index % 4]), dash: dashes[index % 4], width: 1.5, value: (_, value) => (value == null ? "–" : format(value)),
      }))],
      axes: [axis, { ...axis, size: 70, values: (_, values) => values.map(format) }],
    },
    [x, ...columns.map(([name]) => data[name])],
    element,
  );
  const watch = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height: chart.height }));
  watch.observe(element);
  return { destroy: () => (watch.disconnect(), chart.destroy()) };
}
