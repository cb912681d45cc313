// Balance it yourself: CartPole in the page. Runs as an anywidget, and inline on a published page with no
// kernel (policyopt.widgets.sphinx). Everything above "The figure" touches no page: the tests run it in Node.

import {
  button, buttonGroup, figureBox, h, isShortcut, known, liveRegion, meter, mount, press, randomStream, sharpPen,
  signed, softmax, text, ticker,
} from "./common.js";

// --- CartPole-v1, as gymnasium.envs.classic_control.CartPoleEnv computes it -----------------------------------

const GRAVITY = 9.8; // m/s²
const POLE_MASS = 0.1; // kg
const TOTAL_MASS = POLE_MASS + 1.0; // pole and cart, kg
const HALF_LENGTH = 0.5; // of the pole, m
const FORCE = 10.0; // of one push, N
const TAU = 0.02; // seconds a step
const X_LIMIT = 2.4; // m
const THETA_LIMIT = (12 * 2 * Math.PI) / 360; // rad
const MAX_STEPS = 500;

/** One Euler step from state [x, ẋ, θ, θ̇] by an action (0 left, 1 right), in float64. */
function stepPhysics([x, xDot, theta, thetaDot], action) {
  const force = action === 1 ? FORCE : -FORCE;
  const cos = Math.cos(theta);
  const sin = Math.sin(theta);
  const temp = (force + POLE_MASS * HALF_LENGTH * (thetaDot * thetaDot) * sin) / TOTAL_MASS;
  const thetaAcc =
    (GRAVITY * sin - cos * temp) / (HALF_LENGTH * (4.0 / 3.0 - (POLE_MASS * (cos * cos)) / TOTAL_MASS));
  const xAcc = temp - (POLE_MASS * HALF_LENGTH * thetaAcc * cos) / TOTAL_MASS;
  return [x + TAU * xDot, xDot + TAU * xAcc, theta + TAU * thetaDot, thetaDot + TAU * thetaAcc];
}

/** What a policy sees: the state rounded to float32. */
const observe = (state) => state.map(Math.fround);

const startEpisode = (state) => ({
  state: [...state],
  step: 0,
  action: null,
  reward: null,
  return: 0,
  fell: false,
  left: false,
  terminated: false,
  truncated: false,
});

/** The episode after one more action: the environment's limits, and the 500 steps of its TimeLimit. */
function advance(episode, action) {
  if (action !== 0 && action !== 1) throw new RangeError(`The action must be 0 or 1, but got ${action}.`);
  if (episode.terminated || episode.truncated) throw new Error("The episode has ended: start another.");
  const state = stepPhysics(episode.state, action);
  const step = episode.step + 1;
  const left = Math.abs(state[0]) > X_LIMIT;
  const fell = Math.abs(state[2]) > THETA_LIMIT;
  return {
    state,
    step,
    action,
    reward: 1,
    return: episode.return + 1,
    fell,
    left,
    terminated: fell || left,
    truncated: step >= MAX_STEPS,
  };
}

// --- The drivers ----------------------------------------------------------------------------------------------

const ACTIVATIONS = { tanh: Math.tanh, relu: (z) => Math.max(z, 0), identity: (z) => z };

/** The logits of a network given as layers {weights: [out][in], bias: [out], activation}. */
function forward(layers, inputs) {
  return layers.reduce(
    (units, { weights, bias, activation }) =>
      weights.map((row, i) =>
        ACTIVATIONS[activation](row.reduce((sum, weight, j) => sum + weight * units[j], bias[i])),
      ),
    inputs,
  );
}

// --- The figure -----------------------------------------------------------------------------------------------

const DRIVERS = {
  you: { name: "You", kind: "", subject: "You" },
  random: { name: "Random", kind: " policy", subject: "The random policy" },
  ppo: { name: "PPO", kind: " network", subject: "The PPO network" },
};
const NOTES = {
  you:
    "CartPole has no “do nothing”: your last push is repeated until you push the other way. You begin in " +
    "slow motion: at real time pushing the wrong way fells the pole in a fifth of a second. On a keyboard, " +
    "Space plays the same start again and N a new one.",
  random: "Each step, left or right by the toss of a coin, whatever the state.",
  ppo:
    "Each step, the network turns the four numbers of the state into two probabilities, and the likelier push " +
    "is taken. Its weights are in this page; nothing is asked of a server.",
};
const SPEEDS = [
  { factor: 0.25, label: "¼×", name: "quarter speed" },
  { factor: 0.5, label: "½×", name: "half speed" },
  { factor: 1, label: "1×", name: "real time, 50 steps a second" },
  { factor: 8, label: "8×", name: "eight times real time" },
];
const STATE_ROWS = [
  { symbol: "x", name: "cart position", unit: "m", span: X_LIMIT, limit: "ends at ±2.4 m" },
  { symbol: "ẋ", name: "cart velocity", unit: "m/s", span: 3, limit: "no limit" },
  { symbol: "θ", name: "pole angle", unit: "rad", span: THETA_LIMIT, limit: "ends at ±12°" },
  { symbol: "θ̇", name: "pole velocity", unit: "rad/s", span: 3, limit: "no limit" },
];

const CSS = `
:host {
  --you: var(--orange); --random: var(--grey); --ppo: var(--blue); --alarm: var(--vermilion);
  --wedge: #009e7322; --wedge-line: #00795a;
}
:host([data-theme="dark"]) {
  --wedge: #00c08e22; --wedge-line: #3fc9a0;
}
.figure { --driver: var(--you); }
.figure[data-driver="random"] { --driver: var(--random); }
.figure[data-driver="ppo"] { --driver: var(--ppo); }
.clock, .starts { display: flex; gap: .5rem; align-items: center; }
.starts { font-size: .86rem; }
button { --mark: var(--driver); }
button[data-driver]::before, .scores tbody th::before {
  content: ""; display: inline-block; width: .65em; height: .65em; margin-right: .45em; border-radius: 50%;
  background: var(--mark);
}
:is(button, tr)[data-driver="you"] { --mark: var(--you); }
:is(button, tr)[data-driver="random"] { --mark: var(--random); }
:is(button, tr)[data-driver="ppo"] { --mark: var(--ppo); }
.figure[data-driver="you"] .stage { cursor: pointer; }
.message {
  position: absolute; inset: .55rem .6rem auto; margin: 0; text-align: center; pointer-events: none;
  font-size: .92rem; line-height: 1.35; min-height: 2.7em;
  display: flex; align-items: center; justify-content: center;
}
.message span { padding: .25rem .8rem; border-radius: 8px; text-wrap: balance; }
.message[data-kind="count"] { font-size: 1.2rem; font-variant-numeric: tabular-nums; min-height: 1.8em; }
.message:is([data-kind="end"], [data-kind="success"]) span {
  background: var(--paper); border: 1px solid var(--line); border-left: 5px solid var(--alarm);
}
.message[data-kind="success"] span { border-left-color: var(--wedge-line); }
.pushes { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; margin-bottom: .6rem; }
.pushes button {
  min-height: 56px; font-size: 1rem; user-select: none; -webkit-user-select: none; -webkit-touch-callout: none;
}
.figure[data-phase="running"][data-driver="you"] :is(.stage, .pushes button) { touch-action: none; }
.pushes button.on { box-shadow: inset 0 0 0 3px var(--driver); color: var(--text); }
.notes { display: grid; margin: .1rem 0 .7rem; color: var(--muted); font-size: .84rem; }
.notes p { grid-area: 1 / 1; margin: 0; visibility: hidden; } /* one place for all: nothing moves at a change */
.notes p.shown { visibility: visible; }
.panels {
  display: grid; grid-template-columns: minmax(0, 1.25fr) minmax(0, 1fr); gap: .9rem 1.6rem; margin: .9rem 0;
}
.state th { white-space: nowrap; padding: .18rem 0; }
.state b { display: inline-block; width: 1.2em; font-weight: 400; font-style: italic; }
.state td { width: 7.6em; white-space: nowrap; }
.state td.scale { width: auto; padding: .25rem 0 0 .8rem; }
.meter > span { background: var(--driver); }
.state .crossed .meter > span { background: var(--alarm); }
.state .crossed td:last-child { font-weight: 650; }
.state .crossed .limit { color: var(--text); }
.limit { display: block; color: var(--muted); font-size: .76rem; line-height: 1.2; text-align: center; }
.facts { display: flex; justify-content: space-between; gap: .8rem; margin: 0 0 .8rem; }
.facts dt { color: var(--muted); font-size: .78rem; }
.facts dd { margin: 0; font-size: 1.02rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.policy {
  display: grid; grid-template-columns: auto 1fr 3.2em; gap: .3rem .6rem; align-items: center; font-size: .86rem;
}
.scores { border-top: 1px solid var(--line); margin-top: .2rem; }
.scores th, .scores td { padding: .28rem .3rem; border-bottom: 1px solid var(--line); }
.scores tr:last-child > * { border-bottom: 0; }
.scores th { white-space: nowrap; }
.scores thead th { color: var(--muted); font-size: .8rem; vertical-align: bottom; }
.scores tr.current th { font-weight: 650; }
@container (max-width: 560px) {
  .panels { grid-template-columns: minmax(0, 1fr); }
  .drivers { display: flex; width: 100%; }
  .drivers button { flex: 1 1 auto; padding: .35rem .3rem; }
  .kind { display: none; }
  .clock, .starts { width: 100%; gap: .4rem; }
  .clock button { padding: .35rem .55rem; }
  .clock .group, .starts span { margin-right: auto; }
  .clock .group { margin: 0 0 0 auto; }
  .starts button { flex: 0 1 auto; }
}
`;

const degrees = (radians) => (radians * 180) / Math.PI;

/** Why the episode ended, in words: Gymnasium's flag first, then what happened. */
function endReason({ fell, left, terminated, step }) {
  if (!terminated) return `Truncated: the time limit of ${MAX_STEPS} steps is reached, the pole still up`;
  const causes = [];
  if (fell) causes.push("the pole fell (|\u2060θ|\u00a0>\u00a012°)"); // where no line may break
  if (left) causes.push("the cart left the track (|\u2060x|\u00a0>\u00a02.4\u00a0m)");
  return `Terminated: ${causes.join(" and ")}`;
}

/** Draws the track and, at `state`, cart and pole; one metre is as long across as up. */
function drawScene(canvas, { state, action, ended }, styles) {
  const width = canvas.clientWidth;
  const scale = width / 5.9; // pixels a metre; the track shows from −2.95 m to 2.95 m
  const cart = { width: Math.max(0.52 * scale, 30), height: Math.max(0.22 * scale, 13) };
  const top = width < 480 ? 74 : 58; // room for the message
  const pivotY = top + 1.12 * scale;
  const groundY = pivotY + cart.height * 0.75;
  const height = Math.round(groundY + 40);
  const pen = sharpPen(canvas, height);
  const colour = (name) => styles.getPropertyValue(name).trim();
  const across = (metres) => width / 2 + metres * scale;
  const line = (x1, y1, x2, y2) => {
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x2, y2);
    pen.stroke();
  };
  const [x, , theta] = state;

  // the track, its metres and its ends
  pen.strokeStyle = colour("--muted");
  pen.lineWidth = 2;
  line(0, groundY, width, groundY);
  pen.lineWidth = 1;
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const metre of [-2, -1, 0, 1, 2]) line(across(metre), groundY, across(metre), groundY + 5);
  pen.fillStyle = colour("--muted");
  pen.fillText("0", across(0), groundY + 20);
  const outside = Math.abs(x) > X_LIMIT;
  for (const end of [-X_LIMIT, X_LIMIT]) {
    pen.strokeStyle = colour(outside && end * x > 0 ? "--alarm" : "--muted");
    pen.lineWidth = 3;
    line(across(end), groundY - cart.height * 1.6, across(end), groundY + 8);
    pen.fillText(`${end < 0 ? "−" : ""}2.4 m`, across(end), groundY + 22);
  }

  // where the pole may lean: 12° to either side
  const pivotX = across(x);
  const reach = 1.06 * scale;
  const fallen = Math.abs(theta) > THETA_LIMIT;
  pen.fillStyle = colour("--wedge");
  pen.beginPath();
  pen.moveTo(pivotX, pivotY);
  pen.arc(pivotX, pivotY, reach, -Math.PI / 2 - THETA_LIMIT, -Math.PI / 2 + THETA_LIMIT);
  pen.fill();
  pen.setLineDash([4, 4]);
  pen.lineWidth = 1.5;
  for (const side of [-1, 1]) {
    const tipX = pivotX + side * reach * Math.sin(THETA_LIMIT);
    const tipY = pivotY - reach * Math.cos(THETA_LIMIT);
    pen.strokeStyle = colour(fallen && side * theta > 0 ? "--alarm" : "--wedge-line");
    line(pivotX, pivotY, tipX, tipY);
    pen.fillStyle = colour("--muted");
    pen.textAlign = side < 0 ? "right" : "left";
    pen.fillText("12°", tipX + side * 5, tipY + 8);
  }
  pen.setLineDash([]);

  // the cart, and the push it gets
  pen.fillStyle = colour("--driver");
  pen.beginPath();
  pen.roundRect(pivotX - cart.width / 2, pivotY - cart.height / 4, cart.width, cart.height, 4);
  pen.fill();
  if (action !== null && !ended) {
    const side = action === 1 ? 1 : -1;
    const tail = pivotX + side * (cart.width / 2 + 5);
    const tip = tail + side * Math.max(0.24 * scale, 18);
    const y = pivotY + cart.height / 4;
    pen.strokeStyle = pen.fillStyle = colour("--text");
    pen.lineWidth = 3;
    line(tail, y, tip - side * 6, y);
    pen.beginPath();
    pen.moveTo(tip, y);
    pen.lineTo(tip - side * 9, y - 6);
    pen.lineTo(tip - side * 9, y + 6);
    pen.fill();
  }

  // the pole
  pen.strokeStyle = colour(fallen ? "--alarm" : "--text");
  pen.lineWidth = Math.max(0.07 * scale, 5);
  pen.lineCap = "round";
  line(pivotX, pivotY, pivotX + scale * Math.sin(theta), pivotY - scale * Math.cos(theta));
  pen.lineCap = "butt";
  pen.fillStyle = colour("--paper");
  pen.beginPath();
  pen.arc(pivotX, pivotY, Math.max(0.025 * scale, 2), 0, 2 * Math.PI);
  pen.fill();
}

function render({ model, el }) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const draw01 = randomStream(0);

  let driver = "you";
  let phase = "waiting"; // waiting | running | paused | ended
  const factors = { you: 0.25, random: 1, ppo: 1 }; // each driver's own speed: a reader needs time to react
  let startIndex = 0;
  let chosen = null; // the reader's last push
  let episode = startEpisode(model.get("starts")[0].state);
  let before = episode; // one step back, to draw between steps
  const scores = {};
  const clearScores = () => {
    for (const key of Object.keys(DRIVERS)) scores[key] = { here: null, best: null, last: null, episodes: 0 };
  };
  clearScores();

  // --- elements
  const nameOf = ({ name, kind }) => h("span", {}, name, h("span", { class: "kind" }, kind));
  const driverButtons = Object.entries(DRIVERS).map(([key, names]) =>
    button(nameOf(names), () => choose(key), { "data-driver": key }),
  );
  const speedButtons = SPEEDS.map((speed) => button(speed.label, () => setSpeed(speed.factor), {
    "aria-label": speed.name, title: speed.name, "data-speed": speed.factor,
  }));
  const canvas = h("canvas", { role: "img" });
  const messageText = h("span");
  const message = h("p", { class: "message" }, messageText);
  const stage = h("div", {
    class: "stage", tabindex: "0", role: "application",
    "aria-label": "Cart and pole. Left and right arrow keys push the cart when you drive. " +
      "Space plays and pauses, S repeats the same start, N takes a new start.",
  }, canvas, message);
  const pushButtons = ["← push left", "push right →"].map((label, action) => {
    const element = h("button", { type: "button", "data-action": action }, label);
    steer(element, () => action);
    element.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press is a long push
    return element;
  });
  const notes = Object.entries(NOTES).map(([key, words]) => h("p", { "data-note": key }, words));
  const playButton = button("Play", togglePlay, { class: "play" });
  const stepButton = button("Step", () => stepOnce(), { title: "one step of 0.02 s" });
  const sameButton = button("Same start", () => restart(), { title: "the same start state again" });
  const nextButton = button("New start", () => nextStart(), { title: "the next start state" });
  const seedText = h("span", { class: "seed" });
  const stateRows = STATE_ROWS.map(({ symbol, name, limit }) => {
    const fill = h("span");
    const value = h("td");
    const row = h("tr", {},
      h("th", { scope: "row" }, h("b", {}, symbol), name),
      h("td", { class: "scale" },
        meter(fill, "signed"),
        h("span", { class: "limit" }, limit)),
      value);
    return { row, value, fill };
  });
  const facts = Object.fromEntries(
    ["last action", "reward", "step", "return"].map((name) => [name, h("dd", { "data-fact": name })]),
  );
  const policyLabel = h("p", { class: "label" });
  const policyRows = ["← left", "right →"].map((label) => {
    const fill = h("span");
    const value = h("span", { class: "number" });
    return { fill, value, cells: [h("span", {}, label), meter(fill), value] };
  });
  const scoreRows = Object.entries(DRIVERS).map(([key, names]) => {
    const cells = Object.fromEntries(
      ["here", "last", "best", "episodes"].map((column) => [column, h("td", { "data-score": column })]),
    );
    const title = h("th", { scope: "row" }, nameOf(names));
    return { key, cells, row: h("tr", { "data-driver": key }, title, ...Object.values(cells)) };
  });
  const announcer = liveRegion();
  const hereHead = h("th", { scope: "col", class: "number" });
  const head = (text) => h("th", { scope: "col", class: "number" }, text);

  const figure = figureBox("Balance it yourself", buttonGroup("Who drives", driverButtons, "drivers"),
    stage,
    h("div", { class: "pushes", role: "group", "aria-label": "Push the cart" }, ...pushButtons),
    h("div", { class: "notes" }, ...notes),
    h("div", { class: "bar controls" },
      h("div", { class: "clock" }, playButton, stepButton, buttonGroup("Speed", speedButtons)),
      h("div", { class: "starts" }, h("span", {}, "Start: seed ", seedText), sameButton, nextButton)),
    h("div", { class: "panels" },
      h("div", {},
        h("p", { class: "label" }, "State s: what the driver observes"),
        h("table", { class: "state" }, ...stateRows.map(({ row }) => row))),
      h("div", {},
        h("dl", { class: "facts" },
          ...Object.entries(facts).map(([name, value]) => h("div", {}, h("dt", {}, name), value))),
        policyLabel,
        h("div", { class: "policy" }, ...policyRows.flatMap(({ cells }) => cells)))),
    h("p", { class: "label" }, "Returns so far"),
    h("table", { class: "scores" },
      h("thead", {},
        h("tr", {}, h("th", { scope: "col" }, "driver"), hereHead, head("last"), head("best"), head("episodes"))),
      h("tbody", {}, ...scoreRows.map(({ row }) => row))),
    announcer,
  );
  const unmount = mount(el, CSS, figure, paint);

  // --- what happens
  const start = () => model.get("starts")[startIndex];
  const ended = () => episode.terminated || episode.truncated;
  const networkProbabilities = () => softmax(forward(model.get("policy"), observe(episode.state)));

  function nextAction() {
    if (driver === "you") return chosen;
    if (driver === "random") return draw01() < 0.5 ? 0 : 1;
    const [left, right] = networkProbabilities();
    return right > left ? 1 : 0;
  }

  function takeStep() {
    before = episode;
    episode = advance(episode, nextAction());
    if (ended()) finish();
  }

  function finish() {
    phase = "ended";
    before = episode;
    const score = scores[driver];
    score.episodes += 1;
    score.here = score.last = episode.return;
    score.best = Math.max(score.best ?? 0, episode.return);
    announcer.textContent =
      `${endReason(episode)}. ${DRIVERS[driver].subject} reached a return of ${episode.return}.`;
  }

  function restart() {
    episode = before = startEpisode(start().state);
    chosen = null;
    announcer.textContent = "";
    setPhase(driver === "you" || calm ? "waiting" : "running");
  }

  function nextStart() {
    startIndex = (startIndex + 1) % model.get("starts").length;
    for (const score of Object.values(scores)) score.here = null;
    restart();
  }

  function choose(key) {
    driver = known("driver", key, Object.keys(DRIVERS));
    restart();
  }

  function setSpeed(value) {
    factors[driver] = value;
    show();
  }

  function push(action) {
    if (driver !== "you" || phase === "ended") return;
    chosen = action;
    setPhase(phase === "waiting" ? "running" : phase); // while paused a push is only chosen, for "Step"
  }

  /** Lets pointers push: at once in play, where a click would wait for the release. */
  function steer(element, actionOf) {
    element.addEventListener("pointerdown", (event) => {
      // a finger may be about to scroll the page, so a whole tap is asked of it to start a game
      if (event.button === 0 && (phase === "running" || event.pointerType !== "touch")) push(actionOf(event));
    });
    element.addEventListener("click", (event) => {
      if (phase !== "running" || event.detail === 0) push(actionOf(event)); // 0: pressed by keyboard
    });
  }

  function togglePlay() {
    if (phase === "ended") restart();
    else if (phase === "running") setPhase("paused");
    else if (driver !== "you" || chosen !== null) setPhase("running");
  }

  function stepOnce() {
    if (phase === "ended") return;
    phase = "paused";
    if (driver !== "you" || chosen !== null) takeStep();
    before = episode;
    show();
  }

  function setPhase(value) {
    phase = value;
    show();
    if (phase === "running") clock.start();
  }

  // --- the clock
  const clock = ticker({
    running: () => phase === "running", rate: () => factors[driver] / TAU, step: takeStep, show,
  });

  // --- showing it
  let described = 0; // when the canvas was last put into words

  // not `disabled`: the browser would take the focus away, and the arrow keys with it
  const setDisabled = (element, value) => element.setAttribute("aria-disabled", value);

  function guidance() {
    if (phase === "ended") return `${endReason(episode)}. Return\u00a0${episode.return}.`;
    if (phase === "running" || episode.step > 0) return `return ${episode.return}`;
    if (driver !== "you") return "Press Play.";
    if (phase === "waiting") return "Push to begin: ← or → on the keyboard, or touch a side of the track.";
    return chosen === null ? "Choose a push first: ← or →" : "Press Step or Play.";
  }

  function show() {
    const { state, action } = episode;
    figure.dataset.driver = driver;
    figure.dataset.phase = phase;
    press(driverButtons, "driver", driver);
    press(speedButtons, "speed", factors[driver]);
    const current = driver === "you" ? chosen : action;
    pushButtons.forEach((element, i) => {
      element.classList.toggle("on", current === i && phase !== "ended");
      setDisabled(element, driver !== "you" || phase === "ended");
    });
    text(playButton, phase === "running" ? "Pause" : phase === "ended" ? "Replay" : "Play");
    setDisabled(playButton, driver === "you" && chosen === null && phase !== "ended");
    setDisabled(stepButton, phase === "ended");
    text(messageText, guidance());
    message.dataset.kind =
      phase === "ended" ? (episode.terminated ? "end" : "success") : episode.step > 0 ? "count" : "hint";
    for (const note of notes) note.classList.toggle("shown", note.dataset.note === driver);

    stateRows.forEach(({ row, value, fill }, i) => {
      const { unit, span } = STATE_ROWS[i];
      text(value, `${signed(state[i], 3)} ${unit}`);
      fill.style.transform = `scaleX(${Math.max(-1, Math.min(1, state[i] / span))})`;
      row.classList.toggle("crossed", (i === 0 && episode.left) || (i === 2 && episode.fell));
    });
    text(facts["last action"], action === null ? "–" : action === 1 ? "1 (right)" : "0 (left)");
    text(facts.reward, episode.reward === null ? "–" : signed(episode.reward, 0));
    text(facts.step, String(episode.step));
    text(facts.return, String(episode.return));

    text(policyLabel, {
      you: "What PPO would do: π(a | s)",
      random: "The random policy: π(a | s)",
      ppo: "The PPO network: π(a | s)",
    }[driver]);
    const probabilities = driver === "random" ? [0.5, 0.5] : networkProbabilities();
    policyRows.forEach(({ fill, value }, i) => {
      fill.style.transform = `scaleX(${probabilities[i]})`;
      fill.style.background = driver === "you" ? "var(--ppo)" : "";
      text(value, `${(100 * probabilities[i]).toFixed(0)} %`);
    });

    text(seedText, String(start().seed));
    text(hereHead, `from seed ${start().seed}`);
    for (const { key, cells, row } of scoreRows) {
      row.classList.toggle("current", key === driver);
      for (const [column, cell] of Object.entries(cells)) text(cell, String(scores[key][column] ?? "–"));
    }

    const now = performance.now();
    if (phase !== "running" || now - described > 1000) {
      described = now;
      const lean = degrees(state[2]);
      canvas.setAttribute("aria-label",
        `Cart at ${signed(state[0], 2)} metres, pole leaning ${Math.abs(lean).toFixed(1)} degrees to the ` +
        `${lean < 0 ? "left" : "right"}, step ${episode.step}.`);
    }
    paint();
  }

  function paint() {
    if (canvas.clientWidth === 0) return; // not laid out: in a closed tab or a page being built
    const share = phase === "running" ? Math.min(clock.owed(), 1) : 1;
    const state = episode.state.map((value, i) => before.state[i] + share * (value - before.state[i]));
    const action = driver === "you" ? chosen : episode.action;
    drawScene(canvas, { state, action, ended: phase === "ended" }, getComputedStyle(figure));
  }

  // --- keys and touch, only where the reader is in the figure
  figure.addEventListener("keydown", (event) => {
    if (isShortcut(event)) return;
    const key = event.key.toLowerCase();
    const action = { arrowleft: 0, arrowright: 1 }[key];
    const command = { " ": togglePlay, s: restart, n: nextStart }[key];
    if (action !== undefined) {
      event.stopPropagation(); // else a page may turn to the next chapter
      if (driver === "you") {
        event.preventDefault();
        push(action);
      }
    } else if (command && !(key === " " && event.target.tagName === "BUTTON")) {
      event.stopPropagation();
      event.preventDefault();
      if (!event.repeat) command();
    }
  });
  steer(stage, (event) => {
    const box = stage.getBoundingClientRect();
    return event.clientX < box.left + box.width / 2 ? 0 : 1;
  });

  // --- the page around it
  const newModel = () => {
    startIndex = 0;
    clearScores();
    restart();
  };
  model.on("change:starts", newModel);
  model.on("change:policy", newModel);

  el.policyopt = {
    state: () => structuredClone({ ...episode, driver, phase, seed: start().seed, scores }),
    choose,
    push,
    step(count = 1) {
      for (let i = 0; i < count && phase !== "ended"; i++) stepOnce();
    },
    restart,
    next: nextStart,
  };
  show();

  return () => {
    clock.stop();
    phase = "paused";
    unmount();
    model.off("change:starts", newModel);
    model.off("change:policy", newModel);
  };
}

export { advance, endReason, forward, observe, randomStream, softmax, startEpisode, stepPhysics };
export default { render };
