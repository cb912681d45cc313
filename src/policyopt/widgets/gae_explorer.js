// GAE explorer: an advantage taken apart into TD errors, and the bias and variance that λ trades. Everything above
// "The figure" touches no page: the tests run it in Node.

import {
  button, buttonGroup, figureBox, h, isShortcut, known, liveRegion, mount, plain, press, sharpPen, signed, text,
} from "./common.js";

// --- Advantages, as policyopt.returns computes them -----------------------------------------------------------

const tdErrors = (rewards, values, nextValues, terminated, gamma) =>
  rewards.map((reward, t) => reward + gamma * (terminated[t] ? 0 : nextValues[t]) - values[t]);

function gae(rewards, values, nextValues, terminated, truncated, gamma, lambda) {
  const advantages = tdErrors(rewards, values, nextValues, terminated, gamma);
  for (let t = advantages.length - 2; t >= 0; t--) {
    if (!terminated[t] && !truncated[t]) advantages[t] += gamma * lambda * advantages[t + 1];
  }
  return advantages;
}

/** The arguments before γ for one whole episode with the values V(s_0), …, V(s_T). */
function episodeArrays({ rewards, values, terminated }) {
  const last = rewards.length - 1;
  return [
    rewards,
    values.slice(0, -1),
    values.slice(1),
    rewards.map((_, t) => t === last && terminated),
    rewards.map((_, t) => t === last && !terminated),
  ];
}

/** Weights (γλ)^l, l = 0, 1, … */
const tdWeights = (count, gamma, lambda) => Array.from({ length: count }, (_, l) => (gamma * lambda) ** l);

/** Weights (1 − λ)λ^(n−1), n = 1, 2, …; all that is left goes to the last, which runs to the end. */
const nStepWeights = (count, lambda) =>
  Array.from({ length: count }, (_, i) => (i < count - 1 ? 1 - lambda : 1) * lambda ** i);

/** The n-step advantages of step t, n = 1, 2, …, to the end: δ_t + γδ_(t+1) + … + γ^(n−1)δ_(t+n−1). */
function nStepAdvantages(deltas, gamma, t) {
  let sum = 0;
  return deltas.slice(t).map((delta, l) => (sum += gamma ** l * delta));
}

// --- The corridor, exactly ------------------------------------------------------------------------------------

/** x with (1 − decay·P)x = b, by Gaussian elimination. */
function solveChain(transitions, decay, b) {
  const rows = transitions.map((row, i) => [...row.map((p, j) => (i === j ? 1 : 0) - decay * p), b[i]]);
  const size = rows.length;
  for (let k = 0; k < size; k++) {
    let pivot = k;
    for (let i = k + 1; i < size; i++) if (Math.abs(rows[i][k]) > Math.abs(rows[pivot][k])) pivot = i;
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    for (let i = k + 1; i < size; i++) {
      const factor = rows[i][k] / rows[k][k];
      for (let j = k; j <= size; j++) rows[i][j] -= factor * rows[k][j];
    }
  }
  const x = new Array(size).fill(0);
  for (let k = size - 1; k >= 0; k--) {
    x[k] = rows[k].slice(k + 1, size).reduce((left, a, j) => left - a * x[k + 1 + j], rows[k][size]) / rows[k][k];
  }
  return x;
}

const expect = (probabilities, f) => probabilities.reduce((sum, p, s) => (p > 0 ? sum + p * f(s) : sum), 0);

/** V^π of every cell: 0 where the episode has ended. */
const trueValues = ({ transitions, rewards }, gamma) =>
  solveChain(transitions, gamma, transitions.map((row) => expect(row, (s) => rewards[s])));

/** A^π of the first action in the start: Q^π − V^π. */
function trueAdvantage(chain, gamma) {
  const values = trueValues(chain, gamma);
  return expect(chain.first, (s) => chain.rewards[s] + gamma * values[s]) - values[chain.start];
}

const criticNames = ({ critics }) => critics.map(({ name }) => name);

/** What a critic says of every cell: the true values plus its errors. */
function criticValues(chain, gamma, name) {
  const { errors } = chain.critics.find((critic) => critic.name === name);
  return trueValues(chain, gamma).map((value, s) => value + errors[s]);
}

/** Mean and variance of Â_0 over all episodes of the corridor, for any critic: Â_t = δ_t + γλ Â_(t+1). */
function exactMoments({ transitions, first, start, rewards }, values, gamma, lambda) {
  const decay = gamma * lambda;
  const delta = (s, next) => rewards[next] + gamma * values[next] - values[s];
  const square = (d, mean) => d * d + 2 * decay * d * mean;
  const mean = solveChain(transitions, decay, transitions.map((row, s) => expect(row, (next) => delta(s, next))));
  const second = solveChain(transitions, decay * decay,
    transitions.map((row, s) => expect(row, (next) => square(delta(s, next), mean[next]))));
  const firstMean = expect(first, (next) => delta(start, next) + decay * mean[next]);
  const firstSecond = expect(first, (next) =>
    square(delta(start, next), mean[next]) + decay * decay * second[next]);
  return { mean: firstMean, variance: Math.max(firstSecond - firstMean ** 2, 0) };
}

/** Â_0 of each recorded episode, a string of the cells visited. */
const estimates = ({ episodes, rewards }, values, gamma, lambda) =>
  episodes.map((text) => {
    const cells = Array.from(text, Number);
    const deltas = cells.slice(1).map((next, t) => rewards[next] + gamma * values[next] - values[cells[t]]);
    return deltas.reduceRight((sum, delta) => delta + gamma * lambda * sum, 0);
  });

const LAMBDAS = Array.from({ length: 101 }, (_, i) => i / 100);

function errorParts(chain, gamma, critic, lambda) {
  const { mean, variance } = exactMoments(chain, criticValues(chain, gamma, critic), gamma, lambda);
  const bias2 = (mean - trueAdvantage(chain, gamma)) ** 2;
  return { lambda, bias2, variance, sum: bias2 + variance };
}

/** Bias² and variance for every λ of the curve, and the λ with the smallest sum. */
function tradeOff(chain, gamma, critic) {
  const points = LAMBDAS.map((lambda) => errorParts(chain, gamma, critic, lambda));
  return { points, best: points.reduce((a, b) => (b.sum < a.sum - 1e-12 ? b : a)) };
}

function meanAndDeviation(numbers) {
  const mean = numbers.reduce((a, b) => a + b) / numbers.length;
  const variance = numbers.reduce((sum, x) => sum + (x - mean) ** 2, 0) / numbers.length;
  return { mean, deviation: Math.sqrt(variance) };
}

/** The next number up that reads well on a scale. */
function roundUp(x) {
  if (!(x > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(x));
  return [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((step) => step * power >= x * (1 - 1e-9)) * power;
}

// --- The figure -----------------------------------------------------------------------------------------------

const VIEWS = { episode: "One episode", many: "Bias and variance" };
const GROUPS = { td: "as TD errors", nstep: "as n-step advantages" };
const DIGITS = "₀₁₂₃₄₅₆₇₈₉";
const LEFT = 44; // room for the scales
const RIGHT = 10;
const LANES = { rewards: 24, values: 62, weights: 34, terms: 72, advantages: 72 };

const CSS = `
:host { --chosen: #0072b21f; }
:host([data-theme="dark"]) { --chosen: #56b4e92e; }
.figure [hidden] { display: none; }
.sliders { display: grid; grid-template-columns: 1fr 1fr; gap: .2rem 1.6rem; margin-top: .7rem; }
.slider { display: grid; grid-template-columns: 1fr auto; align-items: center; font-size: .9rem; }
.slider b { font-weight: 650; font-style: italic; }
.slider input { grid-column: 1 / 3; }
.hint { margin: .1rem 0 .5rem; color: var(--muted); font-size: .84rem; }
select { max-width: 100%; padding: .35rem .5rem; }
.stepper { display: flex; align-items: center; gap: .5rem; font-size: .9rem; }
.stepper button { min-width: 44px; }
.stepper span { min-width: 5.4em; text-align: center; font-variant-numeric: tabular-nums; }
.timeline { cursor: pointer; margin: .6rem 0 .3rem; }
.note { margin: 0 0 .7rem; font-size: .84rem; color: var(--muted); min-height: 2.9em; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .1rem 0 .5rem; font-size: .84rem;
  color: var(--muted); }
.legend i { display: inline-block; width: 1.1em; height: .7em; margin-right: .4em; vertical-align: -.03em;
  border: 1.5px solid var(--blue); }
.legend .full { background: var(--blue); }
.working { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.1fr); gap: .8rem 1.8rem;
  margin-top: .7rem; border-top: 1px solid var(--line); padding-top: .8rem; }
.formula { margin: 0 0 .8rem; font-size: .92rem; line-height: 1.75; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.formula .numbers { display: block; }
.formula[data-formula="sum"] { margin: .4rem 0 0; min-height: 5.4em; }
.working sub, .working sup, .many sub, .many sup { font-size: .72em; line-height: 0; }
.terms th, .terms td { padding: .2rem .25rem; border-bottom: 1px solid var(--line); height: 1.75em; }
.terms thead th { color: var(--muted); font-size: .8rem; text-align: right; }
.terms thead th:first-child { text-align: left; }
.terms tbody tr:last-child > * { border-bottom: 0; border-top: 2px solid var(--control); font-weight: 650; }
.many { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: .4rem 1.6rem; }
.many .wide { grid-column: 1 / 3; margin: 0; }
.many .stage { margin: .1rem 0 .3rem; }
.curve { cursor: pointer; }
.keys { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: 0 0 .3rem; font-size: .8rem; color: var(--muted); }
.keys span { white-space: nowrap; }
.keys + .keys { margin-top: -.1rem; }
.keys i { font-style: normal; font-weight: 700; margin-right: .3em; color: var(--text); }
.keys .line { display: inline-block; width: 1.7em; border-top: 3px solid; vertical-align: .25em; }
.keys .dashed { border-top-style: dashed; } .keys .dotted { border-top-style: dotted; }
.keys .v { color: var(--blue); } .keys .t { color: var(--green); } .keys .b { color: var(--vermilion); }
.facts th, .facts td { padding: .22rem .25rem; border-bottom: 1px solid var(--line); }
.verdict { margin: .7rem 0 0; padding-left: .7rem; border-left: 4px solid var(--blue); font-size: .88rem;
  min-height: 3em; }
.facts { align-self: start; }
.facts td { white-space: nowrap; }
.facts tr:last-child > * { border-bottom: 0; }
@container (max-width: 560px) {
  .sliders { gap: .2rem 1rem; }
  .working, .many { grid-template-columns: minmax(0, 1fr); }
  .many .wide { grid-column: 1; }
  .views, .groups, .critics { display: flex; width: 100%; }
  .views button, .groups button, .critics button { flex: 1 1 auto; padding: .35rem .3rem; }
  .choice, .choice select, .stepper { width: 100%; }
  .stepper button { flex: 1 1 auto; }
  .note { min-height: 5.9em; }
  .legend { min-height: 3em; align-content: start; }
  .rest { display: none; }
  .many .of-strip { order: 1; }
  .many table.of-strip { order: 2; }
  .many .of-curve { order: 3; }
}
`;

const lowered = (number) => Array.from(String(number), (digit) => DIGITS[digit]).join("");
const inBrackets = (value, digits) => plain(value, digits).replace(/^−.*/, "($&)");
const shortest = (x) => x.toFixed(Math.abs(x * 100 - Math.round(x * 100)) < 1e-9 ? 2 : 3);
const sub = (content) => h("sub", {}, String(content));
const sup = (content) => h("sup", {}, String(content));

function verdictOn(here, best) {
  if (here.sum <= 1.05 * best.sum + 1e-12) return "This λ is about the best one for this critic.";
  return here.lambda < best.lambda
    ? "A larger λ is better: it takes away more bias² than it adds variance."
    : "A smaller λ is better: it takes away more variance than it adds bias².";
}

/** Places numbers of a range on a canvas from `top` down over `height`. */
function scaleOf(numbers, top, height) {
  const up = roundUp(Math.max(...numbers, 0));
  const low = -roundUp(Math.max(...numbers.map((x) => -x), 0));
  const high = up - low > 0 ? up : 1;
  return { high, low, y: (value) => top + ((high - value) / (high - low)) * height };
}

function penTools(canvas, height, styles) {
  const pen = sharpPen(canvas, height);
  const colour = (name) => styles.getPropertyValue(name).trim();
  return {
    pen, colour,
    line(x1, y1, x2, y2, stroke, width = 1, dash = []) {
      pen.strokeStyle = colour(stroke);
      pen.lineWidth = width;
      pen.setLineDash(dash);
      pen.beginPath();
      pen.moveTo(x1, y1);
      pen.lineTo(x2, y2);
      pen.stroke();
      pen.setLineDash([]);
    },
    write(text, x, y, { align = "left", ink = "--muted", bold = false } = {}) {
      pen.font = `${bold ? 650 : 400} 12px system-ui, sans-serif`;
      pen.textAlign = align;
      pen.fillStyle = colour(ink);
      pen.fillText(text, x, y);
    },
    dot(x, y, radius, ink, hollow = false) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fillStyle = colour(hollow ? "--sheet" : ink);
      pen.fill();
      pen.strokeStyle = colour(ink);
      pen.lineWidth = 2;
      if (hollow) pen.stroke();
    },
    cross(x, y, size, ink) {
      this.line(x - size, y - size, x + size, y + size, ink, 2);
      this.line(x - size, y + size, x + size, y - size, ink, 2);
    },
    /** A bar from 0: its outline as it is, and filled as far as its weight leaves it, or as dark as `shade`. */
    bar(x, width, scale, value, weighted, ink, shade = 0.16) {
      const zero = scale.y(0);
      const rect = (v) => [x - width / 2, Math.min(zero, scale.y(v)), width, Math.abs(scale.y(v) - zero)];
      pen.fillStyle = pen.strokeStyle = colour(ink);
      pen.globalAlpha = shade;
      pen.fillRect(...rect(value));
      pen.globalAlpha = 1;
      pen.lineWidth = 1;
      pen.strokeRect(...rect(value));
      if (weighted) pen.fillRect(...rect(weighted));
    },
    axis(scale, width) {
      const label = (value) => String(Number(value.toPrecision(2))).replace("-", "−");
      this.line(LEFT, scale.y(0), width - RIGHT, scale.y(0), "--control");
      this.write("0", LEFT - 6, scale.y(0) + 4, { align: "right" });
      for (const value of [scale.high, scale.low]) {
        if (Math.abs(scale.y(value) - scale.y(0)) < 15) continue;
        this.line(LEFT, scale.y(value), width - RIGHT, scale.y(value), "--line", 1, [2, 4]);
        this.write(label(value), LEFT - 6, scale.y(value) + 4, { align: "right" });
      }
    },
  };
}

const stepWidth = (width, steps) => (width - LEFT - RIGHT) / (steps + 1);

/** Rewards, values, weights, terms and advantages of an episode, one lane each, on one time line. */
function drawTimeline(canvas, now, styles) {
  const { episode, step, deltas, advantages, weights, terms, group, scales } = now;
  const steps = episode.rewards.length;
  const total = Object.values(LANES).reduce((a, b) => a + b + 34, 0) + 26;
  const tools = penTools(canvas, total, styles);
  const { pen, colour } = tools;
  const width = canvas.clientWidth;
  const column = stepWidth(width, steps);
  const x = (t) => LEFT + (t + 0.5) * column;
  const bar = Math.min(0.72 * column, 16);
  const sign = (value) => (value < 0 ? "--vermilion" : "--blue");

  pen.fillStyle = colour("--chosen");
  pen.fillRect(x(step) - column / 2, 0, column, total);

  let top = 0;
  const lane = (name, title, numbers) => {
    const scale = scaleOf(numbers, top + 30, LANES[name]);
    tools.write(title, 8, top + 19, { ink: "--text" });
    tools.axis(scale, width);
    top += LANES[name] + 34;
    return scale;
  };

  let scale = lane("rewards", "reward rₜ", episode.rewards);
  episode.rewards.forEach((reward, t) => reward && tools.bar(x(t), bar, scale, reward, reward, "--grey"));

  scale = lane("values", "critic’s value V(sₜ)", episode.values);
  pen.strokeStyle = colour("--blue");
  pen.lineWidth = 2;
  pen.beginPath();
  episode.values.slice(0, -1).forEach((value, t) => pen.lineTo(x(t), scale.y(value)));
  pen.stroke();
  episode.values.slice(0, -1).forEach((value, t) =>
    tools.dot(x(t), scale.y(value), t === step ? 5 : 2.5, "--blue"));
  const lastY = scale.y(episode.values[steps - 1]);
  const endY = scale.y(episode.terminated ? 0 : episode.values[steps]);
  tools.line(x(steps - 1), lastY, x(steps), endY, episode.terminated ? "--vermilion" : "--blue", 1.5, [3, 3]);
  if (episode.terminated) tools.cross(x(steps), endY, 4, "--vermilion");
  else tools.dot(x(steps), endY, 4, "--blue", true);

  const ofStep = `Â${lowered(step)}`;
  const weightTitle = group === "td"
    ? `weight (γλ)ˡ of each TD error in ${ofStep}`
    : `weight (1−λ)λⁿ⁻¹ of each in ${ofStep}`;
  scale = lane("weights", weightTitle, group === "td" ? [1] : weights);
  weights.forEach((weight, l) => tools.bar(x(step + l), bar, scale, weight, weight, "--grey"));

  if (group === "td") {
    scale = lane("terms", "TD error δₜ", scales.deltas);
    deltas.forEach((delta, t) =>
      tools.bar(x(t), bar, scale, delta, t >= step ? weights[t - step] * delta : 0, sign(delta)));
  } else {
    scale = lane("terms", `n-step advantage of step ${step}, for n = 1, 2, …`, scales.nStep);
    const heaviest = Math.max(...weights);
    const shade = (weight) => 0.06 + 0.94 * (weight / heaviest);
    terms.forEach((term, l) => tools.bar(x(step + l), bar, scale, term, 0, sign(term), shade(weights[l])));
  }

  scale = lane("advantages", "advantage Âₜ", scales.advantages);
  advantages.forEach((advantage, t) =>
    tools.bar(x(t), bar, scale, advantage, t === step ? advantage : 0, "--green"));

  for (let t = 0; t <= steps; t += 5) {
    if (Math.abs(t - step) * column > 36) tools.write(String(t), x(t), top + 18, { align: "center" });
  }
  tools.write(`t = ${step}`, Math.max(x(step), LEFT + 8), top + 18, { align: "center", ink: "--text", bold: true });
}

/** The corridor: the true value of each cell and the critic's. */
function drawCorridor(canvas, { chain, truth, values }, styles) {
  const height = 168;
  const tools = penTools(canvas, height, styles);
  const width = canvas.clientWidth;
  const scale = scaleOf([-1, 1], 16, 96);
  tools.axis(scale, width);
  const cell = (width - LEFT - RIGHT) / chain.cells.length;
  Array.from(chain.cells, (letter, s) => {
    const x = LEFT + (s + 0.5) * cell;
    tools.pen.strokeStyle = tools.colour("--control");
    tools.pen.lineWidth = s === chain.start ? 2.5 : 1;
    tools.pen.strokeRect(x - cell / 2 + 2, 124, cell - 4, 22);
    const word = { X: "−1", G: "+1", S: chain.action === "right" ? "→" : "←" }[letter] ?? "";
    tools.write(word, x, 140, { align: "center", ink: "--text", bold: true });
    const name = { X: "pit", G: "goal", S: "start" }[letter] ?? "";
    tools.write(name, x, 162, { align: "center" });
    tools.line(x - cell * 0.34, scale.y(truth[s]), x + cell * 0.34, scale.y(truth[s]), "--green", 4);
    tools.line(x, scale.y(truth[s]), x, scale.y(values[s]), "--blue", 1.5);
    tools.dot(x, scale.y(values[s]), 4.5, "--blue");
  });
}

/** The estimates of all episodes, their mean and spread, and the true advantage. */
function drawStrip(canvas, { chain, samples, mean, deviation, advantage, range }, styles) {
  const height = 168;
  const tools = penTools(canvas, height, styles);
  const width = canvas.clientWidth;
  const left = 14;
  const x = (value) => left + ((value - range[0]) / (range[1] - range[0])) * (width - 2 * left);
  const goal = String(chain.cells.indexOf("G"));
  tools.line(left, 134, width - left, 134, "--control");
  for (let tick = Math.ceil(range[0] * 2) / 2; tick <= range[1]; tick += 0.5) {
    tools.line(x(tick), 134, x(tick), 139, "--control");
    tools.write(tick === 0 ? "0" : signed(tick, 1), x(tick), 154, { align: "center" });
  }
  tools.line(x(advantage), 8, x(advantage), 134, "--green", 3, [7, 4]);
  samples.forEach((value, i) => {
    const y = 14 + ((i * 0.618034) % 1) * 78; // each episode keeps its height
    if (chain.episodes[i].endsWith(goal)) tools.dot(x(value), y, 2.6, "--blue", false);
    else tools.cross(x(value), y, 3, "--vermilion");
  });
  const [low, high] = [mean - deviation, mean + deviation].map(x);
  tools.line(low, 114, high, 114, "--text", 3);
  for (const end of [low, high]) tools.line(end, 108, end, 120, "--text", 2);
  tools.dot(x(mean), 114, 6, "--text");
}

/** Bias², variance and their sum over λ. */
function drawCurve(canvas, { trade, top, lambda, here }, styles) {
  const height = 178;
  const tools = penTools(canvas, height, styles);
  const width = canvas.clientWidth;
  const scale = scaleOf([top], 14, 136);
  tools.axis(scale, width);
  const x = (value) => LEFT + value * (width - LEFT - RIGHT - 6);
  for (const tick of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
    tools.line(x(tick), scale.y(0), x(tick), scale.y(0) + 5, "--control");
    tools.write(tick.toFixed(1), x(tick), scale.y(0) + 19, { align: "center" });
  }
  tools.write("λ", x(0.5), scale.y(0) + 19, { align: "center", ink: "--text", bold: true });
  tools.line(x(lambda), 6, x(lambda), scale.y(0), "--text", 1.5);
  const { pen } = tools;
  for (const [name, ink, dash, thick] of [
    ["bias2", "--vermilion", [7, 4], 2], ["variance", "--blue", [2, 3], 2.5], ["sum", "--text", [], 2.5],
  ]) {
    pen.strokeStyle = tools.colour(ink);
    pen.lineWidth = thick;
    pen.setLineDash(dash);
    pen.beginPath();
    for (const point of trade.points) pen.lineTo(x(point.lambda), scale.y(point[name]));
    pen.stroke();
    pen.setLineDash([]);
    tools.dot(x(lambda), scale.y(here[name]), 4, ink);
  }
  const [bx, by] = [x(trade.best.lambda), scale.y(trade.best.sum)];
  pen.fillStyle = tools.colour("--text");
  pen.beginPath();
  pen.moveTo(bx, by - 7);
  pen.lineTo(bx - 6, by - 17);
  pen.lineTo(bx + 6, by - 17);
  pen.fill();
}

function render({ model, el }) {
  let view = model.get("view");
  let gamma = model.get("gamma");
  let lambda = model.get("gae_lambda");
  let index = model.get("episode");
  let group = "td";
  let critic = "a little off";
  let step = 0;

  const episodes = () => model.get("episodes");
  const middle = () => Math.floor(0.45 * episodes()[index].rewards.length);
  step = middle();

  // --- elements
  const groupOf = (label, className, names, data, act) => {
    const buttons = Object.entries(names).map(([key, name]) => button(name, () => act(key), { [data]: key }));
    return buttonGroup(label, buttons, className);
  };
  const views = groupOf("What is shown", "views", VIEWS, "data-view", (key) => showView(key));
  const groups = groupOf("How the advantage is written", "groups", GROUPS, "data-group", (key) => groupBy(key));
  const critics = groupOf("The critic is", "critics",
    Object.fromEntries(criticNames(model.get("chain")).map((name) => [name, name])),
    "data-critic", (key) => chooseCritic(key));

  const slider = (id, symbol, name, change) => {
    const value = h("span", { class: "number", "data-value": id });
    const input = h("input", {
      type: "range", min: "0", max: "1", step: "0.01", "aria-label": `${symbol}, ${name}`,
      oninput: () => change(Number(input.value)), onchange: () => announce(),
    });
    const [first, second] = name.split(" ");
    const words = h("span", {}, h("b", {}, symbol), ` ${first}`, h("span", { class: "rest" }, ` ${second}`));
    return { input, value, row: h("label", { class: "slider" }, words, value, input) };
  };
  const gammaSlider = slider("gamma", "γ", "discount factor", (value) => set({ gamma: value }));
  const lambdaSlider = slider("lambda", "λ", "mixing parameter", (value) => set({ lambda: value }));

  const select = h("select", { "aria-label": "Episode", onchange: () => chooseEpisode(select.selectedIndex) });
  const stepText = h("span", { "aria-hidden": "true" });
  const back = button("◀", () => selectStep(step - 1), { "aria-label": "previous step" });
  const ahead = button("▶", () => selectStep(step + 1), { "aria-label": "next step" });
  const timeline = h("canvas", { role: "img" });
  const stage = h("div", {
    class: "stage timeline", tabindex: "0", role: "slider", "aria-label": "Step t",
  }, timeline);
  const note = h("p", { class: "note" });
  const legend = h("div", { class: "legend" },
    h("span", { "data-group": "td" }, h("i"), "outline: the TD error as it is"),
    h("span", { "data-group": "td" }, h("i", { class: "full" }), "filled: times its weight"),
    h("span", { "data-group": "nstep" }, h("i", { class: "full" }), "the darker, the more weight"));
  const [tdLabel, sumLabel] = [h("p", { class: "label" }), h("p", { class: "label" })];
  const tdFormula = h("p", { class: "formula", "data-formula": "td" });
  const sumFormula = h("p", { class: "formula", "data-formula": "sum" });
  const tableHead = h("tr");
  const tableBody = h("tbody");
  const episodeView = h("div", {},
    h("p", { class: "hint" },
      "Choose a step t of the episode (tap it, or use the arrow keys): every later TD error counts towards its " +
      "advantage, the less the later it comes."),
    h("div", { class: "bar" }, h("div", { class: "choice" }, select),
      h("div", { class: "stepper", role: "group", "aria-label": "Step" }, back, stepText, ahead)),
    stage,
    legend,
    note,
    h("div", { class: "working" },
      h("div", {}, tdLabel, tdFormula, sumLabel, groups, sumFormula),
      h("table", { class: "terms" }, h("thead", {}, tableHead), tableBody)));

  const canvasOf = () => h("canvas", { role: "img" });
  const [corridor, strip, curve] = [canvasOf(), canvasOf(), canvasOf()];
  const curveStage = h("div", { class: "stage curve" }, curve);
  const key = (mark, kind, words) => h("span", {}, h("i", { class: kind }, mark), words);
  const facts = {};
  const fact = (name, ...label) =>
    h("tr", {}, h("th", { scope: "row" }, ...label), (facts[name] = h("td", { "data-fact": name })));
  const keys = (...items) => h("p", { class: "keys" }, ...items);
  const count = model.get("chain").episodes.length;
  const verdict = h("p", { class: "verdict" });
  const manyView = h("div", { class: "many" },
    h("p", { class: "hint wide" },
      `${count} recorded episodes of a corridor, all with the same first step: to the right. Each gives one ` +
      "estimate of that step’s advantage. Make the critic worse, then look for the best λ."),
    h("div", {},
      h("p", { class: "label" }, "The critic is"), critics),
    h("table", { class: "facts of-strip" },
      fact("mean", `mean of the ${count} estimates`),
      fact("deviation", "their standard deviation"),
      fact("truth", "true advantage A", sup("π"), "(start, →)")),
    h("div", {},
      h("p", { class: "label" }, "Values of the cells"),
      h("div", { class: "stage" }, corridor),
      keys(key("", "line t", "true"), key("●", "v", "critic’s; at the start it is right")),
      h("p", { class: "keys" }, model.get("chain").about)),
    h("div", { class: "of-strip" },
      h("p", { class: "label" }, "Estimates Â", sub(0), ` of ${count} episodes`),
      h("div", { class: "stage" }, strip),
      keys(key("●", "v", "ends in the goal"), key("✕", "b", "in the pit"), key("", "line dashed t", "true"),
        key("├●┤", "", "mean ± st. dev."))),
    h("div", { class: "of-curve" },
      h("p", { class: "label" }, "Mean squared error over λ, exact"),
      curveStage,
      keys(key("", "line dashed b", "bias²"), key("", "line dotted v", "variance"), key("", "line", "sum"),
        key("▼", "", "smallest"))),
    h("div", { class: "of-curve" },
      h("table", { class: "facts" },
        fact("bias2", "bias² at this λ"),
        fact("variance", "variance at this λ"),
        fact("sum", "sum: mean squared error"),
        fact("best", "smallest sum at")),
      verdict));

  const announcer = liveRegion();
  const figure = figureBox("GAE explorer", views,
    h("div", { class: "sliders" }, gammaSlider.row, lambdaSlider.row),
    episodeView, manyView, announcer);
  const unmount = mount(el, CSS, figure, paint);

  // --- what is computed
  let now; // of the episode
  let overall; // of the corridor

  function computeEpisode() {
    const episode = episodes()[index];
    const arrays = episodeArrays(episode);
    const deltas = tdErrors(...arrays.slice(0, 4), gamma);
    const advantages = gae(...arrays, gamma, lambda);
    const left = deltas.length - step;
    const weights = group === "td" ? tdWeights(left, gamma, lambda) : nStepWeights(left, lambda);
    const terms = group === "td" ? deltas.slice(step) : nStepAdvantages(deltas, gamma, step);
    // the scales stay where they are while λ and t change
    const scales = {
      deltas,
      nStep: deltas.flatMap((_, t) => nStepAdvantages(deltas, gamma, t)),
      advantages: [0, 0.5, 0.9, 1].flatMap((value) => gae(...arrays, gamma, value)),
    };
    const digits = Math.max(...episode.values.map(Math.abs)) < 5 ? 3 : 2;
    now = { episode, step, deltas, advantages, weights, terms, group, scales, digits };
  }

  const cache = new Map();
  function computeOverall() {
    const chain = model.get("chain");
    const truth = trueValues(chain, gamma);
    const values = criticValues(chain, gamma, critic);
    const names = criticNames(chain);
    if (!cache.has(gamma)) {
      cache.clear();
      const trades = Object.fromEntries(names.map((name) => [name, tradeOff(chain, gamma, name)]));
      const top = Math.max(...names.flatMap((name) => trades[name].points.map(({ sum }) => sum)));
      const all = names.flatMap((name) => [0, 0.5, 0.8, 1].flatMap((value) => {
        const drawn = estimates(chain, criticValues(chain, gamma, name), gamma, value);
        const { mean, deviation } = meanAndDeviation(drawn);
        return [...drawn, mean - deviation, mean + deviation];
      }));
      const range = [Math.min(...all, -0.5) - 0.08, Math.max(...all, 0.5) + 0.08];
      cache.set(gamma, { trades, top, range });
    }
    const { trades, top, range } = cache.get(gamma);
    const samples = estimates(chain, values, gamma, lambda);
    const advantage = trueAdvantage(chain, gamma);
    overall = {
      chain, truth, values, samples, advantage, range, top, lambda, trade: trades[critic],
      here: errorParts(chain, gamma, critic, lambda),
      ...meanAndDeviation(samples),
    };
  }

  // --- what happens
  function set(values) {
    for (const [name, value] of Object.entries(values)) {
      if (!(value >= 0 && value <= 1)) throw new RangeError(`${name} is ${value}; it must be in [0, 1].`);
    }
    gamma = values.gamma ?? gamma;
    lambda = values.lambda ?? lambda;
    show();
  }

  function chooseEpisode(value) {
    if (!episodes()[value]) throw new RangeError(`There is no episode ${value}; there are ${episodes().length}.`);
    index = value;
    step = middle();
    show();
    announce();
  }

  function selectStep(value) {
    step = Math.max(0, Math.min(episodes()[index].rewards.length - 1, Math.round(value)));
    show();
  }

  function showView(value) {
    view = known("view", value, Object.keys(VIEWS));
    show();
  }

  function groupBy(value) {
    group = known("grouping", value, Object.keys(GROUPS));
    show();
  }

  function chooseCritic(value) {
    critic = known("critic", value, criticNames(model.get("chain")));
    show();
    announce();
  }

  // --- showing it
  function announce() {
    if (view === "episode") {
      announcer.textContent = `Advantage of step ${step}: ${plain(now.advantages[step], now.digits)}.`;
    } else {
      const { mean, deviation, advantage } = overall;
      announcer.textContent = `Mean ${plain(mean, 3)}, standard deviation ${deviation.toFixed(3)}, ` +
        `true advantage ${plain(advantage, 3)}.`;
    }
  }

  function show() {
    if (!episodes()[index]) index = 0; // others may have come
    step = Math.min(step, episodes()[index].rewards.length - 1);
    press(views.children, "view", view);
    press(groups.children, "group", group);
    press(critics.children, "critic", critic);
    for (const item of legend.children) item.hidden = item.dataset.group !== group;
    episodeView.hidden = view !== "episode";
    manyView.hidden = view !== "many";
    for (const [{ input, value }, number] of [[gammaSlider, gamma], [lambdaSlider, lambda]]) {
      if (Number(input.value) !== number) input.value = number;
      text(value, shortest(number));
    }
    computeEpisode();
    computeOverall();
    if (view === "episode") showEpisode();
    else showMany();
    paint();
  }

  function showEpisode() {
    const { episode, deltas, advantages, digits } = now;
    const steps = deltas.length;
    const names = episodes().map(({ name }) => name);
    if (names.join("\n") !== Array.from(select.options, (option) => option.textContent).join("\n")) {
      select.replaceChildren(...names.map((name) => h("option", {}, name)));
    }
    select.selectedIndex = index;
    text(stepText, `t = ${step} of ${steps - 1}`);
    back.setAttribute("aria-disabled", step === 0);
    ahead.setAttribute("aria-disabled", step === steps - 1);

    const because = episode.end ? `: ${episode.end}` : "";
    const learnt = episode.learnt_with === undefined
      ? "" : ` The critic learnt its values with γ = ${episode.learnt_with}.`;
    const end = `V(s${lowered(steps)})`;
    text(note, (episode.terminated
      ? `Terminated after step ${steps - 1}${because}. ` +
        `Nothing follows, so the last TD error counts ${end} as 0 (✕).`
      : `Truncated after step ${steps - 1}${because}. The episode would have gone on, so the last TD error keeps ` +
        `${end} = ${plain(episode.values[steps], digits)} (○).`) + learnt);

    const next = episode.terminated && step === steps - 1 ? 0 : episode.values[step + 1];
    const number = (value) => inBrackets(value, digits);
    text(tdLabel, `TD error of step ${step}`);
    text(sumLabel, `Advantage of step ${step}`);
    tdFormula.replaceChildren(
      "δ", sub(step), " = r", sub(step), " + γ V(s", sub(step + 1), ") − V(s", sub(step), ")",
      h("span", { class: "numbers" },
        `= ${plain(episode.rewards[step], Number.isInteger(episode.rewards[step]) ? 0 : digits)} + ` +
        `${shortest(gamma)} · ${next === 0 && step === steps - 1 ? "0" : number(next)} − ` +
        `${number(episode.values[step])} = `, h("b", {}, plain(deltas[step], digits))));
    showSum();
    const value = `step ${step} of ${steps - 1}: TD error ${plain(deltas[step], digits)}, ` +
      `advantage ${plain(advantages[step], digits)}`;
    for (const [name, content] of Object.entries({ min: 0, max: steps - 1, now: step, text: value })) {
      stage.setAttribute(`aria-value${name}`, content);
    }
    timeline.setAttribute("aria-label", `Time line of ${steps} steps with rewards, values, ` +
      `TD errors and advantages; ${value}.`);
  }

  function showSum() {
    const { deltas, advantages, weights, terms, digits } = now;
    const total = h("b", {}, plain(advantages[step], digits));
    const head = (...words) => h("th", { scope: "col" }, ...words);
    const row = (name, weight, term, product) =>
      h("tr", {}, h("th", { scope: "row" }, ...name), ...[weight, term, product].map((cell) => h("td", {}, cell)));
    const full = (name, i) =>
      row(name, weights[i].toFixed(3), plain(terms[i], digits), signed(weights[i] * terms[i], digits));
    const sumOf = (from, to) => weights.slice(from, to).reduce((sum, w, i) => sum + w * terms[from + i], 0);
    const rows = [];
    const count = terms.length;
    if (group === "td") {
      const symbols = [[], [" + γλ"], [" + (γλ)", sup(2)]].slice(0, count);
      sumFormula.replaceChildren(
        "Â", sub(step), " = ", ...symbols.flatMap((weight, l) => [...weight, l ? " δ" : "δ", sub(step + l)]),
        count > 3 ? " + …" : "",
        h("span", { class: "numbers" }, "= ", count > 1 ? plain(terms[0], digits) : total,
          ...[1, 2].map((l) => (l < count ? ` + ${weights[l].toFixed(3)} · ${inBrackets(terms[l], digits)}` : "")),
          ...(count > 1 ? [count > 3 ? " + … = " : " = ", total] : [])));
      tableHead.replaceChildren(head("TD error"), head("weight"), head("δ"), head("adds"));
      for (let l = 0; l < 4; l++) {
        rows.push(l < count ? full(["δ", sub(step + l)], l) : row(["–"], "", "", ""));
      }
      const after = count > 4 ? signed(sumOf(4), digits) : "";
      rows.push(row([after ? `the ${count - 4} after` : "none after"], "", "", after));
    } else {
      const n = (number) => ["Â", sup(`(${number})`)];
      sumFormula.replaceChildren(
        "Â", sub(step), " = (1 − λ) (", ...n(1), " + λ ", ...n(2), " + λ", sup(2), " ", ...n(3), " + …)",
        h("span", { class: "numbers" }, "the last takes the weight left over; the sum is again ", total));
      tableHead.replaceChildren(head("n steps"), head("weight"), head("Â", sup("(n)")), head("adds"));
      for (let i = 0; i < 3; i++) {
        rows.push(i < count - 1 ? full([`n = ${i + 1}`], i) : row(["–"], "", "", ""));
      }
      const between = count - 1 - 3;
      rows.push(row([between > 0 ? `the ${between} between` : "none between"], "", "",
        between > 0 ? signed(sumOf(3, count - 1), digits) : ""));
      rows.push(full([`n = ${count}, to the end`], count - 1));
    }
    rows.push(row(["sum Â", sub(step)], "", "", signed(advantages[step], digits)));
    tableBody.replaceChildren(...rows);
  }

  function showMany() {
    const { mean, deviation, advantage, trade, here, samples, truth, values } = overall;
    text(facts.mean, signed(mean, 3));
    text(facts.deviation, deviation.toFixed(3));
    text(facts.truth, signed(advantage, 3));
    for (const name of ["bias2", "variance", "sum"]) text(facts[name], here[name].toFixed(4));
    text(verdict, verdictOn(here, trade.best));
    text(facts.best, `λ = ${trade.best.lambda.toFixed(2)}`);
    corridor.setAttribute("aria-label", "Values of the cells from the pit to the goal. " +
      `True: ${truth.map((v) => plain(v, 2)).join(", ")}. Critic's: ${values.map((v) => plain(v, 2)).join(", ")}.`);
    strip.setAttribute("aria-label", `${samples.length} estimates with mean ${plain(mean, 3)} and standard ` +
      `deviation ${deviation.toFixed(3)}; the true advantage is ${plain(advantage, 3)}.`);
    curve.setAttribute("aria-label", `Over λ from 0 to 1: bias squared falls from ` +
      `${trade.points[0].bias2.toFixed(3)} to ${trade.points[100].bias2.toFixed(3)}, variance goes from ` +
      `${trade.points[0].variance.toFixed(3)} to ${trade.points[100].variance.toFixed(3)}; their sum is smallest ` +
      `at λ = ${trade.best.lambda.toFixed(2)}.`);
  }

  function paint() {
    const styles = getComputedStyle(figure);
    const canvases = view === "episode"
      ? [[timeline, drawTimeline, now]]
      : [[corridor, drawCorridor, overall], [strip, drawStrip, overall], [curve, drawCurve, overall]];
    for (const [canvas, draw, data] of canvases) {
      if (canvas.clientWidth > 0) draw(canvas, data, styles); // else not laid out: in a closed tab, say
    }
  }

  // --- keys and pointers
  figure.addEventListener("keydown", (event) => {
    if (/^(Arrow|Home|End|Page)/.test(event.key)) event.stopPropagation(); // else a page may turn
  });
  stage.addEventListener("keydown", (event) => {
    if (isShortcut(event)) return;
    const last = episodes()[index].rewards.length - 1;
    const target = {
      ArrowLeft: step - 1, ArrowDown: step - 1, ArrowRight: step + 1, ArrowUp: step + 1,
      PageDown: step - 5, PageUp: step + 5, Home: 0, End: last,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    selectStep(target);
  });
  /** Calls `act` with the pointer's place: pressed or dragged by a mouse, tapped or drawn sideways by a finger. */
  function drag(element, act) {
    const at = (event) => act(event.clientX - element.getBoundingClientRect().left, element.clientWidth);
    let from = null;
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = event.clientX;
      if (event.pointerType !== "touch") {
        element.setPointerCapture(event.pointerId);
        at(event);
      }
    });
    element.addEventListener("pointermove", (event) => {
      if (from !== null && (event.pointerType !== "touch" || Math.abs(event.clientX - from) > 6)) at(event);
    });
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (from = null));
    element.addEventListener("click", at);
  }
  drag(stage, (x, width) =>
    selectStep(Math.floor((x - LEFT) / stepWidth(width, episodes()[index].rewards.length))));
  drag(curveStage, (x, width) => {
    const value = (x - LEFT) / (width - LEFT - RIGHT - 6);
    set({ lambda: Math.round(100 * Math.max(0, Math.min(1, value))) / 100 });
  });

  // --- the page around it
  const followed = {
    gamma: () => set({ gamma: model.get("gamma") }),
    gae_lambda: () => set({ lambda: model.get("gae_lambda") }),
    episode: () => chooseEpisode(model.get("episode")),
    episodes: () => chooseEpisode(episodes()[index] ? index : 0),
    view: () => showView(model.get("view")),
  };
  for (const [name, follow] of Object.entries(followed)) model.on(`change:${name}`, follow);

  el.policyopt = {
    state: () => structuredClone({
      view, gamma, lambda, episode: index, step, group, critic,
      deltas: now.deltas, advantages: now.advantages, weights: now.weights, terms: now.terms,
      samples: overall.samples, mean: overall.mean, deviation: overall.deviation,
      advantage: overall.advantage, best: overall.trade.best.lambda,
    }),
    set, select: selectStep, choose: chooseEpisode, show: showView, group: groupBy, critic: chooseCritic,
  };
  show();

  return () => {
    unmount();
    for (const [name, follow] of Object.entries(followed)) model.off(`change:${name}`, follow);
  };
}

export {
  criticValues, episodeArrays, errorParts, estimates, exactMoments, gae, meanAndDeviation, nStepAdvantages,
  nStepWeights, roundUp, tdErrors, tdWeights, tradeOff, trueAdvantage, trueValues,
};
export default { render };
