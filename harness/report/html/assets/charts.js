// Curves over steps: values under the pointer or the arrow keys, methods and seeds to be switched on and off.
"use strict";

const MEAN = "mean";

// Distances between the axis' steps, which are whole numbers.
const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((times) => times * 10 ** power));

class Chart {
  constructor(host, content) {
    this.host = host;
    this.lines = content.lines;
    this.sources = content.sources;
    this.panels = content.panels;
    this.panel = content.panels[0].name;
    const labels = distinct(content.lines.map((line) => line.label));
    const seeds = distinct(content.lines.map((line) => line.seed).filter((seed) => seed !== null));
    this.hidden = new Set();
    this.shown = new Set([MEAN]);
    // Without a mean (its runs are not all complete), the seeds are what there is.
    if (!content.lines.some((line) => line.seed === null)) seeds.forEach((seed) => this.shown.add(String(seed)));
    this.plots = [];
    this.#controls(labels, seeds);
    this.draw();
    darkMode.addEventListener("change", () => this.draw());
  }

  #controls(labels, seeds) {
    const controls = this.host.querySelector(".controls");
    if (this.panels.length > 1) {
      const options = this.panels.map((panel) => [panel.name, panel.title]);
      controls.append(choice("panel", "Shown", options, (value) => { this.panel = value; this.draw(); }));
    }
    const ofMethods = element("fieldset", {}, element("legend", {}, "Methods"));
    labels.forEach((label) => {
      const color = this.lines.find((line) => line.label === label).color;
      ofMethods.append(this.#box(label, true, (on) => this.hidden[on ? "delete" : "add"](label), color));
    });
    controls.append(ofMethods);
    if (!seeds.length) return;
    const ofSeeds = element("fieldset", {}, element("legend", {}, "Seeds"));
    [MEAN, ...seeds.map(String)].forEach((name) => {
      ofSeeds.append(this.#box(name, this.shown.has(name), (on) => this.shown[on ? "add" : "delete"](name)));
    });
    controls.append(ofSeeds);
  }

  #box(label, checked, onChange, color = null) {
    const box = element("input", { type: "checkbox", checked });
    box.addEventListener("change", () => { onChange(box.checked); this.draw(); });
    return element("label", { className: "box" }, box, color ? swatch(color) : null, label);
  }

  draw() {
    this.plots.forEach((plot) => plot.destroy());
    const visible = this.lines.filter((line) => line.panel === this.panel && !this.hidden.has(line.label)
      && this.shown.has(line.seed === null ? MEAN : String(line.seed)));
    const panel = this.panels.find((one) => one.name === this.panel);
    const panes = this.sources.map((source) => this.#pane(source, panel, visible.filter((line) => line.source === source)));
    this.host.querySelector(".plots").replaceChildren(...panes.map((pane) => pane.node));
    this.plots = panes.map((pane) => pane.draw()).filter((plot) => plot !== null);
  }

  #pane(source, panel, lines) {
    const title = `${panel.title}${panel.unit && panel.unit !== panel.name ? `, ${panel.unit}` : ""}`;
    const place = element("div", { className: "plot", tabIndex: 0 });
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", `${title}, trained on ${source}; arrow keys move over steps`);
    const readout = element("div", { className: "readout" });
    readout.setAttribute("aria-live", "polite");
    const node = element("div", { className: "pane" }, element("h4", {}, `Trained on ${source}`),
      element("p", { className: "unit" }, title), place, readout);
    return { node, draw: () => (lines.length ? plotted(place, readout, lines) : nothing(place)) };
  }
}

function nothing(place) {
  place.append(element("p", { className: "note" }, "Nothing to show with this choice."));
  return null;
}

/** The lines on one axis of steps, null where a line has no value. */
function aligned(lines) {
  const steps = distinct(lines.flatMap((line) => line.steps)).sort((a, b) => a - b);
  const at = new Map(steps.map((step, place) => [step, place]));
  const column = (line, values) => {
    const all = new Array(steps.length).fill(null);
    line.steps.forEach((step, place) => { all[at.get(step)] = values[place]; });
    return all;
  };
  return { steps, column };
}

function plotted(place, readout, lines) {
  const { steps, column } = aligned(lines);
  const data = [steps], series = [{}], bands = [];
  lines.forEach((line) => {
    const color = onPage(line.color);
    if (line.low) {
      const none = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
      bands.push({ series: [series.length, series.length + 1], fill: faint(color) });
      series.push({ ...none }, { ...none });
      data.push(column(line, line.high), column(line, line.low));
    }
    const width = line.seed === null ? 2 : 1;
    series.push({ stroke: color, width, dash: line.dash, spanGaps: true, points: { show: line.steps.length < 12 }, line });
    data.push(column(line, line.values));
  });
  const axis = { stroke: styleOf("--soft"), grid: { stroke: styleOf("--rule"), width: 1 }, ticks: { stroke: styleOf("--rule") } };
  const options = {
    width: place.clientWidth, height: 240, series, bands, legend: { show: false },
    scales: { x: { time: false } }, cursor: { drag: { x: false, y: false }, y: false },
    axes: [{ ...axis, label: "step", labelSize: 20, incrs: WHOLE }, { ...axis, size: 56 }],
    hooks: { setCursor: [(plot) => tell(plot, readout)] },
  };
  const plot = new uPlot(options, data, place);
  place.onkeydown = (event) => move(event, plot, steps);
  new ResizeObserver(() => {
    if (place.clientWidth && place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height: 240 });
  }).observe(place);
  tell(plot, readout);
  return plot;
}

function faint(color) {
  const parts = color.startsWith("#") ? [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)) : color.match(/\d+/g);
  return `rgba(${parts.join(",")},0.18)`;
}

function move(event, plot, steps) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const from = plot.cursor.idx ?? (by > 0 ? -1 : steps.length);
  const to = Math.min(Math.max(from + by, 0), steps.length - 1);
  plot.setCursor({ left: plot.valToPos(steps[to], "x"), top: 0 });
}

/** The values at the cursor, the largest first. */
function tell(plot, readout) {
  const at = plot.cursor.idx;
  if (at === null || at === undefined) {
    readout.replaceChildren(element("span", { className: "note" }, "Values: point at the chart, or focus it and press ← →."));
    return;
  }
  const found = plot.series.map((one, n) => [one.line, plot.data[n][at]]).filter(([line, value]) => line && value !== null);
  found.sort((a, b) => b[1] - a[1]);
  readout.replaceChildren(element("span", { className: "step" }, `step ${plot.data[0][at]}`), ...found.map(([line, value]) =>
    element("span", { className: "value" }, swatch(line.color),
      `${line.label}${line.seed === null ? "" : ` seed ${line.seed}`} ${Number(value.toPrecision(4))}`)));
}

unpack("charts").then((charts) => {
  document.querySelectorAll("[data-chart]").forEach((host) => {
    const content = charts[host.dataset.chart];
    if (content) new Chart(host, content);
  });
});
