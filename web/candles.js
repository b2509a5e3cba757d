// Candles by lightweight-charts, which is fetched when the first one is drawn. A rising bar is hollow, a falling one filled, so that colour
// is not the only carrier. The link that its licence asks for stands on each chart: the library's own logo brings an inline style, which
// the policy of this page refuses.
import { colour, register } from "./charts.js";

const LIBRARY = "/assets/lightweight-charts.standalone.production.js";
const MARKS = {
  buy: { position: "belowBar", shape: "arrowUp", paint: "good" },
  sell: { position: "aboveBar", shape: "arrowDown", paint: "bad" },
  signal: { position: "inBar", shape: "circle", paint: "shadow" },
};
let loading = null;

function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: LIBRARY });
    script.onload = () => resolve(window.LightweightCharts);
    script.onerror = () => {
      loading = null;
      script.remove();
      reject(new Error("The candles' library did not load: look at the page again."));
    };
    document.head.append(script);
  });
  return loading;
}

// {sessions, open, high, low, close, markers: [{session, kind, text}]}
async function candles(element, data) {
  if (!data.sessions.length) {
    element.append(Object.assign(document.createElement("p"), { className: "empty", textContent: "The lake has no bars of this name yet." }));
    return null;
  }
  const { createChart, createSeriesMarkers, CandlestickSeries } = await library();
  const height = Number(element.dataset.height ?? 320);
  const room = () => element.clientWidth - parseFloat(getComputedStyle(element).paddingLeft) * 2;
  const line = { color: colour("line") };
  const chart = createChart(element, {
    width: room(),
    height,
    layout: { background: { type: "solid", color: colour("card") }, textColor: colour("soft"), attributionLogo: false },
    grid: { vertLines: line, horzLines: line },
    rightPriceScale: { borderColor: colour("line") },
    timeScale: { borderColor: colour("line"), timeVisible: false },
    localization: { priceFormatter: (price) => `$${price.toFixed(2)}` },
    handleScroll: { mouseWheel: false },
    handleScale: { mouseWheel: false },
  });
  const [good, bad] = [colour("good"), colour("bad")];
  const series = chart.addSeries(CandlestickSeries, {
    upColor: colour("card"), borderUpColor: good, wickUpColor: good, downColor: bad, borderDownColor: bad, wickDownColor: bad,
  });
  series.setData(data.sessions.map((time, index) => ({
    time, open: data.open[index], high: data.high[index], low: data.low[index], close: data.close[index],
  })));
  createSeriesMarkers(series, data.markers.map(({ session, kind }) => {
    const { position, shape, paint } = MARKS[kind];
    return { time: session, position, shape, color: colour(paint) };
  }));
  chart.timeScale().fitContent();
  element.append(Object.assign(document.createElement("a"), {
    className: "note", href: "https://www.tradingview.com/", target: "_blank", rel: "noopener noreferrer", textContent: "Charts by TradingView",
  }));
  const watch = new ResizeObserver(() => chart.resize(room(), height));
  watch.observe(element);
  return { destroy: () => (watch.disconnect(), chart.remove()) };
}

register("candles", candles);
