// Clip explorer: PPO's clipped surrogate of one sample over the ratio ρ, and its gradient. Everything above "The
// figure" touches no page: the tests run it in Node.

import {
  attribute, button, figureBox, h, known, liveRegion, mount, plain, press, sharpPen, signed, text, ticker,
} from "./common.js";

// --- The objective, as policyopt.losses.clipped_surrogate, and its gradient, as PyTorch has it ------------------

/** Both terms, their minimum, and its gradient with respect to the ratio. */
function surrogate({ ratio, advantage, clip }) {
  const clippedRatio = Math.min(Math.max(ratio, 1 - clip), 1 + clip);
  const unclipped = ratio * advantage;
  const clipped = clippedRatio * advantage;
  // Where the terms are equal, minimum() passes half the gradient to each, and clamp() lets its half through at the
  // border too: together the whole of it.
  const gradient = clipped < unclipped ? 0 : advantage;
  return { clippedRatio, unclipped, clipped, objective: Math.min(unclipped, clipped), gradient };
}

/** The border at which the gradient stops: 1 + ε for a good action, 1 − ε for a bad one. */
const stopsAt = ({ advantage, clip }) => (advantage === 0 ? null : 1 + Math.sign(advantage) * clip);

/** A ratio that is a border but for rounding is that border. */
const snap = (ratio, clip) => [1 - clip, 1 + clip].find((border) => Math.abs(ratio - border) < 1e-9) ?? ratio;

const sideOf = ({ ratio, clip }) => (ratio < 1 - clip ? "low" : ratio > 1 + clip ? "high" : "inside");

/** "good" or "bad" by the advantage's sign and "low", "inside" or "high" by the ratio; else "zero" or "border". */
function caseOf(now) {
  if (now.advantage === 0) return "zero";
  if (now.ratio === stopsAt(now)) return "border";
  return `${now.advantage > 0 ? "good" : "bad"}-${sideOf(now)}`;
}

const STEP_SIZE = 0.03; // α of a gradient step on the ratio

/** The ratio after one step of gradient ascent. */
const ascend = (now) => snap(now.ratio + STEP_SIZE * surrogate(now).gradient, now.clip);

/** A ratio and an advantage of the given case, of the size the advantage has. */
function example(name, { advantage, clip }) {
  const [sign, side] = name.split("-");
  const size = Math.abs(advantage) || 1;
  const away = { low: -clip - 0.3, inside: 0, high: clip + 0.3 }[side];
  return { ratio: Math.round(100 * (1 + away)) / 100, advantage: sign === "good" ? size : -size };
}

// --- The figure -------------------------------------------------------------------------------------------------

const RANGES = { clip: [0.05, 0.5], advantage: [-2, 2], ratio: [0, 2] };
const RATE = 8; // gradient steps a second
const SLIDERS = [
  { name: "ratio", symbol: "ρₜ(θ)", words: "importance ratio", step: 0.01 },
  { name: "advantage", symbol: "Âₜ", words: "advantage", step: 0.1 },
  { name: "clip", symbol: "ε", words: "clip range", step: 0.01 },
];
const TERMS = [
  { name: "unclipped", symbol: "ρₜ Âₜ", words: "unclipped" },
  { name: "clipped", symbol: "clip(ρₜ, 1−ε, 1+ε) Âₜ", words: "clipped" },
  { name: "objective", symbol: "objective", words: "the smaller of the two" },
  { name: "gradient", symbol: "gradient", words: "the objective’s slope" },
];
const CASES = {
  good: { "low": "pushed back up\u00a0↑", "inside": "pushed up\u00a0↑", "high": "no push ✕" },
  bad: { "low": "no push ✕", "inside": "pushed down\u00a0↓", "high": "pushed back down\u00a0↓" },
};
const CASE_NAMES = Object.entries(CASES).flatMap(([sign, row]) => Object.keys(row).map((side) => `${sign}-${side}`));
const VERDICTS = {
  "good-low":
    "A good action has become less likely: the update went wrong for it. ρₜÂₜ is the smaller term, so the clip " +
    "does not act: the full push back up, however far it has fallen.",
  "good-inside":
    "A good action with its ratio inside the clip range. Both terms are equal there, and the clip changes nothing: " +
    "the gradient is Âₜ and pushes the probability up.",
  "good-high":
    "A good action that is likelier already, by more than ε. A still larger ratio would raise ρₜÂₜ, but the " +
    "smaller term counts, the clipped one, and that is flat: no more push.",
  "bad-low":
    "A bad action that is less likely already, by more than ε. A still smaller ratio would raise ρₜÂₜ, but the " +
    "smaller term counts, the clipped one, and that is flat: no more push.",
  "bad-inside":
    "A bad action with its ratio inside the clip range. Both terms are equal there, and the clip changes nothing: " +
    "the gradient is Âₜ and pushes the probability down.",
  "bad-high":
    "A bad action has become likelier: the update went wrong for it. ρₜÂₜ is the smaller term, so the clip does " +
    "not act: the full push back down, however far it has risen.",
  border:
    "Exactly on the border both terms are equal, and the objective has a kink. PyTorch takes the slope of the " +
    "unclipped side: the gradient is still Âₜ (●), and 0 (○) only beyond.",
  zero:
    "An advantage of 0: the action was as good as expected. Objective and gradient are 0 whatever the ratio, " +
    "clipped or not.",
};
const [LEFT, RIGHT] = [40, 14]; // of the axes
const TOP = 28; // of the objective's lane
const LANES = { objective: 188, gradient: 54 };
const BETWEEN = 52; // the lanes: the borders' names and the title of the second
const UNDER = 42; // for the ratio's axis

const CSS = `
.hint { margin: .5rem 0 0; font-size: .88rem; color: var(--muted); }
.main {
  display: grid; gap: .8rem 1.4rem; margin-top: .7rem;
  grid-template: "stage sliders" "stage numbers" "verdicts verdicts" "actions actions" "cases cases" /
    minmax(0, 1.5fr) minmax(0, 1fr);
}
.stage { grid-area: stage; margin: 0; align-self: start; cursor: ew-resize; }
.sliders { grid-area: sliders; }
.sliders label { display: block; font-size: .88rem; }
.sliders label > span { display: flex; justify-content: space-between; gap: .5em; }
.sliders i { font-weight: 650; }
.sliders input { display: block; }
.sliders b { font-variant-numeric: tabular-nums; }
.numbers { grid-area: numbers; align-self: end; }
.numbers :is(th, td) { padding: .24rem 0; border-top: 1px solid var(--line); vertical-align: top; }
.numbers th { white-space: nowrap; }
.numbers th > i { font-style: normal; }
.numbers small { display: block; color: var(--muted); font-size: .8rem; padding-left: 2.2em; }
.numbers small, .numbers td { font-variant-numeric: tabular-nums; }
.numbers tr[data-row="objective"] :is(i, td), .numbers tr[data-row="gradient"] :is(i, td) { font-weight: 650; }
.swatch {
  display: inline-block; width: 1.7em; margin-right: .5em; vertical-align: .25em; border-top: 2px dashed;
  color: var(--vermilion);
}
[data-row="clipped"] .swatch { border-top: 3px dotted; color: var(--green); }
[data-row="objective"] .swatch { border-top: 4px solid; color: var(--blue); }
[data-row="gradient"] .swatch { border-top: 3px solid; color: var(--text); }
.verdicts {
  grid-area: verdicts; display: grid; padding: .1rem 0 .1rem .75rem; border-left: 4px solid var(--blue);
  font-size: .95rem;
}
.verdicts p { grid-area: 1 / 1; margin: 0; visibility: hidden; } /* one place for all: nothing moves at a change */
.verdicts p.shown { visibility: visible; }
.verdicts[data-push="none"] { border-left-color: var(--control); }
.actions {
  grid-area: actions; display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .3rem 1rem; align-items: center;
}
.buttons { display: flex; flex-wrap: wrap; gap: .5rem; }
.buttons button:first-child { min-width: 11em; }
.walk { margin: 0; font-size: .84rem; color: var(--muted); min-height: 4.4em; display: flex; align-items: center; }
.cases { grid-area: cases; table-layout: fixed; border-top: 1px solid var(--line); }
.cases :is(th, td) { padding: .25rem .2rem; text-align: center; }
.cases thead th { padding-top: .5rem; vertical-align: bottom; }
.cases tr > :first-child { width: 26%; text-align: left; padding-left: 0; }
.cases :is(th, td):last-child { padding-right: 0; }
.cases small { display: block; color: var(--muted); font-size: .8rem; line-height: 1.25; }
.cases button {
  width: 100%; min-height: 44px; padding: .3rem .2rem; font-size: .86rem; line-height: 1.25; white-space: normal;
}
.cases button[data-stopped] { border-style: dashed; }
.cases button[aria-pressed="true"] { font-weight: 400; border-color: var(--blue); } /* as wide as before */
.sum { margin: .4rem 0 0; font-size: .88rem; text-align: center; text-wrap: balance; }
@container (max-width: 620px) {
  .main {
    gap: .7rem; grid-template: "stage" "verdicts" "sliders" "actions" "numbers" "cases" / minmax(0, 1fr);
  }
  .actions { grid-template-columns: minmax(0, 1fr); }
  .walk { align-items: start; }
  .buttons { flex-wrap: nowrap; }
  .buttons button { flex: 1 1 auto; padding: .35rem .2rem; font-size: .84rem; }
  .buttons button:first-child { min-width: 10.8em; }
  .cases tr > :first-child { width: 16%; }
  .rest { display: none !important; }
}
`;

/** With two decimals, or three where it has more than two. */
const short = (value) => plain(value, Math.abs(100 * value - Math.round(100 * value)) < 1e-6 ? 2 : 3);
const orZero = (value) => (value === 0 ? "0" : signed(value, 3));

const xOf = (ratio, width) => LEFT + (ratio / RANGES.ratio[1]) * (width - LEFT - RIGHT);
const ratioAt = (x, width) => ((x - LEFT) / (width - LEFT - RIGHT)) * RANGES.ratio[1];

/** Draws objective and gradient over the ratio, one above the other; `trail` are the ratios of the steps taken. */
function drawCurves(canvas, { now, trail }, styles) {
  const width = canvas.clientWidth;
  const gradientTop = TOP + LANES.objective + BETWEEN;
  const bottom = gradientTop + LANES.gradient;
  const pen = sharpPen(canvas, bottom + UNDER);
  const colour = (name) => styles.getPropertyValue(name).trim();
  const { ratio, advantage, clip } = now;
  const [low, high] = [1 - clip, 1 + clip];
  const kink = stopsAt(now);
  const x = (value) => xOf(value, width);
  const unit = [0.5, 1, 2].find((size) => size >= Math.abs(advantage)); // of the scales
  const sign = advantage < 0 ? -1 : 1;
  /** Places 0 to ±top over a lane, the zero line where the other sign would begin. */
  const scale = (start, size, top) => (value) =>
    sign > 0 ? start + size * (1 - value / top) : start + size * (-value / top);
  const y = scale(TOP, LANES.objective, 2 * unit);
  const yGradient = scale(gradientTop, LANES.gradient, unit);
  const path = (points, stroke, lineWidth, dash = []) => {
    pen.strokeStyle = colour(stroke);
    pen.lineWidth = lineWidth;
    pen.setLineDash(dash);
    pen.beginPath();
    for (const point of points) pen.lineTo(...point);
    pen.stroke();
    pen.setLineDash([]);
  };
  const write = (words, at, baseline, { align = "left", ink = "--muted", weight = 400, halo = null } = {}) => {
    pen.font = `${weight} 12.5px system-ui, sans-serif`;
    pen.textAlign = align;
    if (halo) {
      pen.strokeStyle = colour(halo);
      pen.lineWidth = 6;
      pen.strokeText(words, at, baseline);
    }
    pen.fillStyle = colour(ink);
    pen.fillText(words, at, baseline);
  };
  const dot = (cx, cy, radius, fill, stroke, lineWidth = 2) => {
    pen.beginPath();
    pen.arc(cx, cy, radius, 0, 2 * Math.PI);
    pen.fillStyle = colour(fill);
    pen.fill();
    pen.strokeStyle = colour(stroke);
    pen.lineWidth = lineWidth;
    pen.stroke();
  };

  // where the gradient is zero, hatched and named
  const flat = advantage > 0 ? [high, 2] : advantage < 0 ? [0, low] : [0, 2];
  const [from, to] = flat.map(x);
  for (const [top, size] of [[TOP, LANES.objective], [gradientTop, LANES.gradient]]) {
    pen.save();
    pen.beginPath();
    pen.rect(from, top, to - from, size);
    pen.fillStyle = colour("--paper");
    pen.fill();
    pen.clip();
    for (let start = from - size; start < to; start += 9) {
      path([[start, top + size], [start + size, top]], "--line", 1);
    }
    pen.restore();
  }

  // the scales
  for (const value of [0, unit, 2 * unit]) {
    if (value) path([[x(0), y(sign * value)], [x(2), y(sign * value)]], "--line", 1);
    write(value ? plain(sign * value, unit < 1 ? 1 : 0) : "0", LEFT - 7, y(sign * value) + 4, { align: "right" });
  }
  for (const place of [y, yGradient]) path([[x(0), place(0)], [x(2), place(0)]], "--control", 1);
  write("0", LEFT - 7, yGradient(0) + 4, { align: "right" });
  if (Math.abs(yGradient(advantage) - yGradient(0)) > 13) {
    write("Âₜ", LEFT - 7, yGradient(advantage) + 4, { align: "right", ink: "--text" });
  }
  for (const value of [0, 0.5, 1, 1.5, 2]) {
    path([[x(value), bottom], [x(value), bottom + 5]], "--control", 1);
    write(String(value), x(value), bottom + 18, { align: "center" });
  }
  write("objective", 8, 17, { ink: "--text", weight: 650 });
  write("gradient", 8, gradientTop - 13, { ink: "--text", weight: 650 });
  write("← less likely", x(0), bottom + 35);
  write("ratio ρₜ(θ)", x(1), bottom + 35, { align: "center", ink: "--text", weight: 650 });
  write("likelier →", x(2), bottom + 35, { align: "right" });

  // the clip range
  for (const border of [low, high]) path([[x(border), TOP - 4], [x(border), bottom]], "--control", 1.5, [2, 3]);

  /** Names the hatched region, below the flat part of the objective, on as many lines as it needs. */
  function nameFlat() {
    pen.font = "650 12.5px system-ui, sans-serif";
    const lines = ["no gradient:", kink === null ? "the advantage is 0" : "the clip holds"].flatMap((words) =>
      pen.measureText(words).width <= to - from - 12 ? [words] : words.split(/ (?=\S+$)/));
    const [top, end] = [y(kink === null ? 0 : kink * advantage), TOP + LANES.objective];
    const start = (top + end) / 2 - 8 * lines.length + (kink === null ? -0.3 * LANES.objective : 14);
    lines.forEach((words, i) => write(words, (from + to) / 2, start + 16 * i,
      { align: "center", ink: "--text", weight: 650, halo: "--paper" }));
  }

  // both terms, and their minimum over them
  const at = (value) => surrogate({ ...now, ratio: value });
  const corners = [0, low, high, 2];
  const line = (name) => corners.map((value) => [x(value), y(at(value)[name])]);
  path(line("unclipped"), "--vermilion", 2, [7, 5]);
  path(line("clipped"), "--green", 2.5, [2, 4]);
  pen.lineJoin = "round";
  path(line("objective"), "--blue", 4);

  // the gradient, a step; at the border the unclipped side
  if (kink === null) {
    path([[x(0), yGradient(0)], [x(2), yGradient(0)]], "--text", 3);
  } else {
    const [first, last] = sign > 0 ? [advantage, 0] : [0, advantage];
    path([[x(0), yGradient(first)], [x(kink), yGradient(first)]], "--text", 3);
    path([[x(kink), yGradient(last)], [x(2), yGradient(last)]], "--text", 3);
    dot(x(kink), yGradient(0), 4, "--sheet", "--text");
    dot(x(kink), yGradient(advantage), 4, "--text", "--text");
  }

  // the steps taken, the point, and the push
  const { unclipped, clipped, objective, gradient } = at(ratio);
  for (const value of trail) dot(x(value), y(at(value).objective), 3.5, "--paper", "--blue", 1.5);
  path([[x(ratio), y(objective)], [x(ratio), bottom]], "--text", 1);
  nameFlat();
  const names = TOP + LANES.objective + 17;
  write(`1−ε = ${short(low)}`, x(low) - 6, names, { align: "right", ink: "--text", halo: "--sheet" });
  write(`1+ε = ${short(high)}`, x(high) + 6, names, { ink: "--text", halo: "--sheet" });
  if (Math.abs(y(unclipped) - y(clipped)) > 12) {
    const [ink, value] = unclipped > clipped ? ["--vermilion", unclipped] : ["--green", clipped];
    path([[x(ratio), y(objective)], [x(ratio), y(value)]], ink, 1, [2, 2]);
    dot(x(ratio), y(value), 4.5, "--paper", ink);
  }
  if (gradient !== 0) {
    const side = Math.sign(gradient);
    const tip = x(ratio) + side * (26 + 16 * Math.abs(gradient));
    path([[x(ratio), y(objective)], [tip - side * 8, y(objective)]], "--text", 3);
    pen.fillStyle = colour("--text");
    pen.beginPath();
    pen.moveTo(tip, y(objective));
    pen.lineTo(tip - side * 11, y(objective) - 7);
    pen.lineTo(tip - side * 11, y(objective) + 7);
    pen.fill();
  }
  dot(x(ratio), y(objective), 9, "--blue", "--paper", 2.5);
  dot(x(ratio), yGradient(gradient), 6, "--blue", "--paper");
}

function render({ model, el }) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const names = Object.keys(RANGES);
  const now = {};
  let trail = []; // the ratios before each step of a walk
  let walk = "ready"; // ready | running | paused | stopped

  // --- elements
  const canvas = h("canvas", { role: "img" });
  const stage = h("div", { class: "stage" }, canvas);
  const sliders = SLIDERS.map(({ name, symbol, words, step }) => {
    const [min, max] = RANGES[name];
    const value = h("b", { "data-value": name });
    const input = h("input", {
      type: "range", min, max, step, "aria-label": `${symbol}, ${words}`, "data-slider": name,
      oninput: () => set({ [name]: Number(input.value) }), onchange: () => announce(),
    });
    const label = h("span", {}, h("span", {}, h("i", {}, symbol), ` ${words}`), value);
    return { name, input, value, node: h("label", {}, label, input) };
  });
  const terms = TERMS.map(({ name, symbol, words }) => {
    const working = h("small", {}, words);
    const value = h("td", { "data-fact": name });
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    const row = h("tr", { "data-row": name },
      h("th", { scope: "row" }, swatch, h("i", {}, symbol), working), value);
    return { name, words, working, value, row };
  });
  const verdicts = Object.entries(VERDICTS).map(([name, words]) => h("p", { "data-verdict": name }, words));
  const verdictBox = h("div", { class: "verdicts" }, ...verdicts);
  const followButton = button("", () => (walk === "running" ? pause() : follow()));
  const walkText = h("span", {});
  const caseButtons = CASE_NAMES.map((name) => {
    const [sign, side] = name.split("-");
    const words = CASES[sign][side];
    const where = { low: "less likely", inside: "inside the clip range", high: "likelier" }[side];
    return button(words, () => choose(name), {
      "data-case": name, "aria-label": `${sign} action, ${where}: ${words.slice(0, -2)}`,
      ...(words.endsWith("✕") ? { "data-stopped": "" } : {}),
    });
  });
  const rest = (words) => h("span", { class: "rest" }, words); // left out on a phone
  const head = (symbol, ...words) => h("th", { scope: "col" }, symbol, h("small", {}, ...words));
  const caseRow = (symbol, word, meaning, buttons) =>
    h("tr", {}, h("th", { scope: "row" }, symbol, h("small", {}, word, rest(`: ${meaning}`))),
      ...buttons.map((one) => h("td", {}, one)));
  const announcer = liveRegion();

  const figure = figureBox("Clip explorer", "",
    h("p", { class: "hint" },
      "Drag the point: the ratio says how much likelier one action has become since it was sampled. The arrow " +
      "is the push that the gradient gives it."),
    h("div", { class: "main" }, stage,
      h("div", { class: "sliders" }, ...sliders.map(({ node }) => node)),
      h("table", { class: "numbers" }, ...terms.map((term) => term.row)),
      verdictBox,
      h("div", { class: "actions" },
        h("div", { class: "buttons" }, followButton, button("One step", () => step()),
          button(h("span", {}, rest("Back "), "to ρ = 1"), () => restart(), { "aria-label": "Back to ρ = 1" })),
        h("p", { class: "walk" }, walkText)),
      h("table", { class: "cases", "aria-label": "The cases; choose one to see it" },
        h("thead", {}, h("tr", {}, h("td", {}), head("ρₜ < 1 − ε", rest("has become "), "less likely"),
          head("between", rest("inside the "), "clip range"), head("ρₜ > 1 + ε", rest("has become "), "likelier"))),
        h("tbody", {},
          caseRow("Âₜ > 0", "good", "better than expected", caseButtons.slice(0, 3)),
          caseRow("Âₜ < 0", "bad", "worse than expected", caseButtons.slice(3))))),
    h("p", { class: "sum" },
      "What got worse counts in full, what got better only up to the border: the objective is a pessimistic bound."),
    announcer,
  );
  const unmount = mount(el, CSS, figure, paint);

  // --- what happens
  function set(changes) {
    for (const [name, value] of Object.entries(changes)) {
      const [low, high] = RANGES[known("setting", name, names)];
      if (typeof value !== "number" || !(value >= low && value <= high)) {
        throw new RangeError(`${name} is ${value}; it must be a number from ${low} to ${high}.`);
      }
    }
    Object.assign(now, changes);
    now.ratio = snap(now.ratio, now.clip);
    trail = [];
    walk = "ready";
    show();
  }

  function choose(name) {
    set(example(known("case", name, CASE_NAMES), now));
    announce();
  }

  function restart() {
    set({ ratio: 1 });
    announce();
  }

  function advance() {
    if (surrogate(now).gradient !== 0) {
      trail.push(now.ratio);
      now.ratio = ascend(now);
    }
    if (surrogate(now).gradient === 0) {
      walk = "stopped";
      announcer.textContent = walkWords();
    }
  }

  function step(count = 1) {
    walk = "paused";
    for (let i = 0; i < count && walk === "paused"; i++) advance();
    show();
    if (walk === "paused") announce();
  }

  function follow() {
    if (walk === "ready" || walk === "stopped") trail = [];
    walk = "running";
    if (calm || surrogate(now).gradient === 0) while (walk === "running") advance();
    show();
    if (walk === "running") clock.start();
  }

  function pause() {
    if (walk === "running") walk = "paused";
    show();
  }

  const clock = ticker({ running: () => walk === "running", rate: () => RATE, step: advance, show });

  // --- showing it
  function walkWords() {
    const steps = `${trail.length} ${trail.length === 1 ? "step" : "steps"}`;
    if (walk === "ready") {
      return `A gradient step: ρₜ ← ρₜ + ${STEP_SIZE} · gradient. (In training θ moves, and ρₜ with it.)`;
    }
    if (walk !== "stopped") return `${steps}, ρₜ = ${short(now.ratio)}: the gradient is ${signed(now.advantage, 2)}.`;
    if (trail.length === 0) return "The gradient is 0 here: nothing moves ρₜ.";
    return `${steps}, to ρₜ = ${short(now.ratio)}, just past ${now.advantage > 0 ? "1 + ε" : "1 − ε"}. There the ` +
      "gradient is 0: the clip ends the push, it does not pull back.";
  }

  const spokenNumbers = () => {
    const { objective, gradient } = surrogate(now);
    return `objective ${plain(objective, 3)}, gradient ${gradient === 0 ? "0" : plain(gradient, 3)}`;
  };

  function announce() {
    announcer.textContent = `Ratio ${short(now.ratio)}: ${spokenNumbers()}. ${VERDICTS[caseOf(now)]}`;
  }

  function show() {
    const values = surrogate(now);
    const name = caseOf(now);
    figure.dataset.walk = walk;
    for (const { name: of, input, value } of sliders) {
      if (Number(input.value) !== now[of]) input.value = now[of];
      text(value, of === "advantage" && now[of] ? signed(now[of], 2) : short(now[of]));
    }
    attribute(sliders[0].input, "aria-valuetext", `${short(now.ratio)}, ${spokenNumbers()}`);
    const factor = now.advantage < 0 ? `(${plain(now.advantage, 2)})` : plain(now.advantage, 2);
    const workings = {
      unclipped: `unclipped: ${short(now.ratio)} · ${factor}`,
      clipped: `clipped: ${short(values.clippedRatio)} · ${factor}`,
    };
    for (const { name: of, words, working, value } of terms) {
      text(working, workings[of] ?? words);
      text(value, orZero(values[of]));
    }
    for (const verdict of verdicts) verdict.classList.toggle("shown", verdict.dataset.verdict === name);
    verdictBox.dataset.push = values.gradient === 0 ? "none" : "full";
    const sign = now.advantage > 0 ? "good" : "bad";
    press(caseButtons, "case", now.advantage === 0 ? "" : `${sign}-${sideOf(now)}`);
    text(followButton, walk === "running" ? "Pause" : "Follow the gradient");
    text(walkText, walkWords());
    if (walk !== "running") {
      attribute(canvas, "aria-label", `Objective and gradient over the ratio from 0 to 2, with the clip range from ` +
        `${short(1 - now.clip)} to ${short(1 + now.clip)}. At the ratio ${short(now.ratio)}: ${spokenNumbers()}.`);
    }
    paint();
  }

  function paint() {
    if (canvas.clientWidth === 0) return; // not laid out: in a closed tab or a page being built
    drawCurves(canvas, { now, trail }, getComputedStyle(figure));
  }

  // --- keys and pointers
  figure.addEventListener("keydown", (event) => {
    if (/^(Arrow|Home|End|Page)/.test(event.key)) event.stopPropagation(); // else a page may turn
  });
  const moveTo = (event) => {
    const value = ratioAt(event.clientX - stage.getBoundingClientRect().left, stage.clientWidth);
    set({ ratio: Math.round(100 * Math.max(0, Math.min(2, value))) / 100 });
  };
  let from = null; // where a pointer went down
  let dragged = false;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = event.clientX;
    dragged = event.pointerType !== "touch"; // a finger may be about to scroll the page
    if (!dragged) return;
    stage.setPointerCapture(event.pointerId);
    moveTo(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (from === null) return;
    dragged ||= Math.abs(event.clientX - from) > 6;
    if (dragged) moveTo(event);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (from = null));
  stage.addEventListener("mousedown", (event) => event.preventDefault()); // else the focus goes to the figure
  stage.addEventListener("click", (event) => {
    moveTo(event);
    sliders[0].input.focus({ preventScroll: true }); // for the arrow keys
    announce();
  });

  // --- the page around it
  set(Object.fromEntries(names.map((name) => [name, model.get(name)])));
  const followed = names.map((name) => [`change:${name}`, () => set({ [name]: model.get(name) })]);
  for (const [event, listener] of followed) model.on(event, listener);

  el.policyopt = {
    state: () => structuredClone({ ...now, ...surrogate(now), case: caseOf(now), walk, trail }),
    set, choose, step, follow, pause, restart,
  };

  return () => {
    walk = "paused";
    clock.stop();
    unmount();
    for (const [event, listener] of followed) model.off(event, listener);
  };
}

export { ascend, caseOf, example, ratioAt, sideOf, snap, stopsAt, surrogate, xOf };
export default { render };
