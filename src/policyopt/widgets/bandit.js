// Policy gradient on a bandit: REINFORCE on three arms. Runs as an anywidget, and inline on a published page with
// no kernel (policyopt.widgets.sphinx). Everything above "The figure" touches no page: the tests run it in Node.

import {
  button, buttonGroup, choose, figureBox, h, liveRegion, meter, mount, normal, plain, press, randomStream, sharpPen,
  signed, softmax, text, ticker,
} from "./common.js";

// --- The bandit and its gradients, in float64 -------------------------------------------------------------------

const ARMS = ["A", "B", "C"];
const MEAN_DECAY = 0.9; // how much of the running mean a step keeps, as in policyopt.algorithms.reinforce

const sumOf = (values) => values.reduce((a, b) => a + b, 0);
const dot = (v, w) => sumOf(v.map((value, i) => value * w[i]));
const plus = (v, w, factor = 1) => v.map((value, i) => value + factor * w[i]);

/** ∇ log π(arm) for softmax logits: 1[a = arm] − π(a). */
const gradLogProb = (probabilities, arm) => probabilities.map((p, a) => (a === arm ? 1 : 0) - p);

/** ∇J(θ) for J = Σ π(a) r(a): component a is π(a) (r(a) − J). */
function exactGradient(probabilities, rewards) {
  const value = dot(probabilities, rewards);
  return probabilities.map((p, a) => p * (rewards[a] - value));
}

/** The mean of (R − b) ∇ log π(a) over samples {arm, reward}. */
function estimateGradient(probabilities, samples, baseline) {
  let sum = probabilities.map(() => 0);
  for (const { arm, reward } of samples) {
    sum = plus(sum, gradLogProb(probabilities, arm), reward - baseline);
  }
  return sum.map((value) => value / samples.length);
}

/** The root of the trace of that estimate's covariance, exactly: Σ over arms, and the noise's variance. */
function estimateDeviation(probabilities, rewards, noise, baseline, batch) {
  const square = sumOf(
    probabilities.map((p, arm) => {
      const score = gradLogProb(probabilities, arm);
      return p * dot(score, score) * ((rewards[arm] - baseline) ** 2 + noise * noise);
    }),
  );
  const mean = exactGradient(probabilities, rewards);
  return Math.sqrt(Math.max(square - dot(mean, mean), 0) / batch);
}

/** The velocity of π while θ moves along `gradient`: π(a) (g(a) − Σ π g). */
function policyVelocity(probabilities, gradient) {
  const mean = dot(probabilities, gradient);
  return probabilities.map((p, a) => p * (gradient[a] - mean));
}

/** Where π stands in a triangle with sides of 1: A at the top, B left and C right at the bottom (y = 0). */
const simplexPoint = ([a, , c]) => [c + a / 2, (a * Math.sqrt(3)) / 2];

const newRun = () => ({ logits: [0, 0, 0], mean: 0, step: 0, last: null });

const baselineOf = (kind, run, probabilities, rewards) =>
  ({ none: 0, mean: run.mean, value: dot(probabilities, rewards) })[kind];

/** The run after one REINFORCE step. The running mean learns last: of these rewards it knew nothing. */
function sampledStep(run, { rewards, noise, learningRate, baseline, batch }, uniform) {
  const probabilities = softmax(run.logits);
  const samples = Array.from({ length: batch }, () => {
    const arm = choose(probabilities, uniform);
    return { arm, reward: rewards[arm] + noise * normal(uniform) };
  });
  const b = baselineOf(baseline, run, probabilities, rewards);
  const gradient = estimateGradient(probabilities, samples, b);
  const meanReward = sumOf(samples.map(({ reward }) => reward)) / batch;
  return {
    logits: plus(run.logits, gradient, learningRate),
    mean: run.mean + (1 - MEAN_DECAY) * (meanReward - run.mean),
    step: run.step + 1,
    last: { kind: "sample", from: run.logits, probabilities, samples, baseline: b, learningRate, gradient },
  };
}

/** The run after one step along the exact gradient: nothing is drawn, and the running mean learns nothing. */
function exactStep(run, { rewards, learningRate }) {
  const probabilities = softmax(run.logits);
  const gradient = exactGradient(probabilities, rewards);
  return {
    logits: plus(run.logits, gradient, learningRate),
    mean: run.mean,
    step: run.step + 1,
    last: { kind: "exact", from: run.logits, probabilities, learningRate, gradient },
  };
}

/** How many runs have each arm as their likeliest one; a run with several such arms counts for none. */
function nearestCorners(runs) {
  const counts = ARMS.map(() => 0);
  for (const { logits } of runs) {
    const likeliest = Math.max(...logits);
    if (logits.filter((logit) => logit === likeliest).length === 1) counts[logits.indexOf(likeliest)] += 1;
  }
  return counts;
}

// --- The figure -------------------------------------------------------------------------------------------------

const LIMIT = 1000; // steps, then it stops
const SPEEDS = [2, 20, 100]; // steps a second
const MANY = 30;
const CLOUD = 200;
const LARGEST_BATCH = 16;
const DRAWN_RATE = 2; // the step that arrows and dots show
const BASELINES = { none: "no baseline", mean: "running mean", value: "exact J(θ)" };
const RANGES = { learning_rate: [0.01, 1], noise: [0, 2], offset: [-5, 5] };
const SLIDERS = [
  { name: "learning_rate", symbol: "α", words: "learning rate", step: 0.01, digits: 2 },
  { name: "noise", symbol: "σ", words: "reward noise", step: 0.1, digits: 1 },
  { name: "offset", symbol: "", words: "offset added to rewards", step: 0.5, digits: 1 },
];

const CSS = `
:host {
  --exact: #00734f; --estimate: #c04f00; --without: #a05a00; --with: #0072b2; --others: #9a4f80;
  --low: #fff; --high: #bfd6ea; --contour: #9fb6c9; --flow: #5d7488;
}
:host([data-theme="dark"]) {
  --exact: #2fd6a5; --estimate: #ff8b47; --without: #f0ad1e; --with: #6fc1f2; --others: #e39cc4;
  --low: #161b22; --high: #2b4054; --contour: #4a6278; --flow: #8399ab;
}
.hint { margin: .5rem 0 0; font-size: .88rem; color: var(--muted); }
.main {
  display: grid; grid-template: "stage panel" "actions actions" / minmax(0, 1.25fr) minmax(0, 1fr);
  gap: .7rem 1.4rem; margin: .6rem 0 .7rem;
}
.stage { margin: 0; }
.panel { grid-area: panel; display: flex; flex-direction: column; gap: .8rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0 .9em; font-size: .8rem; margin: .35rem 0 0; min-height: 1.45em; }
.legend > span { white-space: nowrap; }
.legend i { font-style: normal; font-weight: 700; margin-right: .3em; }
.legend.off { visibility: hidden; }
.legend.words { color: var(--muted); }
.panel, .sums { font-size: .86rem; }
.panel dl { display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; margin: 0; }
.panel dd { margin: 0; font-variant-numeric: tabular-nums; text-align: right; }
.rule { margin: .4rem 0 .1rem; white-space: nowrap; }
.sums { font-variant-numeric: tabular-nums; }
.sums td { padding: .05rem 0; white-space: nowrap; }
.sums td:first-child { text-align: left; }
.spread { table-layout: fixed; }
.spread th { width: 7.4rem; padding: .12rem 0; white-space: nowrap; }
.spread td { padding: .12rem 0; width: 3.4rem; }
.spread td.scale { width: auto; }
.spread tr.current th { font-weight: 650; }
.meter.signed > span { background: var(--grey); }
button[data-widest]::after { /* as wide as its widest, boldest text: nothing moves when it changes */
  content: attr(data-widest); display: block; height: 0; overflow: hidden; visibility: hidden; font-weight: 650;
}
.actions { grid-area: actions; display: grid; gap: .7rem; }
.buttons { display: flex; flex-wrap: wrap; gap: .5rem; }
.clock { font-size: .86rem; font-variant-numeric: tabular-nums; }
.choices button { min-width: 40px; }
.choices { display: flex; flex-wrap: wrap; gap: .6rem 1.6rem; }
.sliders { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0 1.6rem; margin: 0 0 .6rem; }
.sliders label { display: block; font-size: .86rem; }
.sliders label > span { display: flex; justify-content: space-between; gap: .5em; }
.sliders input { display: block; }
.arms { border-top: 1px solid var(--line); table-layout: fixed; }
.arms th, .arms td { padding: .3rem .35rem .2rem; text-align: right; vertical-align: top; }
.arms th:first-child { text-align: left; padding-left: 0; width: 6%; }
.arms tbody th { font-weight: 650; }
.arms thead th { color: var(--muted); font-size: .8rem; vertical-align: bottom; }
.arms :is(th, td):last-child { padding-right: 0; }
.arms .wide { width: 24%; }
@container (max-width: 620px) {
  .main { grid-template: "stage" "actions" "panel" / minmax(0, 1fr); }
  .sliders { grid-template-columns: minmax(0, 1fr); }
  .actions button { padding: .35rem .55rem; }
  .arms th, .arms td { padding: .3rem .12rem .2rem; font-size: .8rem; }
  .arms th:first-child { width: 5%; }
  .arms .wide { width: 20%; }
}
`;

/** With the given decimals, or up to 3 where a value has more than those. */
const exactly = (value, digits) =>
  Number(value.toFixed(digits)) === value ? value.toFixed(digits) : String(Number(value.toFixed(3)));

/** Draws the triangle: J as shading, its gradient's flow, the runs, and the arrows and dots of a step. */
function drawTriangle(canvas, scene, styles) {
  const width = canvas.clientWidth;
  const side = Math.min(width - 44, 420);
  const rise = (side * Math.sqrt(3)) / 2;
  const top = 46;
  const left = (width - side) / 2;
  const pen = sharpPen(canvas, Math.round(top + rise + 46));
  const colour = (name) => styles.getPropertyValue(name).trim();
  const at = (probabilities) => {
    const [x, y] = simplexPoint(probabilities);
    return [left + x * side, top + rise - y * side];
  };
  const corners = [at([1, 0, 0]), at([0, 1, 0]), at([0, 0, 1])];
  const path = (points) => {
    pen.beginPath();
    points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  };
  const arrow = ([x1, y1], [x2, y2], head) => {
    const length = Math.hypot(x2 - x1, y2 - y1);
    if (length < 1) return;
    const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
    const back = Math.min(head, length);
    path([[x1, y1], [x2 - ux * back * 0.7, y2 - uy * back * 0.7]]);
    pen.stroke();
    path([
      [x2, y2],
      [x2 - ux * back - uy * back * 0.55, y2 - uy * back + ux * back * 0.55],
      [x2 - ux * back + uy * back * 0.55, y2 - uy * back - ux * back * 0.55],
    ]);
    pen.fill();
  };
  const { means, rewards } = scene;

  // J is linear in π, so its contours are straight: a gradient from the worst corner across them
  const low = Math.min(...means);
  const high = Math.max(...means);
  path(corners);
  pen.closePath();
  pen.save();
  pen.clip();
  pen.fillStyle = colour("--low");
  pen.fill();
  if (high > low) {
    const [[ax, ay], [bx, by], [cx, cy]] = corners;
    const [u, v] = [means[0] - means[1], means[2] - means[1]];
    const det = (ax - bx) * (cy - by) - (cx - bx) * (ay - by);
    const slope = [(u * (cy - by) - v * (ay - by)) / det, (v * (ax - bx) - u * (cx - bx)) / det];
    const scale = (high - low) / (slope[0] ** 2 + slope[1] ** 2);
    const [x0, y0] = corners[means.indexOf(low)];
    const along = (t) => [x0 + t * scale * slope[0], y0 + t * scale * slope[1]];
    const shade = pen.createLinearGradient(...along(0), ...along(1));
    shade.addColorStop(0, colour("--low"));
    shade.addColorStop(1, colour("--high"));
    pen.fillStyle = shade;
    pen.fill();
    pen.strokeStyle = colour("--contour");
    pen.lineWidth = 1;
    for (let level = 1; level < 8; level++) {
      const [x, y] = along(level / 8);
      const reach = (2 * side) / Math.hypot(...slope);
      path([[x - slope[1] * reach, y + slope[0] * reach], [x + slope[1] * reach, y - slope[0] * reach]]);
      pen.stroke();
    }
  }
  pen.restore();

  // the exact gradient's flow; longer arrows where π moves faster
  const parts = 9;
  const flow = [];
  for (let a = 1; a < parts - 1; a++) {
    for (let b = 1; a + b < parts; b++) {
      const pi = [a, b, parts - a - b].map((n) => n / parts);
      flow.push([pi, policyVelocity(pi, exactGradient(pi, rewards))]);
    }
  }
  const speedOf = ([x, y]) => Math.hypot(x, y);
  const fastest = Math.max(...flow.map(([, v]) => speedOf(simplexPoint(v))));
  pen.strokeStyle = pen.fillStyle = colour("--flow");
  pen.lineWidth = 1.2;
  for (const [pi, v] of fastest > 1e-12 ? flow : []) {
    const [vx, vy] = simplexPoint(v);
    const speed = speedOf([vx, vy]);
    const length = (side / parts) * (0.3 + 0.5 * (speed / fastest));
    const [x, y] = at(pi);
    const [dx, dy] = [(vx / speed) * length, (-vy / speed) * length];
    arrow([x - dx / 2, y - dy / 2], [x + dx / 2, y + dy / 2], 5);
  }
  pen.strokeStyle = colour("--control");
  pen.lineWidth = 1.5;
  path(corners);
  pen.closePath();
  pen.stroke();

  // possible steps: crosses without a baseline, dots with the chosen one
  pen.lineWidth = 1.5;
  pen.strokeStyle = colour("--without");
  for (const pi of scene.cloud.none) {
    const [x, y] = at(pi);
    for (const r of [4, -4]) {
      path([[x - 4, y - r], [x + 4, y + r]]);
      pen.stroke();
    }
  }
  pen.fillStyle = colour("--with");
  for (const pi of scene.cloud.chosen) {
    pen.beginPath();
    pen.arc(...at(pi), 2.2, 0, 2 * Math.PI);
    pen.fill();
  }

  // the runs, the first with its trail
  pen.strokeStyle = colour("--text");
  pen.lineWidth = 1.6;
  pen.lineJoin = "round";
  path(scene.trail.map(at));
  pen.stroke();
  pen.lineWidth = 1.2;
  for (const pi of scene.others) {
    pen.fillStyle = colour("--others");
    pen.strokeStyle = colour("--paper");
    pen.beginPath();
    pen.arc(...at(pi), 4.5, 0, 2 * Math.PI);
    pen.fill();
    pen.stroke();
  }
  pen.lineWidth = 3;
  if (scene.sampleArrow) {
    pen.strokeStyle = pen.fillStyle = colour("--estimate");
    arrow(...scene.sampleArrow.map(at), 12);
  }
  pen.strokeStyle = pen.fillStyle = colour("--exact");
  arrow(...scene.exactArrow.map(at), 12);
  pen.fillStyle = colour("--text");
  pen.strokeStyle = colour("--paper");
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(...at(scene.policy), 6.5, 0, 2 * Math.PI);
  pen.fill();
  pen.stroke();

  pen.fillStyle = colour("--text");
  ARMS.forEach((name, a) => {
    const [x, y] = corners[a];
    pen.textAlign = ["center", "left", "right"][a];
    const shift = [0, -14, 14][a];
    pen.font = "650 14px system-ui, sans-serif";
    pen.fillText(`always ${name}`, x + shift, a ? y + 19 : y - 26);
    pen.font = "12.5px system-ui, sans-serif";
    const runs = scene.counts ? `${scene.counts[a]} of ${MANY} runs nearest` : `J = ${plain(rewards[a], 2)}`;
    pen.fillText(runs, x + shift, a ? y + 36 : y - 9);
  });
}

function render({ model, el }) {
  let settings, seed, runs, streams, trail, tosses;
  let playing = false;
  let speed = SPEEDS[1];
  let cloudShown = false;

  // --- elements
  const canvas = h("canvas", { role: "img" });
  const stage = h("div", { class: "stage" }, canvas);
  const sampleButton = button("One sample", () => sample(), { "data-widest": "One sample" });
  const playButton = button("Play", () => (playing ? pause() : play()), { "data-widest": "Replay" });
  const exactButton = button("Exact step", () => exact(), { title: "one step along the exact gradient" });
  const speedButtons = SPEEDS.map((value) =>
    button(`${value}/s`, () => setSpeed(value), {
      "data-speed": value, "data-widest": `${value}/s`, "aria-label": `${value} steps a second`,
    }),
  );
  const seedText = h("span", {});
  const choiceGroup = (name, words, options) => {
    const buttons = options.map(([value, label]) =>
      button(label, () => set({ [name]: value }), { [`data-${name}`]: value, "data-widest": label }),
    );
    const node = h("div", {}, h("p", { class: "label" }, words), buttonGroup(words, buttons));
    return { name, buttons, node };
  };
  const choices = [
    choiceGroup("baseline", "Baseline b", Object.entries({ ...BASELINES, none: "none" })),
    choiceGroup("batch", "Samples a step", [1, 4, 16].map((n) => [n, String(n)])),
    choiceGroup("runs", "Runs at once", [1, MANY].map((n) => [n, String(n)])),
  ];
  const sliders = SLIDERS.map(({ name, symbol, words, step, digits }) => {
    const [min, max] = RANGES[name];
    const value = h("b", { class: "number" });
    const input = h("input", { type: "range", min, max, step, "data-slider": name,
      oninput: () => set({ [name]: Number(input.value) }) });
    const label = h("span", {}, h("span", {}, symbol ? `${words} ${symbol}` : words), value);
    return { name, digits, input, value, node: h("label", {}, label, input) };
  });
  const cloudButton = button("Show 200 possible steps", () => cloud(!cloudShown), {
    "data-widest": "Show 200 possible steps",
  });

  const facts = Object.fromEntries(["arm", "reward", "baseline", "weight"].map((name) => {
    return [name, { label: h("dt", {}), value: h("dd", { "data-fact": name }) }];
  }));
  const sampleTitle = h("p", { class: "label" });
  const rule = h("p", { class: "rule" });
  const sums = ARMS.map((name) => {
    const cells = [h("td", {}), h("td", { "data-update": name })];
    return { cells, row: h("tr", {}, ...cells) };
  });
  const spreadRows = Object.entries(BASELINES).map(([key, words]) => {
    const fill = h("span");
    const value = h("td", { "data-spread": key });
    return { key, fill, value, row: h("tr", {},
      h("th", { scope: "row" }, words), h("td", { class: "scale" }, meter(fill)), value) };
  });
  const gradientFill = h("span", { style: "background: var(--exact)" });
  const gradientLength = h("td", { "data-spread": "gradient" });
  const armRows = ARMS.map((name) => {
    const fills = { reward: h("span"), policy: h("span") };
    const cells = Object.fromEntries(["reward", "logit", "policy", "exact", "estimate"].map((column) => {
      return [column, h("span", { "data-cell": `${column}-${name}` })];
    }));
    return { fills, cells, row: h("tr", {},
      h("th", { scope: "row" }, name),
      h("td", {}, cells.reward, meter(fills.reward, "signed")),
      h("td", {}, cells.logit),
      h("td", {}, cells.policy, meter(fills.policy)),
      h("td", {}, cells.exact),
      h("td", {}, cells.estimate)) };
  });
  const key = (sign, colourName, ...words) =>
    h("span", {}, h("i", { style: `color: var(${colourName})`, "aria-hidden": "true" }, sign), ...words);
  const withWords = h("span", {});
  const withKey = key("●", "--with", withWords);
  const cloudLegend = h("p", { class: "legend" }, key("×", "--without", "no baseline"), withKey);
  const othersKey = key("●", "--others", "other runs");
  const head = (text, kind = "") => h("th", { scope: "col", class: kind }, text);
  const announcer = liveRegion();
  const stepText = h("span", { "data-fact": "step" });

  const figure = figureBox("Policy gradient on a bandit",
    h("span", { class: "clock" }, "seed ", seedText, " · ", stepText),
    h("p", { class: "hint" },
      "Each point of the triangle is a policy: the nearer a corner, the more often that arm is pulled. " +
      "Take samples and watch the policy move."),
    h("div", { class: "main" },
      h("div", { style: "grid-area: stage" }, stage,
        h("p", { class: "legend" },
          key("➜", "--exact", "exact gradient ∇J"), key("➜", "--estimate", "last estimate"), othersKey),
        h("p", { class: "legend words" },
          `Coloured arrows and possible steps: with α = ${DRAWN_RATE}. Thin lines: policies of equal J(θ).`)),
      h("div", { class: "actions" },
        h("div", { class: "buttons" }, sampleButton, playButton,
          buttonGroup("Speed", speedButtons),
          exactButton, button("Restart", () => restart(), { title: "the same seed again" }),
          button("New seed", () => newSeed())),
        h("div", { class: "choices" }, ...choices.map(({ node }) => node))),
      h("div", { class: "panel" },
        h("div", {}, sampleTitle,
          h("dl", {}, ...Object.values(facts).flatMap(({ label, value }) => [label, value])),
          rule, h("table", { class: "sums" }, ...sums.map(({ row }) => row))),
        h("div", {},
          h("p", { class: "label" }, "Standard deviation of an estimate"),
          h("table", { class: "spread" }, ...spreadRows.map(({ row }) => row),
            h("tr", {}, h("th", { scope: "row" }, "length of ∇J"),
              h("td", { class: "scale" }, meter(gradientFill)), gradientLength))),
        h("div", {}, cloudButton, cloudLegend))),
    h("div", { class: "sliders" }, ...sliders.map(({ node }) => node)),
    h("table", { class: "arms" },
      h("thead", {}, h("tr", {}, head("arm"), head("mean reward r(a)", "wide"), head("logit θ(a)"),
        head("policy π(a)", "wide"), head("exact ∇J"), head("last estimate"))),
      h("tbody", {}, ...armRows.map(({ row }) => row))),
    announcer,
  );
  const unmount = mount(el, CSS, figure, paint);

  // --- what happens
  const rewards = () => model.get("means").map((mean) => mean + settings.offset);
  const stepSettings = () => ({ ...settings, learningRate: settings.learning_rate, rewards: rewards() });
  const policy = () => softmax(runs[0].logits);

  function restart() {
    runs = Array.from({ length: settings.runs }, newRun);
    streams = runs.map((_, i) => randomStream(MANY * seed + i));
    const uniform = randomStream(MANY * seed + MANY - 1 + 2 ** 31);
    tosses = Array.from({ length: CLOUD }, () =>
      Array.from({ length: LARGEST_BATCH }, () => ({ toss: uniform(), noise: normal(uniform) })));
    trail = [policy()];
    announcer.textContent = "";
    pause();
  }

  function newSeed() {
    seed = (seed + 1) % 2 ** 31;
    restart();
  }

  function advance(move) {
    if (runs[0].step >= LIMIT) return;
    const now = stepSettings();
    runs = runs.map((run, i) => move(run, now, streams[i]));
    trail.push(policy());
    if (runs[0].step >= LIMIT) finish();
  }

  function finish() {
    playing = false;
    announcer.textContent = `Stopped after ${LIMIT} steps. ${whereRuns()}`;
  }

  function manual(move, count) {
    playing = false;
    for (let i = 0; i < count; i++) advance(move);
    if (runs[0].step < LIMIT) announcer.textContent = spoken();
    show();
  }
  const sample = (count = 1) => manual(sampledStep, count);
  const exact = (count = 1) => manual(exactStep, count);

  const listed = (values) => ARMS.map((name, a) => `${name} ${values[a]}`).join(", ");
  const whereRuns = () => (runs.length > 1 ? `Runs nearest each corner: ${listed(nearestCorners(runs))}.` :
    `Policy ${listed(policy().map((p) => p.toFixed(2)))}.`);

  function spoken() {
    const { last } = runs[0];
    const drawn = last.kind === "exact" ? "Exact step." :
      last.samples.length > 1 ? `${last.samples.length} samples.` :
        `Drew ${ARMS[last.samples[0].arm]}, reward ${plain(last.samples[0].reward, 2)}.`;
    return `${drawn} Policy ${listed(policy().map((p) => p.toFixed(2)))}.`;
  }

  function cloud(shown) {
    cloudShown = shown;
    show();
  }

  function setSpeed(value) {
    speed = value;
    show();
  }

  function set(changes) {
    for (const [name, value] of Object.entries(changes)) {
      if (!Object.hasOwn(settings, name)) throw new RangeError(`There is no setting ${name}.`);
      const allowed = { baseline: Object.keys(BASELINES), batch: [1, 4, LARGEST_BATCH], runs: [1, MANY] }[name];
      const [low, high] = RANGES[name] ?? [];
      if (allowed ? !allowed.includes(value) : !(value >= low && value <= high)) {
        throw new RangeError(`${name} cannot be ${value}; allowed: ${allowed?.join(", ") ?? `${low} to ${high}`}.`);
      }
    }
    const anew = (changes.runs ?? settings.runs) !== settings.runs;
    Object.assign(settings, changes);
    if (anew) restart();
    else show();
  }

  // --- the clock
  const clock = ticker({ running: () => playing, rate: () => speed, step: () => advance(sampledStep), show });

  function play() {
    if (runs[0].step >= LIMIT) restart();
    playing = true;
    show();
    clock.start();
  }

  function pause() {
    playing = false;
    show();
  }

  // --- showing it
  let described = 0; // when the canvas was last put into words

  function possible(kind) {
    const pi = policy();
    const truth = rewards();
    const b = baselineOf(kind, runs[0], pi, truth);
    return tosses.map((row) => {
      const samples = row.slice(0, settings.batch).map(({ toss, noise }) => {
        const arm = choose(pi, () => toss);
        return { arm, reward: truth[arm] + settings.noise * noise };
      });
      return softmax(plus(runs[0].logits, estimateGradient(pi, samples, b), DRAWN_RATE));
    });
  }

  function showLast() {
    const { last } = runs[0];
    const one = last?.kind === "sample" && last.samples.length === 1;
    const batch = settings.batch === 1 ? "sample" : `${settings.batch} samples`;
    text(sampleTitle, last === null ? `Last ${batch}: none yet` :
      last.kind === "exact" ? "Last step: exact" :
        one ? "Last sample" : `Last ${last.samples.length} samples`);
    const few = last ? !one && last.kind === "sample" : settings.batch > 1;
    text(facts.arm.label, few ? "arms drawn" : "arm drawn a");
    text(facts.reward.label, few ? "mean reward" : "reward R");
    text(facts.baseline.label, "baseline b");
    text(facts.weight.label, few ? "mean weight R − b" : "weight R − b");
    const values = { arm: "–", reward: "–", baseline: "–", weight: "–" };
    if (last?.kind === "sample") {
      const drawn = ARMS.map((name, a) => [name, last.samples.filter(({ arm }) => arm === a).length]);
      const reward = sumOf(last.samples.map((one) => one.reward)) / last.samples.length;
      values.arm = one ? ARMS[last.samples[0].arm] : drawn.map(([name, n]) => `${name} ${n}`).join(", ");
      values.reward = signed(reward, 2);
      values.baseline = plain(last.baseline, 2);
      values.weight = signed(reward - last.baseline, 2);
    }
    for (const [name, { value }] of Object.entries(facts)) text(value, values[name]);
    text(rule, last?.kind === "exact" ? "Δθ = α ∇J" :
      few ? "Δθ = α · mean of (R − b)(1[a] − π)" : "Δθ = α (R − b)(1[a] − π)");
    sums.forEach(({ cells: [left, right] }, a) => {
      if (last === null) {
        text(left, `${ARMS[a]}: –`);
        text(right, "");
        return;
      }
      const rate = exactly(last.learningRate, 2);
      const factors = one
        ? `(${signed(last.samples[0].reward - last.baseline, 2)})(${Number(last.samples[0].arm === a)} − ` +
          `${last.probabilities[a].toFixed(3)})`
        : `(${signed(last.gradient[a], 3)})`;
      text(left, `${ARMS[a]}: ${rate} × ${factors}`);
      text(right, `= ${signed(last.learningRate * last.gradient[a], 3)}`);
    });
  }

  function spread() {
    const pi = policy();
    const deviation = (kind) => estimateDeviation(
      pi, rewards(), settings.noise, baselineOf(kind, runs[0], pi, rewards()), settings.batch);
    return Object.fromEntries(Object.keys(BASELINES).map((kind) => [kind, deviation(kind)]));
  }

  function show() {
    const pi = policy();
    const truth = rewards();
    const gradient = exactGradient(pi, truth);
    const { last, logits, step } = runs[0];
    text(stepText, `step ${step} of ${LIMIT}`);
    text(sampleButton, settings.batch === 1 ? "One sample" : `${settings.batch} samples`);
    text(playButton, playing ? "Pause" : step >= LIMIT ? "Replay" : "Play");
    for (const element of [sampleButton, exactButton]) element.setAttribute("aria-disabled", step >= LIMIT);
    press(speedButtons, "speed", speed);
    for (const { name, buttons } of choices) press(buttons, name, settings[name]);
    for (const { name, digits, input, value } of sliders) {
      if (Number(input.value) !== settings[name]) input.value = settings[name];
      const shown = exactly(Math.abs(settings[name]), digits);
      text(value, name === "offset" ? ["−", "", "+"][Math.sign(settings[name]) + 1] + shown : shown);
    }
    cloudButton.setAttribute("aria-pressed", cloudShown);
    cloudLegend.classList.toggle("off", !cloudShown);
    text(withWords, BASELINES[settings.baseline]);
    withKey.style.display = settings.baseline === "none" ? "none" : "";
    othersKey.style.visibility = runs.length === 1 ? "hidden" : "";
    text(seedText, String(seed));
    showLast();

    const deviations = spread();
    const length = Math.sqrt(dot(gradient, gradient));
    const longest = Math.max(...Object.values(deviations), length, 1e-9);
    for (const { key: kind, fill, value, row } of spreadRows) {
      fill.style.transform = `scaleX(${deviations[kind] / longest})`;
      text(value, deviations[kind].toFixed(3));
      row.classList.toggle("current", kind === settings.baseline);
    }
    gradientFill.style.transform = `scaleX(${length / longest})`;
    text(gradientLength, length.toFixed(3));

    const reach = Math.max(...model.get("means").map(Math.abs)) + RANGES.offset[1];
    armRows.forEach(({ fills, cells }, a) => {
      text(cells.reward, plain(truth[a], 2));
      fills.reward.style.transform = `scaleX(${truth[a] / reach})`;
      text(cells.logit, signed(logits[a], 2));
      text(cells.policy, pi[a].toFixed(3));
      fills.policy.style.transform = `scaleX(${pi[a]})`;
      text(cells.exact, signed(gradient[a], 3));
      text(cells.estimate, last?.kind === "sample" ? signed(last.gradient[a], 3) : "–");
    });

    const now = performance.now();
    if (!playing || now - described > 1000) {
      described = now;
      canvas.setAttribute("aria-label", `Triangle of policies. After ${step} steps the policy is ` +
        `${listed(pi.map((p) => p.toFixed(2)))}.${runs.length > 1 ? ` ${whereRuns()}` : ""}`);
    }
    paint();
  }

  function paint() {
    if (canvas.clientWidth === 0) return; // not laid out: in a closed tab or a page being built
    const pi = policy();
    const truth = rewards();
    const { last, logits } = runs[0];
    const lead = (from, gradient) => [softmax(from), softmax(plus(from, gradient, DRAWN_RATE))];
    drawTriangle(canvas, {
      means: model.get("means"),
      rewards: truth,
      policy: pi,
      trail,
      others: runs.slice(1).map((run) => softmax(run.logits)),
      counts: settings.runs > 1 ? nearestCorners(runs) : null,
      exactArrow: lead(logits, exactGradient(pi, truth)),
      sampleArrow: last?.kind === "sample" ? lead(last.from, last.gradient) : null,
      cloud: {
        none: cloudShown ? possible("none") : [],
        chosen: cloudShown && settings.baseline !== "none" ? possible(settings.baseline) : [],
      },
    }, getComputedStyle(figure));
  }

  figure.addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow")) event.stopPropagation(); // else a page may turn to the next chapter
  });

  // --- the page around it
  const newModel = () => {
    const names = ["noise", "learning_rate", "offset", "baseline", "runs"];
    settings = { batch: 1, ...Object.fromEntries(names.map((name) => [name, model.get(name)])) };
    seed = model.get("seed");
    restart();
  };
  const traits = ["means", "noise", "learning_rate", "offset", "baseline", "runs", "seed"];
  newModel();
  for (const name of traits) model.on(`change:${name}`, newModel);

  el.policyopt = {
    state: () => structuredClone({
      settings, seed, playing, speed, cloudShown, rewards: rewards(), probabilities: policy(), ...runs[0],
      exact: exactGradient(policy(), rewards()), spread: spread(), runs, nearest: nearestCorners(runs),
    }),
    sample,
    exact,
    play,
    pause,
    restart,
    newSeed,
    cloud,
    set,
  };

  return () => {
    playing = false;
    clock.stop();
    unmount();
    for (const name of traits) model.off(`change:${name}`, newModel);
  };
}

export {
  baselineOf, estimateDeviation, estimateGradient, exactGradient, exactStep, gradLogProb, nearestCorners, newRun,
  policyVelocity, randomStream, sampledStep, simplexPoint,
};
export default { render };
