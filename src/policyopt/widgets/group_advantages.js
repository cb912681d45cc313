// Group advantages: set the rewards of a group of outputs, and see what GRPO, Dr. GRPO and RLOO make of them.
// Everything above "The figure" touches no page: the tests run it in Node.

import {
  attribute, button, buttonGroup, figureBox, h, isShortcut, known, liveRegion, mount, press, sharpPen, signed, text,
} from "./common.js";

// --- Advantages, as policyopt computes them --------------------------------------------------------------------

const SIZES = [2, 16];
const RANGE = [-0.5, 1.5]; // 0 and 1, and room to move them
const EPSILON = 1e-4; // added to GRPO's divisor
const FORMS = ["grpo", "dr_grpo", "rloo"];

const sumOf = (values) => values.reduce((a, b) => a + b, 0);
const meanOf = (values) => sumOf(values) / values.length;
const lowest = (values) => Math.min(...values);
const highest = (values) => Math.max(...values);

/** With Bessel's correction: the squares are divided by G − 1. */
function deviationOf(rewards) {
  const mean = meanOf(rewards);
  return Math.sqrt(sumOf(rewards.map((reward) => (reward - mean) ** 2)) / (rewards.length - 1));
}

/** The advantage of each reward in its group; exactly 0 where all are equal. */
function advantages(rewards, form) {
  // the mean of equal numbers can be off in the last bit, which the division would blow up
  if (lowest(rewards) === highest(rewards)) return rewards.map(() => 0);
  const mean = meanOf(rewards);
  const size = rewards.length;
  const factor = { grpo: 1 / (deviationOf(rewards) + EPSILON), dr_grpo: 1, rloo: size / (size - 1) }[form];
  return rewards.map((reward) => (reward - mean) * factor);
}

/** The mean of the squared advantages. */
const pushOf = (rewards, form) => meanOf(advantages(rewards, form).map((advantage) => advantage ** 2));

/** Rewards of which the first `right` are 1 and the others 0. */
const rightAndWrong = (right, size) => Array.from({ length: size }, (_, i) => (i < right ? 1 : 0));

/** The push of a group with 0, 1, …, `size` right outputs. */
const pushCurve = (size, form) =>
  Array.from({ length: size + 1 }, (_, right) => pushOf(rightAndWrong(right, size), form));

/** Where the mean stands between the lowest reward (0) and the highest (1): of two kinds, the share of the higher. */
function shareOf(rewards) {
  const [low, high] = [lowest(rewards), highest(rewards)];
  return low === high ? Number(low >= 0.5) : (meanOf(rewards) - low) / (high - low);
}

const tidy = (value) => Number(value.toFixed(12)) + 0; // 0.2 + 0.4 is 0.6, and −0 is 0
const shifted = (rewards, amount) => rewards.map((reward) => tidy(reward + amount));
const scaled = (rewards, factor) => rewards.map((reward) => tidy(reward * factor));
const fits = (rewards) => lowest(rewards) >= RANGE[0] && highest(rewards) <= RANGE[1];

const GRADES = [0.7, 0.2, 0.9, 0.4, 0.55, 0.1, 1, 0.35, 0.6, 0.15, 0.8, 0.5, 0.3, 0.95, 0.25, 0.65];
const PRESETS = {
  two_of_eight: () => [1, 0, 0, 1, 0, 0, 0, 0],
  one_right: (size) => rightAndWrong(1, size),
  one_wrong: (size) => rightAndWrong(size - 1, size),
  equal: (size) => rightAndWrong(size, size),
  graded: (size) => GRADES.slice(0, size),
};

/** How far the bars reach: hardly ever another length in a group of one size, so that its bars can be compared. */
function reachOf(rewards) {
  const least = rewards.length === 2 ? 1 : rewards.length <= 4 ? 1.5 : 2.5;
  const largest = highest(FORMS.flatMap((form) => advantages(rewards, form).map(Math.abs)));
  return [1, 1.5, 2.5, 4].find((reach) => reach >= Math.max(least, largest - 1e-9));
}

/** With no more than three decimals. */
const short = (value) => String(Number(value.toFixed(3)) + 0).replace("-", "−");

/** What the group teaches, in two sentences. */
function describe(rewards, form) {
  const size = rewards.length;
  const [low, high] = [lowest(rewards), highest(rewards)];
  if (low === high) {
    return `All ${size} rewards are equal, so every advantage is exactly 0. Nothing is learned from this group.`;
  }
  const values = advantages(rewards, form);
  const up = signed(highest(values), 2);
  const down = signed(lowest(values), 2);
  const countOf = (value) => rewards.filter((reward) => reward === value).length;
  const [best, worst] = [countOf(high), countOf(low)];
  const each = (count, quality, reward, value) => {
    const outputs = count > 1 ? "outputs" : "output";
    const named = low === 0 && high === 1 ? `${quality} ${outputs}` : `${outputs} with reward ${short(reward)}`;
    return `${count > 1 ? count : "one"} ${named} ${count > 1 ? "get" : "gets"} ${value}${count > 1 ? " each" : ""}`;
  };
  const moved = (count, quality, way) => `${count} ${count > 1 ? "are" : "is"} ${quality} and pushed ${way}`;
  const first = best + worst === size
    ? `The ${each(best, "right", high, up)}, the ${each(worst, "wrong", low, down)}; their sum is 0.`
    : `Of ${size} outputs ${moved(values.filter((value) => value > 1e-12).length, "above the mean", "up")}, ` +
      `${moved(values.filter((value) => value < -1e-12).length, "below it", "down")}; their sum is 0.`;
  const factor = 1 / (deviationOf(rewards) + EPSILON);
  return `${first} ` + {
    grpo: `Dividing by σ made the differences from the mean ${short(Number(factor.toPrecision(3)))} times as large.`,
    dr_grpo: "Each advantage is just the difference from the mean.",
    rloo: `Each is the difference from the mean of the other ${size > 2 ? size - 1 : "one"}.`,
  }[form];
}

// --- The figure -----------------------------------------------------------------------------------------------

const NAMES = { grpo: "GRPO", dr_grpo: "Dr. GRPO", rloo: "RLOO" };
const MARKS = { grpo: "●", dr_grpo: "■", rloo: "▲" };
const PRESET_NAMES = {
  two_of_eight: "2 of 8 right", one_right: "one right", one_wrong: "one wrong", equal: "all equal",
  graded: "graded rewards",
};
const STEP = 0.05;
const SMALLEST = 0.01; // of the largest reward, after halving: then the 0.0001 would begin to count
const CHANGES = [
  { name: "− 0.2", words: "subtract 0.2 from all rewards", amount: -0.2, said: "0.2 was taken from all." },
  { name: "+ 0.2", words: "add 0.2 to all rewards", amount: 0.2, said: "0.2 was added to all." },
  { name: "× ½", words: "halve all rewards", factor: 0.5, said: "All rewards were halved.", too: "halved" },
  { name: "× 2", words: "double all rewards", factor: 2, said: "All rewards were doubled.", too: "doubled" },
];
const changed = (rewards, { amount, factor }) => (factor ? scaled(rewards, factor) : shifted(rewards, amount));

const CSS = `
:host {
  --grpo: #c04f00; --dr_grpo: #0072b2; --rloo: #00805d; --right: #00734f; --wrong: #a63c00; --chosen: #e9eff5;
}
:host([data-theme="dark"]) {
  --grpo: #ff8b47; --dr_grpo: #56b4e9; --rloo: #00c08e; --right: #2fd6a5; --wrong: #ff9d63; --chosen: #242e39;
}
.figure { --ink: var(--grpo); }
.figure[data-form="dr_grpo"] { --ink: var(--dr_grpo); }
.figure[data-form="rloo"] { --ink: var(--rloo); }
.figure [hidden] { display: none; }
.over { text-decoration: overline; }
sub { font-size: .74em; line-height: 0; }
.size { display: flex; align-items: center; gap: .5rem; font-size: .9rem; font-variant-numeric: tabular-nums; }
.size span { min-width: 7.2em; text-align: center; }
.size button { min-width: 40px; font-weight: 650; }
.hint { margin: .5rem 0 .7rem; font-size: .88rem; color: var(--muted); }
.presets { display: flex; flex-wrap: wrap; gap: .4rem; margin-bottom: .9rem; }
.main { display: grid; grid-template-columns: minmax(0, 1.3fr) minmax(0, 1fr); gap: 1rem 1.6rem; }
.forms { display: flex; }
.forms button { flex: 1; }
.forms button[aria-pressed="true"] { --mark: var(--ink); }
.rule {
  display: flex; flex-wrap: wrap; gap: 0 1.1em; margin: .55rem 0 .8rem; font-size: .9rem;
  font-variant-numeric: tabular-nums;
}
.rule > :first-child { flex-basis: 100%; }
.rule > span { white-space: nowrap; }
.row, .head {
  display: grid; grid-template-columns: 3.3rem minmax(0, 1fr) 2.6rem minmax(0, 1fr) 2.9rem; column-gap: .4rem;
  align-items: center; font-size: .86rem;
}
.head { color: var(--muted); font-size: .8rem; line-height: 1.3; }
.head b { color: var(--text); font-weight: 650; white-space: nowrap; }
.head .wide { grid-column: span 2; }
.scale { position: relative; height: 1.35em; font-variant-numeric: tabular-nums; }
.scale span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.scale .first { transform: none; } .scale .last { transform: translateX(-100%); }
.row { height: 38px; }
.row + .row { box-shadow: inset 0 1px 0 var(--line); }
.row.chosen { background: var(--chosen); }
.toggle {
  height: 38px; min-height: 38px; padding: 0 .45rem; display: flex; justify-content: space-between; width: 100%;
  align-items: center; border-radius: 6px; border-color: var(--line); background: var(--paper); font-size: .86rem;
}
.toggle:hover, .toggle:focus-visible { border-color: var(--control); }
.toggle[aria-pressed="true"] { box-shadow: none; background: var(--paper); font-weight: 400; }
.toggle b { font-size: 1.05em; color: var(--wrong); }
.toggle[aria-pressed="true"] b { color: var(--right); }
.track, .advantage { position: relative; height: 100%; overflow: hidden; }
.track::before {
  content: ""; position: absolute; inset: calc(50% - 1px) 6px auto; height: 2px; background: var(--line);
}
.track > span, .advantage > span { position: absolute; }
.track .zero, .advantage .zero { top: 0; bottom: 0; width: 1px; background: var(--line); }
.track .fill { top: 10px; bottom: 10px; background: var(--control); opacity: .7; }
.track .gap { bottom: 4px; height: 4px; background: var(--ink); }
.track .mean { top: 0; bottom: 0; width: 2px; margin-left: -1px; background: var(--text); pointer-events: none; }
.track input {
  position: absolute; inset: 0; height: 100%; appearance: none; background: none; border-radius: 6px;
  cursor: ew-resize;
}
.track input:focus-visible { outline-offset: -3px; }
.track input::-webkit-slider-thumb {
  appearance: none; width: 12px; height: 24px; border-radius: 4px; background: var(--paper);
  border: 2px solid var(--control);
}
.track input::-moz-range-thumb {
  width: 12px; height: 24px; border-radius: 4px; background: var(--paper); border: 2px solid var(--control);
  box-sizing: border-box;
}
.advantage .zero { left: 50%; background: var(--control); }
.advantage .fill { top: 9px; bottom: 9px; background: var(--ink); }
.advantage .fill.down { background: none; box-shadow: inset 0 0 0 2px var(--ink); }
.advantage .fill.down::after { content: ""; position: absolute; inset: 0; background: var(--ink); opacity: .3; }
.row > .number { font-weight: 650; }
.row > .reward { font-weight: 400; text-align: left; }
@media (prefers-reduced-motion: no-preference) { .advantage .fill { transition: left .12s, width .12s; } }
.legend {
  display: flex; flex-wrap: wrap; gap: 0 1.1em; margin: .5rem 0 .9rem; font-size: .8rem; color: var(--muted);
}
.legend i {
  display: inline-block; width: 1.3em; height: 4px; background: var(--ink); vertical-align: .2em; margin: 0 .3em 0 0;
}
.legend span { white-space: nowrap; }
.legend .line { width: 2px; height: 1em; background: var(--text); vertical-align: -.15em; margin: 0 .5em 0 .2em; }
.all { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem; }
.all .label { margin: 0 .3rem 0 0; }
.all button { min-width: 52px; }
.note { margin: .45rem 0 0; font-size: .84rem; color: var(--muted); min-height: 4.4em; }
.verdict {
  margin: 0 0 1rem; padding-left: .7rem; border-left: 4px solid var(--ink); font-size: .9rem; min-height: 8.7em;
}
.panel table { font-variant-numeric: tabular-nums; }
.panel th, .panel td { padding: .16rem 0; white-space: nowrap; }
.panel th i { font-style: normal; display: inline-block; width: 1.3em; }
.panel tr.current > :is(th, td:last-child) { font-weight: 650; }
.panel .example :is(th, td) { font-size: .8rem; }
.panel .example td { font-size: .76rem; }
.panel .example td:last-child { padding-left: .25rem; width: 3.25rem; text-align: left; font-size: .8rem; }
.small { margin: .25rem 0 0; font-size: .8rem; color: var(--muted); }
.panel .stage { margin: 0 0 .3rem; }
.example { margin-bottom: 1.1rem; }
.example .small { min-height: 1.45em; }
@container (max-width: 620px) {
  .main { grid-template-columns: minmax(0, 1fr); }
  .presets button { padding: .35rem .5rem; flex: 1 1 auto; }
  .row, .head { grid-template-columns: 3.1rem minmax(0, 1fr) 2.3rem minmax(0, 1fr) 2.9rem; column-gap: .25rem; }
  .rule > span { flex-basis: 100%; }
  .all .label { flex-basis: 100%; }
  .all button { flex: 1; }
  .verdict { min-height: 7.25em; }
  .note { min-height: 4.4em; }
}
`;

const sub = (content) => h("sub", {}, String(content));
const meanSymbol = () => h("span", { class: "over" }, "R");
const place = (reward) => (reward - RANGE[0]) / (RANGE[1] - RANGE[0]);
const along = (share) => `calc(6px + (100% - 12px) * ${share})`; // a thumb of 12 px stays inside its track

/** The push over the number of right outputs, for the three forms, and the group itself. */
function drawCurves(canvas, { rewards, form }, styles) {
  const [left, right, top, bottom] = [30, 14, 14, 40];
  const height = 190;
  const pen = sharpPen(canvas, height);
  const width = canvas.clientWidth;
  const colour = (name) => styles.getPropertyValue(name).trim();
  const size = rewards.length;
  const x = (share) => left + share * (width - left - right);
  const y = (push) => top + (1 - Math.min(push, 1)) * (height - top - bottom);
  const line = (points, ink, lineWidth = 1, dash = []) => {
    pen.strokeStyle = colour(ink);
    pen.lineWidth = lineWidth;
    pen.setLineDash(dash);
    pen.beginPath();
    points.forEach((point, i) => (i ? pen.lineTo(...point) : pen.moveTo(...point)));
    pen.stroke();
    pen.setLineDash([]);
  };
  const mark = (kind, px, py, r) => {
    pen.fillStyle = colour(`--${kind}`);
    pen.beginPath();
    if (kind === "grpo") pen.arc(px, py, r, 0, 2 * Math.PI);
    else if (kind === "dr_grpo") pen.rect(px - 0.9 * r, py - 0.9 * r, 1.8 * r, 1.8 * r);
    else [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]].forEach(([dx, dy]) => pen.lineTo(px + dx * r, py + dy * r));
    pen.closePath();
    pen.fill();
    if (r < 4) return;
    pen.strokeStyle = colour("--sheet");
    pen.lineWidth = 1.5;
    pen.stroke();
  };

  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = colour("--muted");
  pen.textAlign = "right";
  for (const value of [0, 0.5, 1]) {
    line([[left, y(value)], [width - right, y(value)]], value ? "--line" : "--control");
    pen.fillText(String(value), left - 7, y(value) + 4);
  }
  pen.textAlign = "center";
  const gap = size <= 8 ? 1 : 2;
  for (let k = 0; k <= size; k += gap) {
    line([[x(k / size), y(0)], [x(k / size), y(0) + 4]], "--control");
    pen.fillText(String(k), x(k / size), y(0) + 17);
  }
  pen.fillText(`right outputs, of ${size}`, (left + width - right) / 2, height - 6);

  const dashes = { grpo: [], dr_grpo: [7, 4], rloo: [2, 3] };
  for (const kind of [...FORMS.filter((name) => name !== form), form]) {
    const points = pushCurve(size, kind).map((push, k) => [x(k / size), y(push)]);
    // GRPO falls to 0 only where all are equal: nothing lies between
    line(kind === "grpo" ? points.slice(1, -1) : points, `--${kind}`, kind === form ? 2.5 : 1.5, dashes[kind]);
    for (const point of points) mark(kind, ...point, 2.2);
  }
  const here = x(shareOf(rewards));
  // no mark hides another
  const close = Math.abs(y(pushOf(rewards, "dr_grpo")) - y(pushOf(rewards, "rloo"))) < 6;
  const aside = close && pushOf(rewards, form) > 0 ? 7 : 0;
  const shift = { grpo: 0, dr_grpo: -aside, rloo: aside };
  line([[here, y(0)], [here, top - 8]], "--text", 1, [3, 3]);
  for (const kind of [...FORMS.filter((name) => name !== form), form]) {
    const push = pushOf(rewards, kind);
    mark(kind, here + shift[kind], y(push), kind === form ? 6.5 : 5);
    if (push > 1) { // above the scale
      pen.fillStyle = colour("--text");
      const side = here > width / 2 ? -1 : 1;
      pen.textAlign = side < 0 ? "right" : "left";
      if (kind === form) pen.fillText(`↑ ${push.toFixed(2)}`, here + 18 * side, top + 4);
    }
  }
}

function render({ model, el }) {
  let rewards = [...model.get("rewards")];
  let form = model.get("form");
  let chosen = 0; // the output that is written out
  let note = "";

  // --- elements
  const formButtons = FORMS.map((name) => button(NAMES[name], () => chooseForm(name), { "data-form": name }));
  const fewer = button("−", () => chosenSize(rewards.length - 1), { "aria-label": "one output fewer" });
  const more = button("+", () => chosenSize(rewards.length + 1), { "aria-label": "one output more" });
  const sizeText = h("span", { "data-fact": "size" });
  const presetButtons = Object.entries(PRESET_NAMES).map(([name, words]) => button(words, () => preset(name)));
  const rule = h("p", { class: "rule" });
  const rows = Array.from({ length: SIZES[1] }, (_, i) => {
    const sign = h("b", { "aria-hidden": "true" });
    const toggler = button("", () => toggle(i), { class: "toggle", "aria-label": `output ${i + 1} is right` });
    toggler.replaceChildren(h("span", {}, "o", sub(i + 1)), sign);
    const input = h("input", {
      type: "range", min: RANGE[0], max: RANGE[1], step: "any", "aria-label": `reward of output ${i + 1}`,
      oninput: () => setReward(i, tidy(Math.round(input.value / STEP) * STEP), false),
      onchange: () => announce(),
      onfocus: () => choose(i),
      onkeydown: (event) => keyOnReward(event, i),
    });
    const [zero, fill, gap, mean, bar] =
      ["zero", "fill", "gap", "mean", "fill"].map((name) => h("span", { class: name }));
    zero.style.left = along(place(0));
    const value = h("span", { class: "number reward", "data-reward": i });
    const advantage = h("span", { class: "number", "data-advantage": i });
    const row = h("div", { class: "row", role: "group", "aria-label": `output ${i + 1}` }, toggler,
      h("div", { class: "track" }, zero, fill, gap, mean, input), value,
      h("div", { class: "advantage", "aria-hidden": "true" }, h("span", { class: "zero" }), bar), advantage);
    return { row, sign, toggler, input, fill, gap, mean, value, bar, advantage };
  });
  const rewardScale = h("div", { class: "scale", "aria-hidden": "true" }, ...[0, 1].map((value) => {
    const tick = h("span", {}, short(value));
    tick.style.left = along(place(value));
    return tick;
  }));
  const reachTexts = [["first", "0"], ["", "50%"], ["last", "100%"]].map(([kind, left]) => {
    const tick = h("span", { class: kind });
    tick.style.left = left;
    return tick;
  });
  const changeButtons = CHANGES.map(({ name, words }, i) =>
    button(name, () => changeAll(CHANGES[i]), { "aria-label": words, title: words }));
  const noteText = h("p", { class: "note" });
  const verdict = h("p", { class: "verdict" });
  const exampleLabel = h("p", { class: "label" });
  const exampleNote = h("p", { class: "small" });
  const rowsOf = (...columns) => FORMS.map((name) => {
    const cells = Object.fromEntries(columns.map((column) => [column, h("td", { [`data-${column}`]: name })]));
    const head = h("th", { scope: "row" }, NAMES[name]);
    return { name, cells, head, row: h("tr", {}, head, ...Object.values(cells)) };
  });
  const exampleRows = rowsOf("working", "result");
  const pushRows = rowsOf("push");
  for (const { name, head } of pushRows) {
    head.prepend(h("i", { style: `color: var(--${name})`, "aria-hidden": "true" }, MARKS[name]));
  }
  const canvas = h("canvas", { role: "img" });
  const stage = h("div", { class: "stage" }, canvas);
  const announcer = liveRegion();

  const figure = figureBox("Group advantages",
    h("div", { class: "size" }, fewer, sizeText, more),
    h("p", { class: "hint" },
      "One prompt, G outputs. Tap an output to mark it right (reward 1) or wrong (0), or drag its handle. " +
      "A positive advantage makes it more probable, a negative one less."),
    h("div", { class: "presets", role: "group", "aria-label": "Ready-made groups" }, ...presetButtons),
    h("div", { class: "main" },
      h("div", {},
        buttonGroup("Advantages of", formButtons, "forms"),
        rule,
        h("div", { class: "head" },
          h("span", {}, "output"),
          h("span", { class: "wide" }, h("b", {}, "reward R", sub("i"))),
          h("span", { class: "wide" }, h("b", {}, "advantage Â", sub("i")))),
        h("div", { class: "head" }, h("span"), rewardScale, h("span"),
          h("div", { class: "scale", "aria-hidden": "true" }, ...reachTexts)),
        h("div", {}, ...rows.map(({ row }) => row)),
        h("p", { class: "legend" },
          h("span", {}, h("i", { class: "line" }), "the group's mean ", meanSymbol()),
          h("span", {}, h("i"), "from the mean to the reward"),
          h("span", {}, "✓ right, reward 1"), h("span", {}, "✗ wrong, reward 0")),
        h("div", { class: "all", role: "group", "aria-label": "Change all rewards" },
          h("p", { class: "label" }, "All rewards"), ...changeButtons),
        noteText),
      h("div", { class: "panel" },
        verdict,
        exampleLabel,
        h("div", { class: "example" }, h("table", {}, ...exampleRows.map(({ row }) => row)), exampleNote),
        h("p", { class: "label" }, "Push of the group: mean of Â", sub("i"), "²"),
        stage,
        h("table", {}, ...pushRows.map(({ row }) => row)),
        h("p", { class: "small" },
          "How hard a group pushes on the policy. Curves: rewards 0 and 1. Large marks: this group."))),
    announcer,
  );
  const unmount = mount(el, CSS, figure, paint);

  // --- what happens
  function change(next, said = "") {
    rewards = next;
    note = said;
    chosen = Math.min(chosen, rewards.length - 1);
    show();
  }

  function announce() {
    announcer.textContent = `${note} ${describe(rewards, form)}`.trim();
  }

  function within(i) {
    if (Number.isInteger(i) && i >= 0 && i < rewards.length) return i;
    throw new RangeError(`There is no output ${i}; there are 0 to ${rewards.length - 1}.`);
  }

  function setReward(i, value, spoken = true) {
    if (!(Number.isFinite(value) && fits([value]))) {
      throw new RangeError(`reward is ${value}; it must be a number in [${RANGE}]`);
    }
    chosen = within(i);
    change(rewards.map((reward, k) => (k === i ? value : reward)));
    if (spoken) announce();
  }

  function toggle(i) {
    setReward(i, rewards[within(i)] === 1 ? 0 : 1);
  }

  function choose(i) {
    chosen = i;
    show();
  }

  function set(values) {
    const [least, most] = SIZES;
    const right = values.length >= least && values.length <= most && values.every(Number.isFinite) && fits(values);
    if (!right) throw new RangeError(`rewards are ${values}; they must be ${least} to ${most} numbers in [${RANGE}]`);
    change([...values]);
    announce();
  }

  function setSize(size) {
    const [least, most] = SIZES;
    if (!(Number.isInteger(size) && size >= least && size <= most)) {
      throw new RangeError(`size is ${size}; it must be an integer from ${least} to ${most}`);
    }
    change(Array.from({ length: size }, (_, i) => rewards[i] ?? 0));
    announce();
  }

  function chosenSize(size) {
    if (size >= SIZES[0] && size <= SIZES[1]) setSize(size);
  }

  function preset(name) {
    chosen = 0;
    change(PRESETS[known("preset", name, Object.keys(PRESETS))](rewards.length));
    announce();
  }

  function chooseForm(name) {
    form = known("form", name, FORMS);
    show();
    announce();
  }

  const allowed = (one) => fits(changed(rewards, one)) &&
    !(one.factor && highest(rewards.map(Math.abs)) * one.factor < SMALLEST);

  function changeAll(one) {
    if (!allowed(one)) return;
    const effect = lowest(rewards) === highest(rewards) ? "They are still equal, and every advantage is still 0." :
      one.factor ? `So was σ, and GRPO's advantages stay. Those of Dr. GRPO and RLOO were ${one.too} too.` :
        "The mean went along, and no advantage changed.";
    change(changed(rewards, one), `${one.said} ${effect}`);
    announce();
  }

  const shift = (amount) => set(shifted(rewards, amount));
  const scale = (factor) => set(scaled(rewards, factor));

  // --- showing it
  function show() {
    const size = rewards.length;
    const mean = meanOf(rewards);
    const deviation = deviationOf(rewards);
    const equal = lowest(rewards) === highest(rewards);
    const values = advantages(rewards, form);
    const reach = reachOf(rewards);
    figure.dataset.form = form;
    press(formButtons, "form", form);
    text(sizeText, `G = ${size} outputs`);
    fewer.setAttribute("aria-disabled", size === SIZES[0]);
    more.setAttribute("aria-disabled", size === SIZES[1]);
    showRule(mean, deviation);
    [signed(-reach, 1), "0", signed(reach, 1)].forEach((words, i) => text(reachTexts[i], words));

    rows.forEach((parts, i) => {
      parts.row.hidden = i >= size;
      if (i >= size) return;
      const reward = rewards[i];
      parts.row.classList.toggle("chosen", i === chosen);
      attribute(parts.toggler, "aria-pressed", reward === 1);
      text(parts.sign, reward === 1 ? "✓" : reward === 0 ? "✗" : "");
      if (Number(parts.input.value) !== reward) parts.input.value = reward;
      attribute(parts.input, "aria-valuetext", `${short(reward)}, advantage ${signed(values[i], 2)}`);
      stretch(parts.fill, 0, reward);
      stretch(parts.gap, mean, equal ? mean : reward);
      parts.mean.style.left = along(place(mean));
      text(parts.value, short(reward));
      parts.bar.style.left = `${50 + 50 * Math.min(values[i] / reach, 0)}%`;
      parts.bar.style.width = `${50 * Math.abs(values[i] / reach)}%`;
      parts.bar.classList.toggle("down", values[i] < 0);
      text(parts.advantage, values[i] === 0 ? "0" : signed(values[i], 2));
    });

    CHANGES.forEach((one, i) => changeButtons[i].setAttribute("aria-disabled", !allowed(one)));
    text(noteText, note || "Guess first: which advantages will change?");
    text(verdict, describe(rewards, form));
    showExample(mean, deviation, equal);
    for (const { name, cells, row } of pushRows) {
      row.classList.toggle("current", name === form);
      text(cells.push, pushOf(rewards, name).toFixed(3));
    }
    attribute(canvas, "aria-label", `Mean of the squared advantages over the number of right outputs. GRPO's is ` +
      `${short(pushCurve(size, "grpo")[1])} from 1 to ${size - 1} right, Dr. GRPO's and RLOO's fall towards ` +
      `both ends; all are 0 where all outputs are equal. This group: ` +
      `${FORMS.map((name) => `${NAMES[name]} ${pushOf(rewards, name).toFixed(3)}`).join(", ")}.`);
    paint();
  }

  function stretch(span, from, to) {
    const [low, high] = [Math.min(from, to), Math.max(from, to)].map(place);
    span.style.left = along(low);
    span.style.width = `calc((100% - 12px) * ${high - low})`;
  }

  function showRule(mean, deviation) {
    const line = (...parts) => h("span", {}, ...parts);
    const formula = {
      grpo: ["(R", sub("i"), " − ", meanSymbol(), ") / (σ", sub("R"), " + 0.0001)"],
      dr_grpo: ["R", sub("i"), " − ", meanSymbol()],
      rloo: ["R", sub("i"), " − mean of the other rewards"],
    }[form];
    rule.replaceChildren(
      line(h("b", {}, "Â", sub("i"), " = ", ...formula)),
      line("mean ", meanSymbol(), ` = ${short(mean)}`),
      line("standard deviation σ", sub("R"), ` = ${short(deviation)}`));
  }

  function showExample(mean, deviation, equal) {
    const reward = rewards[chosen];
    const others = equal ? mean : (mean * rewards.length - reward) / (rewards.length - 1);
    const divisor = deviation + EPSILON;
    const minus = (value) => (Number(value.toFixed(3)) < 0 ? `(${short(value)})` : short(value));
    const working = {
      grpo: `(${short(reward)} − ${minus(mean)}) / ${divisor < 0.01 ? divisor.toFixed(4) : divisor.toFixed(3)}`,
      dr_grpo: `${short(reward)} − ${minus(mean)}`,
      rloo: `${short(reward)} − ${minus(others)}`,
    };
    exampleLabel.replaceChildren("Output o", sub(chosen + 1), " in all three");
    for (const { name, cells, row } of exampleRows) {
      row.classList.toggle("current", name === form);
      const value = advantages(rewards, name)[chosen];
      text(cells.working, working[name]);
      text(cells.result, `= ${value === 0 ? "0" : signed(value, 2)}`);
    }
    text(exampleNote, `Mean of the other ${rewards.length > 2 ? rewards.length - 1 : "one"}: ${short(others)}`);
  }

  function paint() {
    if (canvas.clientWidth === 0) return; // not laid out: in a closed tab or a page being built
    drawCurves(canvas, { rewards, form }, getComputedStyle(figure));
  }

  // --- keys
  figure.addEventListener("keydown", (event) => {
    if (/^(Arrow|Home|End|Page)/.test(event.key)) event.stopPropagation(); // else a page may turn
  });
  function keyOnReward(event, i) {
    if (isShortcut(event)) return;
    const by = (count) => Math.max(RANGE[0], Math.min(RANGE[1], tidy(rewards[i] + count * STEP)));
    const value = {
      ArrowLeft: by(-1), ArrowDown: by(-1), ArrowRight: by(1), ArrowUp: by(1), PageDown: by(-5), PageUp: by(5),
      Home: RANGE[0], End: RANGE[1], 0: 0, 1: 1,
    }[event.key];
    if (value === undefined) return;
    event.preventDefault();
    setReward(i, value, false); // the slider's own value says it
  }

  // --- the page around it
  const followed = { rewards: () => set(model.get("rewards")), form: () => chooseForm(model.get("form")) };
  for (const [name, follow] of Object.entries(followed)) model.on(`change:${name}`, follow);

  el.policyopt = {
    state: () => structuredClone({
      rewards, form, chosen, mean: meanOf(rewards), deviation: deviationOf(rewards), share: shareOf(rewards),
      advantages: Object.fromEntries(FORMS.map((name) => [name, advantages(rewards, name)])),
      push: Object.fromEntries(FORMS.map((name) => [name, pushOf(rewards, name)])),
      sentence: describe(rewards, form),
    }),
    set, reward: setReward, toggle, size: setSize, preset, form: chooseForm, shift, scale,
  };
  show();

  return () => {
    unmount();
    for (const [name, follow] of Object.entries(followed)) model.off(`change:${name}`, follow);
  };
}

export {
  advantages, describe, deviationOf, fits, GRADES, pushCurve, pushOf, reachOf, scaled, shareOf, shifted, short,
};
export default { render };
