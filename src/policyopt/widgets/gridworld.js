// GridWorld: a world to paint, its values computed in sweeps or learnt step by step. Runs as an anywidget, and
// inline on a published page with no kernel (policyopt.widgets.sphinx). Everything above "The figure" touches no
// page: the tests run it in Node.

import {
  attribute, button, buttonGroup, choose, figureBox, h, isShortcut, known, liveRegion, mount, plain, press,
  randomStream, signed, text, ticker,
} from "./common.js";

// --- The world, as policyopt.envs.GridWorld has it --------------------------------------------------------------

const MOVES = [[-1, 0], [0, 1], [1, 0], [0, -1]]; // up, right, down, left
const END_REWARDS = { G: 1, X: -1 };
const MAX_STEPS = 100; // an episode is cut off after so many

const isFree = (kind) => kind === "." || kind === "S";

/** All that can happen: outcomes[s][a] lists {probability, direction, next, reward}; from an end or a wall, none. */
function gridModel(layout, slip, stepReward) {
  const [rows, columns] = [layout.length, layout[0].length];
  const cells = layout.join("");
  const neighbour = (state, direction) => {
    const row = Math.floor(state / columns) + MOVES[direction][0];
    const column = (state % columns) + MOVES[direction][1];
    const inside = row >= 0 && row < rows && column >= 0 && column < columns;
    const next = row * columns + column;
    return inside && cells[next] !== "#" ? next : state;
  };
  const outcomesOf = (state, action) =>
    [[action, 1 - slip], [(action + 1) % 4, slip / 2], [(action + 3) % 4, slip / 2]].map(
      ([direction, probability]) => {
        const next = neighbour(state, direction);
        return { probability, direction, next, reward: END_REWARDS[cells[next]] ?? stepReward };
      });
  const outcomes = [...cells].map((kind, state) =>
    MOVES.map((_, action) => (isFree(kind) ? outcomesOf(state, action) : [])));
  return { rows, columns, cells, outcomes };
}

/** The free cells an agent can come to from the starts, or, where there is none, all free cells. */
function reachable({ cells, outcomes }) {
  const free = [...Array(cells.length).keys()].filter((state) => isFree(cells[state]));
  const open = free.filter((state) => cells[state] === "S");
  if (open.length === 0) return free;
  const found = new Set(open);
  while (open.length > 0) {
    for (const { next } of outcomes[open.pop()].flat()) {
      if (!found.has(next) && isFree(cells[next])) {
        found.add(next);
        open.push(next);
      }
    }
  }
  return [...found].sort((a, b) => a - b);
}

// --- Values, as policyopt.tabular and policyopt.algorithms.q_learning compute them ------------------------------

const largest = (numbers) => numbers.reduce((a, b) => Math.max(a, b), -Infinity);

/** r(s, a) and the expected V(s′) of one action. */
function expectation(outcomes, values) {
  let [reward, next] = [0, 0];
  for (const outcome of outcomes) {
    reward += outcome.probability * outcome.reward;
    next += outcome.probability * values[outcome.next];
  }
  return { reward, next };
}

/** Q(s, a) = r(s, a) + γ E[V(s′)], for all states and actions. */
const actionValues = ({ outcomes }, values, gamma) =>
  outcomes.map((actions) => actions.map((outcome) => {
    const { reward, next } = expectation(outcome, values);
    return reward + gamma * next;
  }));

/** One sweep of value iteration, every cell from the old values: V(s) ← max_a Q(s, a). */
const sweepOnce = (model, values, gamma) => actionValues(model, values, gamma).map(largest);

const difference = (a, b) => largest(a.map((value, i) => Math.abs(value - b[i])));

/** V* and Q*, or null where the values do not settle. */
function valueIteration(model, gamma, tolerance = 1e-10, maxSweeps = 10_000) {
  let values = Array(model.cells.length).fill(0);
  for (let sweep = 0; sweep < maxSweeps; sweep++) {
    const q = actionValues(model, values, gamma);
    const before = values;
    values = q.map(largest);
    if (difference(values, before) <= tolerance) return { values, q };
  }
  return null;
}

/** The actions of highest value; numbers a rounding error apart count as equal. */
function greedyActions(row) {
  const best = largest(row);
  return [0, 1, 2, 3].filter((action) => row[action] >= best - 1e-9 * Math.max(1, Math.abs(best)));
}

const tdTarget = (reward, nextValues, terminated, gamma) =>
  terminated ? reward : reward + gamma * largest(nextValues);

/** Moves Q(s, a) in the table towards the target by the share α; the TD error is returned. */
function qUpdate(table, state, action, target, alpha) {
  const error = target - table[state][action];
  table[state][action] += alpha * error;
  return error;
}

/** One ε-greedy step and its update of the table; of equally good actions one at random. */
function learnStep(model, table, state, { gamma, alpha, epsilon }, uniform) {
  const pick = (list) => list[Math.floor(uniform() * list.length)];
  const exploring = uniform() < epsilon;
  const action = pick(exploring ? [0, 1, 2, 3] : greedyActions(table[state]));
  const outcomes = model.outcomes[state][action];
  const { next, reward, direction } = outcomes[choose(outcomes.map(({ probability }) => probability), uniform)];
  const terminated = !isFree(model.cells[next]);
  const before = table[state][action];
  const nextValue = largest(table[next]); // before the update, which may be of the same row
  const target = tdTarget(reward, table[next], terminated, gamma);
  const error = qUpdate(table, state, action, target, alpha);
  return {
    state, action, direction, exploring, reward, next, terminated, before, nextValue, target, error,
    after: table[state][action], gamma, alpha,
  };
}

// --- The figure -----------------------------------------------------------------------------------------------

const METHODS = { "value iteration": "Value iteration", "Q-learning": "Q-learning" };
const NOTES = {
  "value iteration":
    "V(s) is the return to expect from cell s on. A sweep computes every V(s) anew from its neighbours.",
  "Q-learning": "The agent (the dot) does not know the world. After each step it corrects one number, Q(s, a).",
};
const FIRST = {
  "value iteration": "Press “One sweep” a few times, or Play.",
  "Q-learning": "Press “One step” a few times, then Play.",
};
const preset = (layout, gamma, slip, stepReward) => ({ layout, gamma, slip, step_reward: stepReward });
const WORLDS = {
  "Open room": preset([".....G", ".....X", "......", "......", "S....."], 0.9, 0, 0),
  Cliff: preset(["......", "......", "......", "......", "SXXXXG"], 0.95, 0, -0.05), // Sutton & Barto, example 6.6
  "Two rooms": preset(["...#..", "...#.G", "......", "...#..", "S..#.."], 0.9, 0, 0),
  "Windy shortcut": preset(["......", ".####.", ".XXXX.", "S....G", ".XXXX."], 0.95, 0.2, 0),
};
const BRUSHES = {
  look: { kind: null, name: "Look" },
  floor: { kind: ".", name: "Floor" },
  wall: { kind: "#", name: "Wall" },
  goal: { kind: "G", name: "Goal" },
  pit: { kind: "X", name: "Pit" },
  start: { kind: "S", name: "Start" },
};
const KINDS = { ".": "floor", "#": "wall", G: "goal", X: "pit", S: "start" };
const ENDS = { G: "+1", X: "−1", "#": "" };
const SLIDERS = {
  gamma: { words: "γ discount", about: "how much a reward one step later counts", min: 0, max: 1 },
  slip: { words: "slip", about: "the probability of going to one of the two sides instead", min: 0, max: 0.6 },
  step_reward: { words: "step reward", about: "for each step that enters neither goal nor pit", min: -0.2, max: 0.1 },
  alpha: { words: "α learning rate", about: "the share of the TD error that is added", min: 0.01, max: 1 },
  epsilon: { words: "ε exploration", about: "the probability of a random action", min: 0, max: 1 },
};
const SPEEDS = [
  { factor: 1, label: "1×", name: "slow" },
  { factor: 8, label: "8×", name: "eight times as fast" },
  { factor: 100, label: "100×", name: "a hundred times as fast" },
];
const RATES = { "value iteration": 2, "Q-learning": 3 }; // sweeps, steps a second at 1×
const SETTLED = 1e-6;
const MAX_SWEEPS = 10_000; // then Play stops
const ACTIONS = ["↑ up", "→ right", "↓ down", "← left"];
const nameOf = (action) => ACTIONS[action].slice(2);

const CSS = `
:host { --plus: #0072b2; --minus: #d55e00; --goal: #0072b2; --pit: #b34d00; --on: #fff; --wall: #5b6570; }
:host([data-theme="dark"]) {
  --plus: #3d9fdc; --minus: #f07a32; --goal: #56b4e9; --pit: #ff8b47; --on: #14181e; --wall: #76818e;
}
.note { margin: .4rem 0 .7rem; color: var(--muted); font-size: .88rem; min-height: 1.45em; }
.main { display: grid; grid-template-columns: minmax(0, 1.64fr) minmax(0, 1fr); gap: .8rem 1.3rem; }
.tools { display: flex; gap: .5rem .8rem; align-items: center; justify-content: space-between; }
.tools label { display: flex; gap: .5rem; align-items: center; min-width: 0; font-size: .9rem; }
select { padding: .2rem .4rem; width: 100%; min-width: 0; max-width: 13.5rem; }
.field { position: relative; margin: .7rem auto .4rem; width: 100%; max-width: calc(var(--columns) * 76px); }
.board {
  display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); border-radius: 6px;
  box-shadow: 0 0 0 1px var(--control); user-select: none; -webkit-user-select: none;
  touch-action: pan-y pinch-zoom; overflow: hidden;
}
.row { display: contents; }
.figure:not([data-brush="look"]) .board { touch-action: none; cursor: crosshair; }
.cell {
  position: relative; aspect-ratio: 1; background: var(--paper); box-shadow: inset 0 0 0 .5px var(--line);
  outline: none; font-size: 15px; line-height: 1; font-variant-numeric: tabular-nums; overflow: hidden;
}
.cell svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.cell span { position: absolute; text-align: center; white-space: nowrap; }
.cell .value { left: 0; right: 0; bottom: 13%; }
.cell .mark { left: .3em; top: .25em; font-size: 12px; font-weight: 650; }
.fill { fill: none; }
.fill[data-sign="+"] { fill: var(--plus); }
.fill[data-sign="−"] { fill: var(--minus); }
.cell .arrow { fill: none; stroke: var(--text); stroke-width: 5.5; stroke-linecap: round; stroke-linejoin: round; }
.cell .edges { fill: none; stroke: var(--line); stroke-width: 1.2; }
.cell .best { fill: none; stroke: var(--text); stroke-width: 6; }
.cell .q { font-size: 12px; letter-spacing: -.03em; }
.cell .q.greedy { font-weight: 700; }
.q0 { left: 0; right: 0; top: 9%; } .q2 { left: 0; right: 0; bottom: 9%; }
.q1 { right: 8%; top: calc(50% - 6px); } .q3 { left: 8%; top: calc(50% - 6px); }
.figure[data-view="V"] :is(.q, .triangles), .figure[data-view="Q"] :is(.value, .square, .arrow) { display: none; }
.cell:not([data-free="true"]) :is(.q, .triangles, .square, .arrow) { display: none; }
.cell:not([data-free="true"]) .value { display: block; }
.cell[data-kind="#"] {
  --dark: color-mix(in srgb, var(--wall) 82%, black);
  background: repeating-linear-gradient(135deg, var(--wall) 0 6px, var(--dark) 6px 12px);
}
.cell[data-kind="G"] { background: var(--goal); color: var(--on); }
.cell[data-kind="X"] { background: var(--pit); color: var(--on); }
.cell:is([data-kind="G"], [data-kind="X"]) .value { top: 22%; bottom: auto; font-weight: 700; font-size: 1.15em; }
.cell:is([data-kind="G"], [data-kind="X"]) .mark {
  left: 0; right: 0; top: auto; bottom: 16%; color: inherit; font-weight: 400;
}
.cell[data-looked="true"]::after {
  content: ""; position: absolute; inset: 1px; border: 2px solid var(--text); border-radius: 3px; opacity: .75;
}
.board .cell:focus-visible { outline: none; } /* the board would cut it off: the ring is inside */
.cell:focus-visible::after {
  content: ""; position: absolute; inset: 0; border: 4px solid var(--text); border-radius: 3px; opacity: 1;
  box-shadow: inset 0 0 0 2px var(--paper);
}
.board[data-size="medium"] .cell { font-size: 13px; }
.board[data-size="small"] .cell { font-size: 12px; }
.board[data-size="small"] .cell .value { bottom: 8%; }
.agent {
  position: absolute; left: 0; top: 0; width: calc(100% / var(--columns)); height: calc(100% / var(--rows));
  pointer-events: none;
}
.agent::after {
  content: ""; position: absolute; left: 50%; top: 35%; width: 30%; aspect-ratio: 1; border-radius: 50%;
  transform: translate(-50%, -50%); background: var(--orange); border: 2px solid #14181e;
  box-shadow: 0 0 0 1.5px #fff;
}
.figure[data-view="Q"] .agent::after { top: 50%; }
.figure .agent.home::after { left: 84%; top: 18%; width: 22%; } /* beside the words of a goal or pit */
.agent.smooth { transition: transform .16s ease-out; }
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1rem; justify-content: space-between; margin: .35rem 0 .7rem;
  color: var(--muted); font-size: .8rem; font-variant-numeric: tabular-nums;
}
.legend i {
  display: inline-block; width: 5.5rem; height: .75em; margin: 0 .4em; border: 1px solid var(--line);
  border-radius: 3px;
  background: linear-gradient(90deg, color-mix(in srgb, var(--minus) 58%, var(--paper)), var(--paper) 50%,
    color-mix(in srgb, var(--plus) 58%, var(--paper)));
}
.brushes { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); width: 100%; }
.brushes button { padding: .3rem 0; font-size: .82rem; }
.brushes button::before {
  content: attr(data-sign); display: block; width: 1.5rem; height: 1.15rem; margin: 0 auto .15rem; border-radius: 3px;
  border: 1px solid var(--control); font-size: 12px; line-height: 1.05rem; font-weight: 700;
}
.brushes [data-brush="look"]::before { border-color: transparent; font-size: 16px; }
.brushes [data-brush="wall"]::before { background: var(--wall); }
.brushes [data-brush="goal"]::before { background: var(--goal); color: var(--on); border-color: transparent; }
.brushes [data-brush="pit"]::before { background: var(--pit); color: var(--on); border-color: transparent; }
.hint { margin: .35rem 0 0; color: var(--muted); font-size: .8rem; min-height: 2.7em; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem .4rem; }
.controls button { flex: 1 1 auto; padding: .35rem .4rem; }
.controls .group { flex: 2 1 auto; }
.play { min-width: 3.9rem; }
.figure[data-method="value iteration"] .learning, .figure[data-method="Q-learning"] .planning { display: none; }
.facts { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: .4rem; margin: .7rem 0 .3rem; }
.facts dt { color: var(--muted); font-size: .8rem; white-space: nowrap; }
.facts dd { margin: 0; font-size: 1.02rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.message { margin: .3rem 0 .5rem; font-size: .84rem; line-height: 1.35; min-height: 2.7em; }
.chart { display: block; width: 100%; height: 44px; border-bottom: 1px solid var(--control); }
.chart polyline { fill: none; stroke: var(--blue); stroke-width: 2; vector-effect: non-scaling-stroke; }
.chart polyline + polyline { stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 4 2; }
.key { margin: .2rem 0; font-size: .8rem; color: var(--muted); font-variant-numeric: tabular-nums; }
.progress { margin-top: .5rem; }
.last { margin: .5rem 0 .8rem; font-size: .84rem; font-variant-numeric: tabular-nums; }
.last > p { margin: 0 0 .25rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.last .formula { color: var(--muted); font-size: .8rem; margin: .25rem 0 0; }
.inspect th, .inspect td { padding: .12rem 0; white-space: nowrap; }
.inspect thead :is(th, td) { color: var(--muted); font-size: .8rem; border-bottom: 1px solid var(--line); }
.inspect tr.greedy > * { font-weight: 700; }
.rule { margin: .3rem 0 0; color: var(--muted); font-size: .8rem; min-height: 2.7em; }
.sliders {
  display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: .3rem .9rem; margin-top: .7rem;
}
.sliders label { font-size: .8rem; }
.sliders label > span { display: flex; justify-content: space-between; white-space: nowrap; }
.sliders .set { font-variant-numeric: tabular-nums; }
@container (max-width: 560px) {
  .main { display: flex; flex-direction: column; }
  .main, .main > div { gap: 0; }
  .main > div { display: contents; }
  .progress { order: 1; }
  :is(.last, .inspect, .inspect-title, .rule) { order: 2; }
  .controls { margin-top: .5rem; }
  .methods { display: flex; width: 100%; }
  .methods button { flex: 1 1 0; }
  .world-word { display: none; }
  .legend { font-size: .76rem; gap: .2rem .4rem; }
  .legend i { width: 3.6rem; }
  .sliders { grid-auto-flow: row; gap: 0; }
  .sliders label { position: relative; display: flex; gap: .6rem; align-items: center; font-size: .84rem; }
  .sliders label > span { flex: 0 0 7.2rem; min-width: 0; }
  .sliders .set { position: absolute; right: 0; width: 3rem; text-align: right; }
  .sliders input { margin-right: 3.2rem; }
}
`;

/** A number in at most five characters, with a true minus. */
function short(value) {
  const size = Math.abs(value);
  if (size < 1e-12) return "0";
  const text = size.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
}

/** The same without the zero before the point, and below −1 with one digit after it. */
const shorter = (value) =>
  short(value <= -0.995 ? Number(value.toFixed(1)) : value)
    .replace(/^(−?)0\./, "$1.")
    .replace(/^(−\d\.\d)0$/, "$1");

const inParentheses = (text) => (text.startsWith("−") ? `(${text})` : text);

/** The arrow of a set of greedy actions as an SVG path around (0, -16); none where all are equally good. */
function arrowPath(actions) {
  if (actions.length === 4) return "M0 -16h.01";
  const [reach, head] = actions.length === 1 ? [17, 9] : [21, 7];
  return actions.map((action) => {
    const [dy, dx] = MOVES[action];
    const at = (along, across) => `${dx * along - dy * across} ${dy * along + dx * across - 16}`;
    const tail = actions.length === 1 ? -17 : 0;
    return `M${at(tail, 0)}L${at(reach, 0)}M${at(reach - head, -head)}L${at(reach, 0)}L${at(reach - head, head)}`;
  }).join("");
}

const TRIANGLES = ["-50,-50 50,-50 0,0", "50,-50 50,50 0,0", "50,50 -50,50 0,0", "-50,50 -50,-50 0,0"];
const EDGES = ["M-30 -46h60", "M46 -30v60", "M-30 46h60", "M-46 -30v60"]; // the mark of a best action

function render({ model, el }) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  let method = "value iteration";
  let phase = "paused"; // paused | running
  let view = "V";
  let brush = "look";
  let speed = 1;
  let worldName = null; // null once painted
  let settings = { gamma: 0.9, slip: 0, step_reward: 0, alpha: 0.5, epsilon: 0.5 };
  let cells = [];
  let columns = 1;
  let world = null; // the gridModel of it all
  let inReach = []; // the cells that the agent can come to
  let optimum; // V* and Q*; undefined until asked for
  let looked = 0; // the cell of the table beside the grid, and of the keyboard
  let says = "";
  let planning = null; // value iteration's numbers
  let learning = null; // Q-learning's

  // --- elements
  const { namespaceURI } = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg");
  const svg = (tag, properties = {}, ...children) => {
    const element = document.createElementNS(namespaceURI, tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const methodButtons = Object.entries(METHODS).map(([key, label]) =>
    button(label, () => chooseMethod(key), { "data-method": key }));
  const viewButtons = [["V", "V(s)", "the value of each cell"], ["Q", "Q(s, a)", "its four action values"]]
    .map(([key, label, title]) => button(label, () => setView(key), { "data-view": key, title }));
  const worldSelect = h("select", {
    "aria-label": "World", onchange: () => worldSelect.value && loadWorld(worldSelect.value) });
  const board = h("div", { class: "board", role: "grid" });
  const agent = h("div", { class: "agent learning", "aria-hidden": "true" });
  const field = h("div", { class: "field" }, board, agent);
  const signs = { look: "◎", floor: "", wall: "", goal: "+1", pit: "−1", start: "S" };
  const brushButtons = Object.entries(BRUSHES).map(([key, { name }]) =>
    button(name, () => setBrush(key), { "data-brush": key, "data-sign": signs[key], "aria-label": name }));
  const hint = h("p", { class: "hint" });
  const scaleEnds = [h("span"), h("span")];
  const legendWords = h("span");
  const playButton = button("Play", togglePlay, { class: "play" });
  const speedButtons = SPEEDS.map(({ factor, label, name }) =>
    button(label, () => setSpeed(factor), { "data-speed": factor, "aria-label": `${label}, ${name}` }));
  const facts = {};
  const factList = (name, ...names) => h("dl", { class: `facts ${name}` }, ...names.map((key) =>
    h("div", {}, h("dt", {}, key), (facts[key] = h("dd", { "data-fact": key })))));
  const message = h("p", { class: "message" });
  const distances = h("p", { class: "key" });
  const curves = [svg("polyline"), svg("polyline")]; // the largest distance, the mean
  const chart = svg("svg",
    { class: "chart", viewBox: "0 0 100 44", preserveAspectRatio: "none", role: "img" }, ...curves);
  const lastLines = Object.fromEntries(["what", "target", "error", "new"].map((key) => [
    key, { formula: h("p", { class: "formula" }), numbers: h("p", { "data-last": key }) },
  ]));
  const inspectTitle = h("p", { class: "label inspect-title" });
  const inspectHead = [0, 1, 2].map(() => h("th", { scope: "col", class: "number" }));
  const inspectRows = ACTIONS.map((name) => {
    const numbers = [0, 1, 2].map(() => h("td"));
    return { row: h("tr", {}, h("th", { scope: "row" }, name), ...numbers), numbers };
  });
  const rule = h("p", { class: "rule" });
  const sliders = Object.fromEntries(Object.entries(SLIDERS).map(([name, { words, about, min, max }]) => {
    const input = h("input", { type: "range", min, max, step: 0.01, oninput: () => set(name, Number(input.value)) });
    const output = h("span", { class: "set" });
    const learns = name === "alpha" || name === "epsilon" ? { class: "learning" } : {};
    const label = h("label", { title: about, ...learns }, h("span", {}, words, output), input);
    return [name, { input, output, label }];
  }));
  const note = h("p", { class: "note" });
  const announcer = liveRegion();

  const figure = figureBox("GridWorld", buttonGroup("Method", methodButtons, "methods"),
    note,
    h("div", { class: "main" },
      h("div", {},
        h("div", { class: "tools" },
          h("label", {}, h("span", { class: "world-word" }, "World"), worldSelect),
          buttonGroup("Show", viewButtons)),
        field,
        h("div", { class: "legend" },
          h("span", {}, scaleEnds[0], h("i", { "aria-hidden": "true" }), scaleEnds[1]),
          legendWords),
        buttonGroup("Brush", brushButtons, "brushes"),
        hint,
        h("div", { class: "learning progress" },
          h("p", { class: "label" }, "Distance to the optimal values, |V − V*|"), chart, distances)),
      h("div", {},
        h("div", { class: "controls" },
          button("One sweep", () => sweepByHand(), { class: "planning" }),
          button("One step", () => stepByHand(), { class: "learning" }),
          button("One episode", () => episodeByHand(), { class: "learning" }),
          playButton,
          button("Reset", () => reset(), { title: "all values 0 again" }),
          buttonGroup("Speed", speedButtons)),
        factList("planning", "sweep", "largest change"),
        factList("learning", "episode", "step", "return", "all steps"),
        message,
        h("div", { class: "last learning" },
          ...Object.values(lastLines).flatMap(({ formula, numbers }) => [formula, numbers])),
        inspectTitle,
        h("table", { class: "inspect" },
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "action a"), ...inspectHead)),
          h("tbody", {}, ...inspectRows.map(({ row }) => row))),
        rule)),
    h("div", { class: "sliders" }, ...Object.values(sliders).map(({ label }) => label)),
    announcer,
  );
  const unmount = mount(el, CSS, figure, resize, [board]);

  // --- the world
  const layout = () => Array.from({ length: cells.length / columns }, (_, row) =>
    cells.slice(row * columns, (row + 1) * columns).join(""));
  const freeCells = () => [...cells.keys()].filter((state) => isFree(cells[state]));
  const placeOf = (state) => `row ${Math.floor(state / columns) + 1}, column ${(state % columns) + 1}`;
  const optimal = () => (optimum === undefined ? (optimum = valueIteration(world, settings.gamma)) : optimum);

  /** Takes over changed cells or settings; the values stay, as the start of what comes, wherever a cell is free. */
  function changed() {
    world = gridModel(layout(), settings.slip, settings.step_reward);
    inReach = reachable(world);
    optimum = undefined;
    cells.forEach((kind, state) => {
      if (isFree(kind)) return;
      planning.values[state] = 0;
      learning.table[state] = [0, 0, 0, 0];
    });
    const { state, steps, ended } = learning;
    if (state === null || (!ended && !isFree(cells[state])) || (steps === 0 && cells[state] !== "S")) place();
    show();
  }

  function newWorld(rows, values) {
    phase = "paused";
    columns = rows[0].length;
    cells = [...rows.join("")];
    settings = { ...settings, ...values };
    looked = Math.max(0, cells.indexOf("S"));
    makePlanning();
    makeLearning();
    says = "";
    build();
    changed();
  }

  const makePlanning = () => {
    planning = { values: Array(cells.length).fill(0), sweep: 0, change: null };
  };
  const makeLearning = () => {
    learning = {
      table: cells.map(() => [0, 0, 0, 0]), uniform: randomStream(model.get("seed")), state: null, episode: 1,
      steps: 0, all: 0, return: 0, ended: false, last: null, trace: [], stride: 1,
    };
  };

  /** Puts the agent on a start, or on any free cell where there is none. */
  function place() {
    const starts = freeCells().filter((state) => cells[state] === "S");
    const places = starts.length > 0 ? starts : freeCells();
    learning.state = places.length > 0 ? places[Math.floor(learning.uniform() * places.length)] : null;
    Object.assign(learning, { steps: 0, return: 0, ended: false });
  }

  function loadWorld(name) {
    worldName = known("world", name, Object.keys(worlds()));
    newWorld(...parted(worlds()[name]));
  }

  const given = () => preset(...["world", "gamma", "slip", "step_reward"].map((name) => model.get(name)));
  const parted = ({ layout: rows, ...values }) => [rows, values];
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  /** The worlds to choose from: the one the figure was made with first, unless it is one of the others. */
  function worlds() {
    const own = given();
    const listed = Object.values(WORLDS).some((one) => same(one, own));
    return listed ? WORLDS : { "This page’s world": own, ...WORLDS };
  }

  function paint(state) {
    const { kind } = BRUSHES[brush];
    looked = state;
    if (kind === null || (stroke === null && cells[state] === kind)) return show();
    // a start that is dragged leaves the cells on its way as they were
    const next = kind === "S" ? (stroke ?? cells).map((old) => (old === "S" ? "." : old)) : [...cells];
    next[state] = kind;
    if (!same(next, cells)) {
      cells = next;
      worldName = null;
      planning.change = null;
      says = startless();
      changed();
    } else show();
  }

  const startless = () => (method === "Q-learning" && !cells.includes("S") ?
    "No start: each episode begins in a free cell drawn at random." : "");

  // --- value iteration
  function sweep() {
    const values = sweepOnce(world, planning.values, settings.gamma);
    planning.change = difference(values, planning.values);
    planning.values = values;
    planning.sweep += 1;
  }

  function sweepByHand() {
    setPhase("paused");
    sweep();
    says = planning.change <= SETTLED ? settled() : "";
    announce(`Sweep ${planning.sweep}, largest change ${plain(planning.change)}.`);
    show();
  }

  const settled = () => `Settled at sweep ${planning.sweep}: no value changes noticeably any more.`;

  // --- Q-learning
  /** One step, or, after the end of an episode, the way back to the start. */
  function step() {
    if (learning.ended) {
      place();
      learning.episode += 1;
      says = startless();
      if (learning.state !== null) return;
    }
    if (learning.state === null) {
      says = "There is no free cell to walk in.";
      return;
    }
    const last = learnStep(world, learning.table, learning.state, settings, learning.uniform);
    const steps = learning.steps + 1;
    const truncated = !last.terminated && steps >= MAX_STEPS;
    Object.assign(learning, {
      last: { ...last, truncated }, state: last.next, steps, all: learning.all + 1,
      return: learning.return + last.reward, ended: last.terminated || truncated,
    });
    const result = `after ${steps} ${steps === 1 ? "step" : "steps"}, return ${plain(learning.return, 2)}`;
    if (last.terminated) says = `Episode ${learning.episode}: the ${KINDS[cells[last.next]]} ${result}.`;
    if (truncated) says = `Episode ${learning.episode}: cut off ${result}. It could have gone on, so s′ counts.`;
    record();
  }

  /** The largest and the mean |V − V*| over the cells in reach; null where there is no V*. */
  function distance() {
    const best = optimal();
    if (!best || inReach.length === 0) return null;
    const far = inReach.map((state) => Math.abs(largest(learning.table[state]) - best.values[state]));
    return { max: largest(far), mean: far.reduce((a, b) => a + b) / far.length };
  }

  /** Notes how far the values are from the optimal ones; of a long run every second, fourth, … time. */
  function record() {
    const far = learning.all % learning.stride === 0 ? distance() : null;
    if (far) learning.trace.push({ steps: learning.all, ...far });
    if (learning.trace.length > 240) {
      learning.trace = learning.trace.filter((_, i) => i % 2 === 1);
      learning.stride *= 2;
    }
  }

  function stepByHand() {
    setPhase("paused");
    step();
    const { last } = learning;
    announce(learning.steps === 0 || !last ? says || "A new episode begins." :
      `${nameOf(last.action)}, reward ${plain(last.reward, 2)}, TD error ${signed(last.error, 3)}. ` +
        (learning.ended ? says : ""));
    show();
  }

  function episodeByHand() {
    setPhase("paused");
    wholeEpisode();
    announce(says);
    show();
  }

  function wholeEpisode() {
    do step();
    while (!learning.ended && learning.state !== null);
  }

  // --- what the reader chooses
  function chooseMethod(name) {
    method = known("method", name, Object.keys(METHODS));
    says = startless();
    setPhase("paused");
  }

  function setView(name) {
    view = known("view", name, ["V", "Q"]);
    show();
  }

  function setBrush(name) {
    brush = known("brush", name, Object.keys(BRUSHES));
    show();
  }

  function set(name, value) {
    const { min, max } = SLIDERS[name] ?? {};
    if (!(value >= min && value <= max)) throw new RangeError(`${name} cannot be ${value}.`);
    settings = { ...settings, [name]: value };
    planning.change = null;
    changed();
  }

  function setSpeed(factor) {
    speed = factor;
    show();
  }

  function reset() {
    if (method === "value iteration") makePlanning();
    else makeLearning();
    says = startless();
    phase = "paused";
    changed();
  }

  const announce = (words) => {
    announcer.textContent = words;
  };

  // --- the clock
  const clock = ticker({
    running: () => phase === "running", rate: () => RATES[method] * speed, step: playOn, show,
  });

  function togglePlay() {
    setPhase(phase === "running" ? "paused" : "running");
  }

  function setPhase(value) {
    phase = value;
    show();
    if (phase === "running") clock.start();
  }

  function stop(words) {
    phase = "paused";
    says = words;
    announce(words);
  }

  function playOn() {
    if (method === "Q-learning") {
      step();
      if (learning.state === null) stop(says);
      return;
    }
    sweep();
    if (planning.change <= SETTLED) stop(settled());
    else if (planning.sweep >= MAX_SWEEPS) {
      stop(`Stopped after ${planning.sweep} sweeps, not settled: with γ = 1 values may grow for ever.`);
    }
  }

  // --- showing it
  let parts = []; // the elements of each cell
  let described = 0;


  function build() {
    parts = cells.map(() => {
      const square = svg("rect", { class: "fill square", x: -50, y: -50, width: 100, height: 100 });
      const triangles = TRIANGLES.map((points) => svg("polygon", { class: "fill", points }));
      const best = EDGES.map((d) => svg("path", { class: "best", d }));
      const edges = svg("path", { class: "edges", d: "M-50 -50L50 50M50 -50L-50 50" });
      const arrow = svg("path", { class: "arrow" });
      const drawing = svg("svg", { viewBox: "-50 -50 100 100", "aria-hidden": "true" },
        square, svg("g", { class: "triangles" }, ...triangles, edges, ...best), arrow);
      const value = h("span", { class: "value" });
      const mark = h("span", { class: "mark" });
      const numbers = ACTIONS.map((_, action) => h("span", { class: `q q${action}` }));
      const cell = h("div", { class: "cell", role: "gridcell" }, drawing, value, mark, ...numbers);
      return { cell, square, triangles, best, arrow, value, mark, numbers };
    });
    const rows = Array.from({ length: cells.length / columns }, (_, row) =>
      h("div", { class: "row", role: "row" },
        ...parts.slice(row * columns, (row + 1) * columns).map(({ cell }) => cell)));
    board.replaceChildren(...rows);
    field.style.setProperty("--columns", columns);
    field.style.setProperty("--rows", rows.length);
    resize();
  }

  function resize() {
    const size = board.clientWidth / columns;
    board.dataset.size = size < 46 ? "small" : size < 62 ? "medium" : "large";
    if (parts.length > 0) show();
  }

  function paintFill(node, value, scale) {
    const sign = Math.abs(value) < 1e-12 ? "0" : value > 0 ? "+" : "−";
    attribute(node, "data-sign", sign);
    attribute(node, "fill-opacity", (0.06 + 0.52 * Math.min(1, Math.abs(value) / scale)).toFixed(3));
  }

  function show() {
    if (!world) return;
    const planned = method === "value iteration";
    const q = planned ? actionValues(world, planning.values, settings.gamma) : learning.table;
    const values = planned ? planning.values : q.map(largest);
    const shown = view === "V" ? values : q.flat();
    const scale = Math.max(1, largest(shown.map(Math.abs)));
    const now = performance.now();
    const calmly = phase !== "running" || now - described > 500;
    if (calmly) described = now;
    Object.assign(figure.dataset, { method, phase, view, brush });
    press(methodButtons, "method", method);
    press(viewButtons, "view", view);
    press(brushButtons, "brush", brush);
    press(speedButtons, "speed", speed);
    text(playButton, phase === "running" ? "Pause" : "Play");
    text(note, NOTES[method]);
    text(hint, brush === "look" ? "Point at a cell to see its numbers, or choose a brush and change the world." :
      "Drag over the grid, or use arrow keys and Enter. The values stay, then adapt.");
    text(legendWords, view === "V" ? "arrow: best action, dot: all equal" : "bar: best action");
    [-1, 1].forEach((side, i) => text(scaleEnds[i], signed(side * scale, scale > 1 && scale < 10 ? 1 : 0)));

    parts.forEach(({ cell, square, triangles, best, arrow, value, mark, numbers }, state) => {
      const kind = cells[state];
      const free = isFree(kind);
      const greedy = free ? greedyActions(q[state]) : [];
      attribute(cell, "data-kind", kind);
      attribute(cell, "data-free", free);
      attribute(cell, "data-looked", state === looked);
      attribute(cell, "tabindex", state === looked ? 0 : -1);
      text(value, free ? (board.dataset.size === "small" ? shorter : short)(values[state]) : ENDS[kind]);
      text(mark, kind === "S" ? "S" : kind === "G" || kind === "X" ? KINDS[kind] : "");
      if (free && view === "V") {
        paintFill(square, values[state], scale);
        attribute(arrow, "d", arrowPath(greedy));
      } else if (free) {
        const brief = (value) => (board.dataset.size === "large" ? shorter(value) :
          Math.abs(value) < 0.005 ? "" : value > 0 ? "+" : "−");
        q[state].forEach((value, action) => {
          paintFill(triangles[action], value, scale);
          const chosen = greedy.includes(action) && greedy.length < 4;
          attribute(best[action], "visibility", chosen ? "visible" : "hidden");
          numbers[action].classList.toggle("greedy", chosen);
          text(numbers[action], brief(value));
        });
      }
      if (!calmly) return;
      const advice = greedy.length === 4 ? "all actions equal" : `best ${greedy.map(nameOf).join(" or ")}`;
      const words = free ? `, value ${short(values[state])}, ${advice}` : "";
      attribute(cell, "aria-label", `${placeOf(state)}, ${KINDS[kind]}${words}`);
    });
    attribute(board, "aria-label", `The world, ${cells.length / columns} rows and ${columns} columns. ` +
      "Arrow keys move, Enter paints with the brush.");

    const { state } = learning;
    agent.style.visibility = state === null ? "hidden" : "";
    agent.classList.toggle("home", state !== null && !isFree(cells[state]));
    agent.classList.toggle("smooth", !calm && speed === 1 && learning.steps > 0);
    if (state !== null) {
      agent.style.transform = `translate(${(state % columns) * 100}%, ${Math.floor(state / columns) * 100}%)`;
    }

    text(facts.sweep, String(planning.sweep));
    text(facts["largest change"], planning.change === null ? "–" :
      planning.change >= 0.0005 || planning.change === 0 ? plain(planning.change) :
        planning.change > SETTLED ? String(Number(planning.change.toPrecision(1))) : "< 0.000001");
    text(facts.episode, String(learning.episode));
    text(facts.step, String(learning.steps));
    text(facts["all steps"], String(learning.all));
    text(facts.return, plain(learning.return, 2));
    const untouched = planned ? planning.sweep === 0 : learning.all === 0;
    text(message, says || (untouched ? FIRST[method] : ""));
    if (!planned) showLearning(calmly);
    showCell(q, values, planned);
    for (const [name, { input, output }] of Object.entries(sliders)) {
      const value = settings[name];
      const words = name === "step_reward" && value > 0 ? signed(value, 2) : plain(value, 2);
      text(output, words);
      if (Number(input.value) !== value) input.value = value;
      attribute(input, "aria-valuetext", words);
    }
    const names = Object.keys(worlds());
    const options = worldName === null ? ["", ...names] : names;
    if (!same(options, [...worldSelect.options].map((option) => option.value))) {
      worldSelect.replaceChildren(...options.map((name) => h("option", { value: name }, name || "painted by you")));
    }
    worldSelect.value = worldName ?? "";
  }

  function showLearning(calmly) {
    const far = distance();
    const { trace, last } = learning;
    const top = largest([1e-9, ...trace.map(({ max }) => max)]);
    ["max", "mean"].forEach((name, i) => attribute(curves[i], "points", trace.map((point) =>
      `${((100 * point.steps) / learning.all).toFixed(2)},${(42 - (40 * point[name]) / top).toFixed(2)}`).join(" ")));
    const words = far ? `solid: largest ${plain(far.max)}, dashed: mean ${plain(far.mean)}` :
      "unknown: V* does not settle";
    text(distances, words);
    if (calmly) {
      attribute(chart, "aria-label", `Distance to the optimal values after ${learning.all} steps: ${words}`);
    }
    if (!calmly) return;
    const lines = lastLines;
    text(lines.what.formula, "The last step, from s by action a");
    text(lines.target.formula, last?.terminated ? "target = r, as nothing follows the end" :
      "target = r + γ max Q(s′, ·)");
    text(lines.error.formula, "TD error = target − Q(s, a)");
    text(lines.new.formula, "Q(s, a) ← Q(s, a) + α · TD error");
    if (!last) {
      for (const { numbers } of Object.values(lines)) text(numbers, "–");
      return;
    }
    const p = (value) => inParentheses(plain(value));
    text(lines.what.numbers, `${placeOf(last.state)}: ${ACTIONS[last.action]}` +
      (last.direction === last.action ? "" : `, slipped ${ACTIONS[last.direction]}`));
    text(lines.target.numbers, last.terminated ? `= ${plain(last.reward)}` :
      `= ${plain(last.reward)} + ${plain(last.gamma, 2)} · ${p(last.nextValue)} = ${plain(last.target)}`);
    text(lines.error.numbers, `= ${plain(last.target)} − ${p(last.before)} = ${plain(last.error)}`);
    text(lines.new.numbers,
      `= ${plain(last.before)} + ${plain(last.alpha, 2)} · ${p(last.error)} = ${plain(last.after)}`);
  }

  function showCell(q, values, planned) {
    const kind = cells[looked];
    const free = isFree(kind);
    const best = planned ? null : optimal();
    text(inspectTitle,
      `${placeOf(looked).replace("r", "R")}: ${free ? `V(s) = ${plain(values[looked])}` : KINDS[kind]}`);
    const heads = planned ? ["r(s, a)", "E[V(s′)]", "Q(s, a)"] : ["", "Q(s, a)", "optimal Q*"];
    inspectHead.forEach((head, i) => text(head, heads[i]));
    const greedy = free ? greedyActions(q[looked]) : [];
    inspectRows.forEach(({ row, numbers }, action) => {
      row.classList.toggle("greedy", greedy.length < 4 && greedy.includes(action));
      const { reward, next } = expectation(world.outcomes[looked][action], planning.values);
      const shown = planned ? [reward, next, q[looked][action]] : [null, q[looked][action], best?.q[looked][action]];
      numbers.forEach((cell, i) =>
        text(cell, free && Number.isFinite(shown[i]) ? plain(shown[i]) : heads[i] && "–"));
    });
    text(rule, kind === "#" ? "Nothing can enter a wall: a step into it stays where it is." :
      !free ? `Entering earns ${kind === "G" ? "+1" : "−1"} and ends the episode: nothing follows.` :
        planned ? "Q(s, a) = r(s, a) + γ E[V(s′)]. The next sweep sets V(s) to the largest of them." :
          "V(s) is the largest Q(s, a). Q* is what value iteration finds.");
  }

  // --- pointers and keys
  let stroke = null; // the cells before the present stroke of the brush
  let trail = null; // the cell the pointer was in

  const cellAt = (event) => {
    const box = board.getBoundingClientRect();
    const rows = cells.length / columns;
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    return column >= 0 && column < columns && row >= 0 && row < rows ? row * columns + column : null;
  };
  board.addEventListener("pointerdown", (event) => {
    const state = cellAt(event);
    if (event.button !== 0 || state === null) return;
    trail = state;
    if (brush === "look") {
      looked = state;
      return show();
    }
    stroke = [...cells];
    board.setPointerCapture(event.pointerId);
    paint(state);
  });
  board.addEventListener("pointermove", (event) => {
    const state = cellAt(event);
    if (state === null || state === trail) return;
    if (stroke === null) {
      trail = looked = state;
      return show();
    }
    // a fast stroke may jump cells: paint those between too
    const [fromRow, fromColumn] = [Math.floor(trail / columns), trail % columns];
    const [down, right] = [Math.floor(state / columns) - fromRow, (state % columns) - fromColumn];
    const count = Math.max(Math.abs(down), Math.abs(right));
    for (let i = 1; i <= count; i++) {
      paint((fromRow + Math.round((down * i) / count)) * columns + fromColumn + Math.round((right * i) / count));
    }
    trail = state;
  });
  for (const type of ["pointerup", "pointercancel"]) {
    board.addEventListener(type, () => {
      stroke = null;
    });
  }
  board.addEventListener("focusin", (event) => {
    const state = parts.findIndex(({ cell }) => cell === event.target);
    if (state >= 0 && state !== looked && stroke === null) {
      looked = state;
      show();
    }
  });
  figure.addEventListener("keydown", (event) => {
    if (isShortcut(event)) return;
    const direction = ["ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft"].indexOf(event.key);
    const paints = event.key === "Enter" || event.key === " ";
    if (direction < 0 && !paints) return;
    event.stopPropagation(); // else a page may turn to the next chapter
    if (event.target.getAttribute("role") !== "gridcell") return;
    event.preventDefault();
    if (paints) return paint(looked);
    const row = Math.floor(looked / columns) + MOVES[direction][0];
    const column = (looked % columns) + MOVES[direction][1];
    if (row < 0 || row >= cells.length / columns || column < 0 || column >= columns) return;
    looked = row * columns + column;
    show();
    parts[looked].cell.focus();
  });

  // --- the page around it
  const newModel = () => {
    method = model.get("method");
    worldName = Object.keys(worlds()).find((name) => same(worlds()[name], given()));
    newWorld(...parted(given()));
  };
  const traits = ["world", "gamma", "slip", "step_reward", "method", "seed"];
  for (const name of traits) model.on(`change:${name}`, newModel);
  newModel();

  const times = (action) => (count = 1) => {
    phase = "paused";
    for (let i = 0; i < count; i++) action();
    show();
  };
  const at = (row, column) => {
    if (!(row >= 0 && row < cells.length / columns && column >= 0 && column < columns)) {
      throw new RangeError(`There is no cell in row ${row}, column ${column}.`);
    }
    return row * columns + column;
  };
  el.policyopt = {
    state: () => structuredClone({
      method, phase, view, brush, speed, world: worldName, layout: layout(), settings, looked, message: says,
      values: method === "value iteration" ? planning.values : learning.table.map(largest),
      q: method === "value iteration" ? actionValues(world, planning.values, settings.gamma) : learning.table,
      sweep: planning.sweep, change: planning.change, agent: learning.state, episode: learning.episode,
      step: learning.steps, steps: learning.all, ended: learning.ended, last: learning.last, distance: distance(),
    }),
    choose: chooseMethod,
    view: setView,
    sweep: times(sweep),
    step: times(() => {
      if (learning.ended) step();
      step();
    }),
    episode: times(wholeEpisode),
    play: () => phase === "running" || togglePlay(),
    pause: () => setPhase("paused"),
    reset,
    brush: setBrush,
    paint: (row, column) => paint(at(row, column)),
    look(row, column) {
      looked = at(row, column);
      show();
    },
    world: loadWorld,
    set,
  };

  return () => {
    clock.stop();
    phase = "paused";
    unmount();
    for (const name of traits) model.off(`change:${name}`, newModel);
  };
}

export {
  actionValues, expectation, greedyActions, gridModel, learnStep, randomStream, reachable, short, shorter, sweepOnce,
  valueIteration,
};
export default { render };
