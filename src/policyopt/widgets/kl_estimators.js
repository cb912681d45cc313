// KL estimators: k1, k2 and k3 on samples of one Gaussian, beside the exact KL divergence to another. Everything
// above "The figure" touches no page: the tests run it in Node.

import {
  attribute, button, buttonGroup, figureBox, h, known, liveRegion, meter, mount, normal, plain, press, randomStream,
  sharpPen, signed, text,
} from "./common.js";

// --- p = N(0, 1), q = N(shift, spread²), and what is exactly true of them, in float64 -----------------------------

const density = (x, mean, deviation) =>
  Math.exp(-0.5 * ((x - mean) / deviation) ** 2) / (Math.sqrt(2 * Math.PI) * deviation);

/** log q(x) − log p(x) = c0 + c1 x + c2 x². */
const coefficients = ({ shift, spread }) => [
  -Math.log(spread) - (shift / spread) ** 2 / 2, shift / spread ** 2, (1 - spread ** -2) / 2,
];
function logRatio(x, pair) {
  const [c0, c1, c2] = coefficients(pair);
  return c0 + c1 * x + c2 * x * x;
}

/** k1, k2 and k3 of a log-ratio, as policyopt.losses has them. */
const estimates = (ratio) => [-ratio, 0.5 * ratio * ratio, Math.expm1(ratio) - ratio];

/** −∂k/∂μ of each at p's mean μ = 0 while the sample x stays: the log-ratio's own derivative by μ is −x. */
const pushes = (x, ratio) => [-x, x * ratio, x * Math.expm1(ratio)];

const VIEWS = ["value", "gradient"];
const perSample = (view, x, pair) => {
  const ratio = logRatio(x, pair);
  return view === "value" ? estimates(ratio) : pushes(x, ratio);
};

const divergence = ({ shift, spread }) => Math.log(spread) + (shift ** 2 + 1 - spread ** 2) / (2 * spread ** 2);
const reverseDivergence = ({ shift, spread }) => -Math.log(spread) + (shift ** 2 + spread ** 2 - 1) / 2;

/** Whether the variance of q/p, and with it that of k3, is infinite: (q/p)² then outgrows p's tails. */
const isHeavy = ({ spread }) => spread ** 2 >= 2;

/** E[(q/p)²] − 1 under p. */
function ratioVariance({ shift, spread }) {
  if (isHeavy({ spread })) return Infinity;
  const left = 2 - spread ** 2;
  return Math.expm1(-Math.log(spread) - Math.log(left) / 2 + shift ** 2 / left);
}

const deviationOf = (variance) => Math.sqrt(Math.max(variance, 0));

/** KL(p ‖ q), and for each estimator the mean and standard deviation of one sample's value. */
function exactValues(pair) {
  const kl = divergence(pair);
  const [, b, a] = coefficients(pair);
  // the cumulants of the log-ratio, a quadratic in a standard normal x, give k2's moments
  const [k1, k2, k3, k4] = [-kl, b ** 2 + 2 * a ** 2, 8 * a ** 3 + 6 * a * b ** 2, 48 * a ** 2 * (a ** 2 + b ** 2)];
  const square = k2 + k1 ** 2;
  const fourth = k4 + 4 * k3 * k1 + 3 * k2 ** 2 + 6 * k2 * k1 ** 2 + k1 ** 4;
  const third = ratioVariance(pair) - 2 * (kl + reverseDivergence(pair)) + k2;
  return {
    truth: kl,
    rows: [
      { mean: kl, deviation: Math.sqrt(k2) },
      { mean: square / 2, deviation: deviationOf(fourth - square ** 2) / 2 },
      { mean: kl, deviation: deviationOf(third) },
    ],
  };
}

/** The same for the pushes; the truth is −∂KL(p ‖ q)/∂μ. */
function exactPushes(pair) {
  const { shift, spread } = pair;
  const [c0, c1, c2] = coefficients(pair);
  const truth = c1;
  const second = c0 ** 2 + 2 * c1 ** 2 + 15 * c2 ** 2 + 6 * c0 * c2;
  let third = Infinity;
  if (!isHeavy(pair)) {
    const left = 2 - spread ** 2; // (q/p)² p is a Gaussian again, but for its size
    const moment = spread ** 2 / left + ((2 * shift) / left) ** 2;
    third = 1 - 2 * (spread ** 2 + shift ** 2) + (1 + ratioVariance(pair)) * moment - shift ** 2;
  }
  return {
    truth,
    rows: [
      { mean: 0, deviation: 1 },
      { mean: truth, deviation: deviationOf(second) },
      { mean: shift, deviation: deviationOf(third) },
    ],
  };
}

const exact = (pair, view) => (view === "value" ? exactValues(pair) : exactPushes(pair));

/** P(x ≤ limit) for a standard normal x, by Simpson's rule. */
function normalCdf(limit) {
  if (Math.abs(limit) > 9) return limit > 0 ? 1 : 0;
  const steps = 2000;
  const width = limit / steps;
  let sum = density(0, 0, 1) + density(limit, 0, 1);
  for (let i = 1; i < steps; i++) sum += (i % 2 ? 4 : 2) * density(i * width, 0, 1);
  return 0.5 + (sum * width) / 3;
}

/** The probability that a sample of p makes k1 negative: that q is larger than p there. */
function negativeShare(pair) {
  const [c0, c1, c2] = coefficients(pair);
  if (c2 === 0) return c1 === 0 ? 0 : normalCdf(c0 / c1);
  const half = -(c1 + Math.sqrt(c1 * c1 - 4 * c2 * c0)) / 2; // c1 ≥ 0, so that nothing cancels
  const [low, high] = [half / c2, c0 / half].sort((one, other) => one - other);
  const between = normalCdf(high) - normalCdf(low);
  return c2 > 0 ? 1 - between : between;
}

/** Mean and standard error of values, null where there are too few. */
function summarise(values) {
  const count = values.length;
  if (count === 0) return { count, mean: null, error: null };
  const mean = values.reduce((a, b) => a + b) / count;
  if (count === 1) return { count, mean, error: null };
  const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { count, mean, error: Math.sqrt(square / (count - 1) / count) };
}

/** The part of the axis that is shown: chosen by the two densities, so that no sample moves it. */
function axisRange(pair, view) {
  const { truth, rows: [first, second, third] } = exact(pair, view);
  if (view === "value") {
    const unit = Math.max(first.deviation, 0.05);
    return [Math.min(truth - 3.2 * unit, -0.4 * unit), Math.max(truth + 4 * unit, 1.15 * second.mean)];
  }
  const reach = Math.max(3, 2.2 * second.deviation);
  return [Math.min(-3, truth - reach), Math.max(3, truth + reach, 1.2 * third.mean)];
}

/** The round numbers in a range, at most so many of them. */
function ticksOf([low, high], most) {
  const raw = (high - low) / most;
  const ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * ten).find((size) => size >= raw * (1 - 1e-9));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) {
    ticks.push({ at: i * step, words: plain(i * step, digits) });
  }
  return ticks;
}

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";
/** About three figures of a number that may be enormous. */
function figures(value, write = plain) {
  const size = Math.abs(value);
  if (size === Infinity) return "∞";
  if (size >= 99_950) return `10${[...String(Math.round(Math.log10(size)))].map((digit) => RAISED[digit]).join("")}`;
  return write(value, size < 9.995 ? (size < 0.9995 ? 3 : 2) : size < 99.95 ? 1 : 0);
}
const times = (ratio) => (ratio < 0.995 ? plain(ratio, 2) : figures(ratio));
const sizeOf = (deviation, pair) => (deviation === Infinity && !isHeavy(pair) ? "> 10¹⁵⁰" : figures(deviation));
const percent = (share) => (Math.abs(share) < 0.005 && share !== 0 ? "less than 1 %" : `${plain(100 * share, 0)} %`);

/** What there is to see at this setting, in words. */
function verdict(pair, view) {
  const { shift, spread } = pair;
  const { truth, rows: [first, second, third] } = exact(pair, view);
  if (view === "gradient") {
    if (shift === 0) return "The means agree: no push is due, and on average none of the three gives one.";
    const same = spread === 1 ? "; with equal spreads both are the same" : "";
    const heavy = isHeavy(pair) ? ", and its variance is infinite: far out (q/p)² grows faster than p falls" : "";
    return "As a penalty, k₁ is only noise: on average it does not push p’s mean μ at all. k₂ pushes by " +
      `${figures(second.mean)}, the true gradient of KL(p ‖ q); k₃ by ${figures(third.mean)}, the gradient of ` +
      `KL(q ‖ p)${same}${heavy}.`;
  }
  if (shift === 0 && spread === 1) {
    return "p and q are the same: every sample gives exactly 0, and all three estimators are right.";
  }
  if (isHeavy(pair)) {
    return "q is so wide that k₃ breaks down. It is right on average and never below 0, but its variance is " +
      "infinite, because far out (q/p)² grows faster than p falls: no error bar around its mean can be trusted.";
  }
  if (third.deviation > first.deviation) {
    const rare = shift >= 1.5
      ? "Half of the mean of q/p comes from samples beyond q’s mean: p draws one only 1 time in " +
        `${Math.round(1 / normalCdf(-shift))}, and until then k₃’s mean tends to be too low.`
      : "Where q is much larger than p, a rare sample counts for very much.";
    return "k₃ is right on average and never below 0, but here it is noisier than k₁: its standard deviation is " +
      `${sizeOf(third.deviation, pair)} against ${figures(first.deviation)}. ${rare}`;
  }
  const close = truth < 0.1 ? "p and q are close. " : "";
  return `${close}k₁ is right on average, but ${percent(negativeShare(pair))} of its values are below 0, and its ` +
    `standard deviation is ${times(first.deviation / truth)} times the KL. k₃ is also right on average, never ` +
    `below 0, and its standard deviation is ${percent(1 - third.deviation / first.deviation)} smaller. k₂ is ` +
    `biased by ${percent(second.mean / truth - 1)} of the KL.`;
}

// --- The figure ---------------------------------------------------------------------------------------------------

const RANGES = { shift: [0, 3], spread: [0.5, 2] };
const SLIDERS = [
  { name: "shift", symbol: "μ", words: "mean of q", of: "p: 0" },
  { name: "spread", symbol: "σ", words: "spread of q", of: "p: 1" },
];
const STEP = 0.05; // of a slider
const MOST = 2000; // samples
const NAMES = ["k₁", "k₂", "k₃"];
const FORMULAS = {
  value: ["−log(q/p)", "½ (log q/p)²", "q/p − 1 − log(q/p)"],
  gradient: ["−x", "x · log(q/p)", "x · (q/p − 1)"],
};
const UNITS = { value: "nats", gradient: "nats per unit of μ" };
const AXIS = [-4, 7]; // of x
const SIDE = 12; // pixels left free beside the axis
const DENSITIES = { top: 30, height: 138, dots: 32, under: 24 };
const STRIP = { top: 26, height: 54, under: 32 };
const BIN = 6; // pixels
const REACH = 34; // pixels around a handle

const CSS = `
:host { --p: #0072b2; --q: #00795a; --below: #c04f00; }
:host([data-theme="dark"]) { --p: #56b4e9; --q: #2fd6a5; --below: #ff8b47; }
.hint { margin: .5rem 0 0; font-size: .88rem; color: var(--muted); }
.stage { margin: .6rem 0 .3rem; }
.stage[data-over] { cursor: grab; }
.seed { font-size: .86rem; font-variant-numeric: tabular-nums; }
.last {
  display: grid; grid-template-columns: auto 1fr; gap: 0 1.2em; margin: 0; font-size: .84rem; min-height: 2.9em;
  align-content: center; font-variant-numeric: tabular-nums;
}
.last span { white-space: nowrap; }
.controls { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .4rem 1.6rem; align-items: center; }
.controls label { display: block; font-size: .88rem; }
.controls label > span { display: flex; justify-content: space-between; gap: .5em; }
.controls :is(i, b) { font-weight: 650; font-style: normal; font-variant-numeric: tabular-nums; }
.controls small { color: var(--muted); font-size: .8rem; }
.controls input { display: block; }
sub { font-size: .75em; line-height: 0; }
.buttons { display: flex; flex-wrap: wrap; gap: .5rem; }
.head { margin-top: .8rem; padding-top: .7rem; border-top: 1px solid var(--line); }
.truth { margin: 0; white-space: nowrap; font-size: 1.02rem; font-variant-numeric: tabular-nums; }
.truth::before {
  content: ""; display: inline-block; width: 3px; height: 1.1em; margin-right: .6em; vertical-align: -.15em;
  background: var(--text);
}
.truth small { font-size: .84rem; color: var(--muted); }
.view { display: flex; align-items: center; white-space: nowrap; gap: .5rem; font-size: .86rem; }
.legend {
  display: flex; flex-wrap: wrap; gap: 0 1.1em; margin: .5rem 0 .1rem; font-size: .8rem; color: var(--muted);
}
.legend i { font-style: normal; color: var(--text); margin-right: .3em; }
.legend span { white-space: nowrap; }
.row {
  display: grid; grid-template: "name name" "strip facts" / minmax(0, 1.2fr) minmax(0, 1fr); gap: 0 1.2rem;
  margin-top: .55rem;
}
.name {
  grid-area: name; display: flex; flex-wrap: wrap; gap: 0 .8em; margin: 0 0 .2rem; justify-content: space-between;
}
.name b { font-weight: 650; }
.name span:last-child { font-size: .84rem; color: var(--muted); }
.strip { grid-area: strip; background: var(--sheet); border-radius: 8px; overflow: hidden; align-self: start; }
.facts { grid-area: facts; align-self: center; table-layout: fixed; }
.facts :is(th, td) { padding: .2rem 0; white-space: nowrap; }
.facts col:first-child { width: 4.6rem; }
.facts col:nth-child(3) { width: 3.9rem; }
.facts col:nth-child(4) { width: 4.8rem; }
.facts td.share { padding-left: .4rem; color: var(--muted); font-size: .8rem; }
.meter { position: relative; }
.meter > span { background: var(--text); }
.meter.beyond > span {
  background: repeating-linear-gradient(135deg, var(--text) 0 4px, var(--sheet) 4px 7px);
}
.verdict {
  margin: .8rem 0 0; padding: .1rem 0 .1rem .75rem; border-left: 4px solid var(--p); font-size: .95rem;
  min-height: 4.6em; display: flex; align-items: center;
}
@container (max-width: 620px) {
  .controls { gap: .2rem 1rem; }
  .controls small { display: none; }
  .buttons, .last { grid-column: 1 / -1; }
  .buttons button { flex: 1 1 auto; padding: .35rem .4rem; }
  .row { grid-template: "name" "strip" "facts" / minmax(0, 1fr); margin-top: .9rem; }
  .facts { margin-top: .2rem; }
  .view { width: 100%; }
  .view .group { flex: 1; }
  .view .group button { flex: 1; }
  .last { grid-template-columns: 1fr 1fr; }
  .verdict { min-height: 10.4em; }
  .truth { font-size: .95rem; }
  .truth small { font-size: .8rem; }
  .name { flex-direction: column; }
}
`;

const xOf = (x, width) => SIDE + ((x - AXIS[0]) / (AXIS[1] - AXIS[0])) * (width - 2 * SIDE);
const xAt = (pixels, width) => AXIS[0] + ((pixels - SIDE) / (width - 2 * SIDE)) * (AXIS[1] - AXIS[0]);
/** How high a density stands over the axis, of which there is always the taller one's room. */
const heightOf = (value, { spread }) => (DENSITIES.height * value) / (density(0, 0, 1) * Math.max(1, 1 / spread));

/** Where q's handles are, in pixels: its peak, which moves it, and a point one deviation off, which widens it. */
const handles = (pair, width) => {
  const y = (x) => DENSITIES.top + DENSITIES.height - heightOf(density(x, pair.shift, pair.spread), pair);
  return Object.entries({ shift: pair.shift, spread: pair.shift + pair.spread }).map(([name, x]) => ({
    name, at: [xOf(x, width), y(x)],
  }));
};

function brush(canvas, height, styles) {
  const pen = sharpPen(canvas, height);
  const colour = (name) => styles.getPropertyValue(name).trim();
  return {
    pen,
    colour,
    line(points, stroke, lineWidth, dash = []) {
      pen.strokeStyle = colour(stroke);
      pen.lineWidth = lineWidth;
      pen.setLineDash(dash);
      pen.beginPath();
      for (const point of points) pen.lineTo(...point);
      pen.stroke();
      pen.setLineDash([]);
    },
    shape(points, fill) {
      pen.fillStyle = colour(fill);
      pen.beginPath();
      for (const point of points) pen.lineTo(...point);
      pen.fill();
    },
    dot([x, y], radius, fill, stroke = null, lineWidth = 2) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fillStyle = colour(fill);
      pen.fill();
      if (stroke === null) return;
      pen.strokeStyle = colour(stroke);
      pen.lineWidth = lineWidth;
      pen.stroke();
    },
    write(words, x, y, { align = "center", ink = "--muted", weight = 400, size = 12.5 } = {}) {
      pen.font = `${weight} ${size}px system-ui, sans-serif`;
      pen.textAlign = align;
      pen.fillStyle = colour(ink);
      pen.fillText(words, x, y);
      return pen.measureText(words).width;
    },
  };
}

/** Draws both densities, q's handles, and the samples under them. */
function drawDensities(canvas, { pair, xs }, styles) {
  const width = canvas.clientWidth;
  const base = DENSITIES.top + DENSITIES.height;
  const bottom = base + DENSITIES.dots + 8;
  const { pen, colour, line, dot, write } = brush(canvas, bottom + DENSITIES.under, styles);
  const at = (x) => xOf(x, width);
  const curve = (mean, deviation) => Array.from({ length: 221 }, (_, i) => {
    const x = AXIS[0] + (i / 220) * (AXIS[1] - AXIS[0]);
    return [at(x), base - heightOf(density(x, mean, deviation), pair)];
  });
  const p = curve(0, 1);
  const q = curve(pair.shift, pair.spread);

  for (const [points, ink] of [[p, "--p"], [q, "--q"]]) {
    pen.globalAlpha = 0.1;
    pen.fillStyle = colour(ink);
    pen.beginPath();
    for (const point of [[p[0][0], base], ...points, [p.at(-1)[0], base]]) pen.lineTo(...point);
    pen.fill();
    pen.globalAlpha = 1;
  }
  line([[at(AXIS[0]), base], [at(AXIS[1]), base]], "--control", 1);
  for (let x = AXIS[0]; x <= AXIS[1]; x += 2) {
    line([[at(x), base], [at(x), base + 4]], "--control", 1);
    write(plain(x, 0), at(x), bottom + 14);
  }
  write("x", at(AXIS[1]), bottom + 14, { align: "right", ink: "--text", weight: 650 });
  line(p, "--p", 4);
  line(q, "--q", 2.5, [7, 4]);

  // their names, p's to its left and q's to its right
  const name = (letter, index, x, y, ink, align) => {
    pen.font = "650 14px system-ui, sans-serif";
    const whole = pen.measureText(`${letter} = π`).width;
    pen.font = "650 12px system-ui, sans-serif";
    const end = pen.measureText(index).width;
    const start = align === "right" ? x - whole - end : x;
    write(`${letter} = π`, start, y, { align: "left", ink, weight: 650, size: 14 });
    write(index, start + whole + 1, y + 4, { align: "left", ink, weight: 650, size: 12 });
  };
  const beside = (x, mean, deviation) => base - heightOf(density(x, mean, deviation), pair);
  name("p", "θ", at(-1.15) - 8, beside(-1.15, 0, 1) - 10, "--p", "right");
  const [peak, ring] = handles(pair, width);
  name("q", "ref", Math.min(ring.at[0] + 15, width - 62), ring.at[1] - 8, "--q", "left");

  // the samples, spread in height only so that they can be told apart; the newest with its two densities
  pen.globalAlpha = xs.length > 300 ? 0.35 : 0.65;
  xs.forEach((x, i) => {
    if (i < xs.length - 1) dot([at(x), base + 12 + ((i * 0.618034) % 1) * (DENSITIES.dots - 8)], 2.6, "--p");
  });
  pen.globalAlpha = 1;
  if (xs.length) {
    const x = xs.at(-1);
    const y = base + 12 + (((xs.length - 1) * 0.618034) % 1) * (DENSITIES.dots - 8);
    const over = base - heightOf(density(x, 0, 1), pair);
    const under = base - heightOf(density(x, pair.shift, pair.spread), pair);
    line([[at(x), y], [at(x), Math.min(over, under)]], "--text", 1);
    dot([at(x), over], 4, "--p", "--sheet", 1.5);
    dot([at(x), under], 4, "--q", "--sheet", 1.5);
    dot([at(x), y], 4.5, "--text", "--sheet", 1.5);
  }
  dot(peak.at, 8, "--q", "--paper", 2.5);
  dot(ring.at, 7, "--paper", "--q", 3);
}

/** Draws one estimator's values as a histogram, its mean above, its expectation below, and the truth as a line. */
function drawStrip(canvas, { view, values, range, truth, mean, summary }, styles) {
  const width = canvas.clientWidth;
  const base = STRIP.top + STRIP.height;
  const { pen, colour, line, shape, dot, write } = brush(canvas, base + STRIP.under, styles);
  const inner = width - 2 * SIDE;
  const at = (value) => SIDE + ((value - range[0]) / (range[1] - range[0])) * inner;
  const inside = (pixels) => Math.max(SIDE - 6, Math.min(width - SIDE + 6, pixels));
  const isOver = (pixels) => pixels > width - SIDE + 6;

  line([[SIDE, base], [width - SIDE, base]], "--control", 1);
  for (const tick of ticksOf(range, Math.floor(inner / 55))) {
    line([[at(tick.at), base], [at(tick.at), base + 4]], "--control", 1);
    write(tick.words, at(tick.at), base + 26, { size: 12 });
  }
  line([[at(0), STRIP.top + 6], [at(0), base]], "--control", 1, [2, 3]);

  // bins that begin at 0, so that none holds values from both sides of it
  const bins = new Map();
  const beyond = { low: 0, high: 0 };
  for (const value of values) {
    const pixels = at(value);
    if (pixels > width - SIDE) beyond.high += 1;
    else if (pixels < SIDE - BIN) beyond.low += 1;
    else {
      const bin = Math.floor((pixels - at(0)) / BIN + (value === 0 ? 1e-9 : 0));
      bins.set(bin, (bins.get(bin) ?? 0) + 1);
    }
  }
  const unit = Math.min(BIN, STRIP.height / Math.max(1, ...bins.values()));
  for (const [bin, count] of bins) {
    const size = Math.max(unit * count, 2);
    const [left, top] = [at(0) + bin * BIN, base - size];
    if (bin < 0) {
      pen.strokeStyle = colour("--below");
      pen.lineWidth = 1.2;
      pen.strokeRect(left + 0.6, top + 0.6, BIN - 2.2, Math.max(size - 1.2, 0.8));
    } else {
      pen.fillStyle = colour("--p");
      pen.fillRect(left, top, BIN - 1, size);
    }
  }
  line([[at(truth), 3], [at(truth), base]], "--text", 2.5);
  const look = { ink: "--text", size: 12 };
  if (beyond.low) write(`◂ ${beyond.low} beyond`, 7, STRIP.top + 13, { ...look, align: "left" });
  if (beyond.high) write(`${beyond.high} beyond ▸`, width - 7, STRIP.top + 13, { ...look, align: "right" });

  if (view === "gradient") {
    const [from, to] = [at(0), at(mean)];
    if (Math.abs(to - from) > 3) {
      const side = Math.sign(to - from);
      line([[from, base + 9], [to - side * 6, base + 9]], "--text", 3);
      shape([[to, base + 9], [to - side * 9, base + 4], [to - side * 9, base + 14]], "--text");
    } else line([[from, base + 5], [from, base + 13]], "--text", 3);
  } else {
    const place = inside(at(mean));
    shape([[place, base + 3], [place - 6, base + 13], [place + 6, base + 13]], "--text");
  }
  if (summary.mean !== null) {
    const place = Math.max(at(summary.mean), SIDE - 6);
    if (isOver(place)) write("◆ ▸", width - 6, 18, { align: "right", ink: "--text", size: 13 });
    else {
      const reach = summary.error === null ? 0 : Math.abs(at(2 * summary.error) - at(0));
      const ends = [inside(place - reach), inside(place + reach)];
      line([[ends[0], 14], [ends[1], 14]], "--text", 2);
      for (const end of reach > 7 ? ends : []) line([[end, 9], [end, 19]], "--text", 2);
      shape([[place, 7], [place + 6, 14], [place, 21], [place - 6, 14]], "--text");
    }
    const last = at(values.at(-1));
    if (last <= width - SIDE) dot([inside(last), base], 4.5, "--text", "--sheet", 1.5);
  }
}

function render({ model, el }) {
  const now = { shift: 1, spread: 1, view: "value" };
  let seed, next, xs;

  // --- elements
  const canvas = h("canvas", { role: "img" });
  const stage = h("div", { class: "stage" }, canvas);
  const sliders = SLIDERS.map(({ name, symbol, words, of }) => {
    const [min, max] = RANGES[name];
    const value = h("b", { "data-value": name });
    const input = h("input", {
      type: "range", min, max, step: STEP, "aria-label": `${words} (of ${of})`, "data-slider": name,
      oninput: () => set({ [name]: Number(input.value) }), onchange: () => announce(),
    });
    const label = h("span", {},
      h("span", {}, h("i", {}, symbol, h("sub", {}, "q")), ` ${words} `, h("small", {}, `(${of})`)), value);
    return { name, input, value, node: h("label", {}, label, input) };
  });
  const oneButton = button("Draw one", () => draw(1));
  const manyButton = button("Draw 100", () => draw(100));
  const facts = Object.fromEntries(
    ["x", "p", "q", "log-ratio"].map((name) => [name, h("span", { "data-fact": name })]),
  );
  const truthText = h("span", { "data-fact": "truth" });
  const truthSmall = h("small", {});
  const viewButtons = ["a value", "a gradient"].map((words, i) =>
    button(words, () => set({ view: VIEWS[i] }, true), { "data-view": VIEWS[i] }));
  const legendMean = h("span", { "data-fact": "count" });
  const legendExpected = h("span", {});
  const legendSign = h("i", { "aria-hidden": "true" });
  const legendBelow = h("span", {});
  const rows = NAMES.map((name, i) => {
    const strip = h("canvas", { role: "img" });
    const formula = h("span", {});
    const claim = h("span", { "data-claim": i + 1 });
    const cells = Object.fromEntries(["mean", "bias", "deviation", "biasShare", "deviationShare"].map((cell) =>
      [cell, h("td", { class: cell.endsWith("Share") ? "share" : "number", "data-cell": `${cell}-${i + 1}` })]));
    cells.mean.setAttribute("colspan", "3");
    const fills = { bias: h("span"), deviation: h("span") };
    const meters = { bias: meter(fills.bias, "signed"), deviation: meter(fills.deviation) };
    const head = (words) => h("th", { scope: "row" }, words);
    const node = h("div", { class: "row", role: "group", "aria-label": name },
      h("p", { class: "name" }, h("span", {}, h("b", {}, name), formula), claim),
      h("div", { class: "strip" }, strip),
      h("table", { class: "facts" },
        h("colgroup", {}, h("col"), h("col"), h("col"), h("col")),
        h("tr", {}, head("mean"), cells.mean),
        h("tr", {}, head("bias"), h("td", {}, meters.bias), cells.bias, cells.biasShare),
        h("tr", {}, head("std. dev."), h("td", {}, meters.deviation), cells.deviation, cells.deviationShare)));
    return { name, strip, formula, claim, cells, fills, meters, node };
  });
  const verdictText = h("span", {});
  const seedText = h("span", { class: "seed", "data-fact": "seed" });
  const announcer = liveRegion();

  const figure = figureBox("KL estimators", seedText,
    h("p", { class: "hint" },
      "Drag q: its peak (●) moves it, the ring (○) widens it. Each estimator sees only samples x from p, and p(x) " +
      "and q(x) there."),
    stage,
    h("div", { class: "controls" }, ...sliders.map(({ node }) => node),
      h("div", { class: "buttons" }, oneButton, manyButton,
        button("Fresh", () => fresh(), { title: "as many samples, by the next seed" }),
        button("Clear", () => clear())),
      h("p", { class: "last" }, ...Object.values(facts))),
    h("p", { class: "verdict" }, verdictText),
    h("div", { class: "bar head" },
      h("p", { class: "truth" }, truthText, truthSmall),
      h("div", { class: "view" }, "Each sample gives", buttonGroup("Each sample gives", viewButtons))),
    h("p", { class: "legend" },
      h("span", {}, h("i", { "aria-hidden": "true" }, "◆"), legendMean),
      h("span", {}, legendSign, legendExpected),
      h("span", {}, h("i", { "aria-hidden": "true", style: "color: var(--below)" }, "▯"), legendBelow),
      h("span", {}, h("i", { "aria-hidden": "true" }, "●"), "last sample")),
    ...rows.map(({ node }) => node),
    announcer,
  );
  const unmount = mount(el, CSS, figure, paint);

  // --- what happens
  function restart(count) {
    const uniform = randomStream(seed);
    next = () => normal(uniform);
    xs = Array.from({ length: count }, next);
  }

  function draw(count = 1) {
    for (let i = 0; i < count && xs.length < MOST; i++) xs.push(next());
    show();
    announce(count === 1 ? `Drew ${signed(xs.at(-1), 2)}.` : `${xs.length} samples.`);
  }

  function fresh() {
    seed = (seed + 1) % 2 ** 31;
    restart(xs.length);
    show();
    announce("New samples.");
  }

  function clear() {
    restart(0);
    show();
    announcer.textContent = "No samples.";
  }

  function set(changes, spoken = false) {
    for (const [name, value] of Object.entries(changes)) {
      if (known("setting", name, Object.keys(now)) === "view") known("view", value, VIEWS);
      else if (typeof value !== "number" || !(value >= RANGES[name][0] && value <= RANGES[name][1])) {
        throw new RangeError(`${name} is ${value}; it must be a number from ${RANGES[name].join(" to ")}.`);
      }
    }
    Object.assign(now, changes);
    show();
    if (spoken) announce();
  }

  // --- showing it
  const results = () => {
    const { truth, rows: exactRows } = exact(now, now.view);
    const values = xs.map((x) => perSample(now.view, x, now));
    return exactRows.map((row, i) => {
      const own = values.map((three) => three[i]);
      const summary = summarise(own);
      if (row.deviation === Infinity) summary.error = null; // what it would be says nothing of where the mean is
      return { ...row, truth, bias: row.mean - truth, values: own, summary };
    });
  };

  const meanWords = ({ count, mean, error }) =>
    mean === null ? "–" : figures(mean) + (count === 1 ? "" : ` ± ${error === null ? "?" : figures(2 * error)}`);

  function announce(before = "") {
    const means = xs.length === 0 ? "" :
      `Means: ${results().map(({ summary }, i) => `${NAMES[i]} ${figures(summary.mean)}`).join(", ")}; ` +
      `exactly ${figures(exact(now, now.view).truth)}. `;
    announcer.textContent = `${before} ${means}${verdict(now, now.view)}`.trim();
  }

  function claims() {
    if (now.view === "gradient") return ["0 on average", "gradient of KL(p ‖ q)", "gradient of KL(q ‖ p)"];
    const share = negativeShare(now);
    if (share === 0) return NAMES.map(() => "always 0"); // p = q
    return [`unbiased, below 0 for ${percent(share)}`, "biased, never below 0", "unbiased, never below 0"];
  }

  function show() {
    const view = now.view;
    const isValue = view === "value";
    const all = results();
    const { truth } = all[0];
    for (const { name, input, value } of sliders) {
      if (Number(input.value) !== now[name]) input.value = now[name];
      text(value, now[name].toFixed(2));
    }
    for (const element of [oneButton, manyButton]) attribute(element, "aria-disabled", xs.length >= MOST);
    press(viewButtons, "view", view);
    text(seedText, `seed ${seed}`);
    const x = xs.at(-1);
    text(facts.x, x === undefined ? "No sample yet." : `Last sample: x = ${signed(x, 2)}`);
    const at = (mean, deviation) => density(x, mean, deviation).toFixed(3);
    text(facts.p, x === undefined ? "" : `p(x) = ${at(0, 1)}`);
    text(facts.q, x === undefined ? "" : `q(x) = ${at(now.shift, now.spread)}`);
    text(facts["log-ratio"], x === undefined ? "" : `log q/p = ${signed(logRatio(x, now), 3)}`);
    text(truthText, isValue ? `KL(p ‖ q) = ${figures(truth)}` : `−∂KL(p ‖ q)/∂μ = ${figures(truth)}`);
    text(truthSmall, ` ${UNITS[view]}`);
    text(legendMean, `mean of ${xs.length}${xs.length > 1 ? " ± 2 standard errors" : ""}`);
    text(legendSign, isValue ? "▲" : "➜");
    text(legendExpected, isValue ? "expected value" : "expected push");
    text(legendBelow, isValue ? "below 0" : "away from q");

    const unit = Math.abs(truth);
    const widest = 2 * Math.max(all[0].deviation, unit, 1e-9);
    const said = claims();
    rows.forEach(({ name, strip, formula, claim, cells, fills, meters }, i) => {
      const { values, summary, bias, deviation, mean } = all[i];
      text(formula, `${isValue ? "" : ": −∂k/∂μ"} = ${FORMULAS[view][i]}`);
      const value = values.length ? figures(values.at(-1)) : "";
      text(claim, said[i]);
      text(cells.mean, meanWords(summary));
      const isNone = Math.abs(bias) < 1e-12;
      text(cells.bias, isNone ? "0" : figures(bias, signed));
      text(cells.biasShare, unit < 1e-12 ? "" : isNone ? "0 %" : `${signed((100 * bias) / unit, 0)} %`);
      text(cells.deviation, sizeOf(deviation, now));
      text(cells.deviationShare, unit < 1e-12 || !Number.isFinite(deviation) ? "" :
        `${times(deviation / unit)} ×${isValue ? " KL" : ""}`);
      const bars = { bias: isNone ? 0 : bias / Math.max(unit, 1e-9), deviation: deviation / widest };
      for (const [bar, size] of Object.entries(bars)) {
        fills[bar].style.transform = `scaleX(${Math.max(-1, Math.min(1, size))})`;
        meters[bar].classList.toggle("beyond", Math.abs(size) > 1);
      }
      attribute(strip, "aria-label", `${name}: ${values.length} values${value ? `, the last ${value}` : ""}, mean ` +
        `${meanWords(summary)}, expected ${figures(mean)}, exactly ${figures(truth)} ${UNITS[view]}.`);
    });
    attribute(canvas, "aria-label", `Two densities: p with mean 0 and spread 1, from which ${xs.length} samples ` +
      `are drawn, and q with mean ${now.shift.toFixed(2)} and spread ${now.spread.toFixed(2)}.`);
    text(verdictText, verdict(now, view));
    paint();
  }

  function paint() {
    if (canvas.clientWidth === 0) return; // not laid out: in a closed tab or a page being built
    const styles = getComputedStyle(figure);
    drawDensities(canvas, { pair: now, xs }, styles);
    const range = axisRange(now, now.view);
    results().forEach((result, i) => drawStrip(rows[i].strip, { ...result, range, view: now.view }, styles));
  }

  // --- keys and pointers
  figure.addEventListener("keydown", (event) => {
    if (/^(Arrow|Home|End|Page)/.test(event.key)) event.stopPropagation(); // else a page may turn
  });
  let held = null; // a handle's name, and how far from it the pointer took hold
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const nearest = (event) => {
    const [x, y] = place(event);
    const [best] = handles(now, stage.clientWidth)
      .map(({ name, at }) => ({ name, at, far: Math.hypot(x - at[0], y - at[1]) }))
      .sort((one, other) => one.far - other.far);
    return best.far <= REACH ? { name: best.name, offset: x - best.at[0] } : null;
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    held = nearest(event);
    if (held) stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (held === null) {
      stage.toggleAttribute("data-over", nearest(event) !== null);
      return;
    }
    const x = xAt(place(event)[0] - held.offset, stage.clientWidth) - (held.name === "spread" ? now.shift : 0);
    const [low, high] = RANGES[held.name];
    set({ [held.name]: Math.round(Math.max(low, Math.min(high, x)) / STEP) / (1 / STEP) });
  });
  stage.addEventListener("pointerup", () => {
    if (held === null) return;
    sliders.find(({ name }) => name === held.name).input.focus({ preventScroll: true }); // for the arrow keys
    held = null;
    announce();
  });
  stage.addEventListener("pointercancel", () => (held = null));
  stage.addEventListener("mousedown", (event) => event.preventDefault()); // else the focus goes to the figure

  // --- the page around it
  const settings = () => set({ shift: model.get("shift"), spread: model.get("spread"), view: model.get("view") });
  const samples = () => {
    seed = model.get("seed");
    restart(model.get("samples"));
    settings();
  };
  const followed = [
    ["shift", settings], ["spread", settings], ["view", settings], ["samples", samples], ["seed", samples],
  ];
  samples();
  for (const [name, listener] of followed) model.on(`change:${name}`, listener);

  el.policyopt = {
    state: () => structuredClone({ ...now, seed, xs, below: negativeShare(now), verdict: verdict(now, now.view),
      rows: results() }),
    set, draw, fresh, clear,
  };

  return () => {
    unmount();
    for (const [name, listener] of followed) model.off(`change:${name}`, listener);
  };
}

export {
  axisRange, divergence, estimates, exact, figures, handles, isHeavy, logRatio, negativeShare, normalCdf, pushes,
  reverseDivergence, summarise, ticksOf, verdict, xAt, xOf,
};
export default { render };
