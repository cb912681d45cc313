// Training outputs: the groups that a language model writes along its training with GRPO, token by token.
// Everything above "The figure" touches no page: the tests run it in Node.

import {
  attribute, button, buttonGroup, figureBox, h, isShortcut, liveRegion, mount, plain, press, sharpPen, signed, text,
} from "./common.js";

// --- A group, as policyopt computes it ----------------------------------------------------------------------------

const WHOLE = 10000; // the record has probabilities in ten-thousandths
const EPSILON = 1e-4; // added to GRPO's divisor
const MOST = 5; // characters that are listed

const sumOf = (values) => values.reduce((a, b) => a + b, 0);
const meanOf = (values) => sumOf(values) / values.length;

/** With Bessel's correction: the squares are divided by G − 1. */
function deviationOf(rewards) {
  const mean = meanOf(rewards);
  return Math.sqrt(sumOf(rewards.map((reward) => (reward - mean) ** 2)) / (rewards.length - 1));
}

const areEqual = (rewards) => rewards.every((reward) => reward === rewards[0]);

/** The advantage of each output in its group; exactly 0 where all rewards are equal. */
function advantages(rewards) {
  if (areEqual(rewards)) return rewards.map(() => 0);
  const mean = meanOf(rewards);
  const divisor = deviationOf(rewards) + EPSILON;
  return rewards.map((reward) => (reward - mean) / divisor);
}

/** What the group teaches. */
function describe(rewards) {
  const size = rewards.length;
  if (areEqual(rewards)) {
    const kind = { 0: "wrong", 1: "right" }[rewards[0]];
    const first = kind ? `All ${size} outputs are ${kind}` : `All ${size} rewards are equal`;
    return `${first}, so σ is 0 and every advantage is 0: this group has nothing to teach.`;
  }
  const values = advantages(rewards);
  const [up, down] = [Math.max(...values), Math.min(...values)].map((value) => signed(value, 2));
  if (!rewards.every((reward) => reward === 0 || reward === 1)) {
    return `The best outputs get ${up} at each of their tokens, the worst ${down}.`;
  }
  const right = sumOf(rewards);
  const rest = size - right === 1 ? "of the wrong one" : `of the ${size - right} wrong ones`;
  return `${right} of ${size} ${right === 1 ? "is" : "are"} right. Each token of ${right === 1 ? "it" : "these"} ` +
    `gets ${up}, each token ${rest} ${down}.`;
}

// --- A token ------------------------------------------------------------------------------------------------------

/** The probabilities of all next tokens; the record leaves out the zeros at the end. */
const chancesOf = (counts, tokens) => Array.from(tokens, (_, i) => (counts[i] ?? 0) / WHOLE);

const floored = (chance) => Math.max(chance, 1 / WHOLE); // what was written is never impossible, only rounded to it

/** k3 = r − 1 − log r of what was written, with r = π_ref / π_θ. */
function k3Of(now, before) {
  const logRatio = Math.log(floored(before)) - Math.log(floored(now));
  return Math.expm1(logRatio) - logRatio;
}

/** Each token of an output: the state it was written in, and what policy and reference gave it there. */
function readOutput({ output, policy, reference, tokens }) {
  return [...output].map((token, t) => {
    const state = output.slice(0, t);
    const i = tokens.indexOf(token);
    const [now, before] = [policy, reference].map((model) => chancesOf(model[state], tokens)[i]);
    return { token, state, now, before, k3: k3Of(now, before) };
  });
}

/** The probability of a whole output under both: the product over its tokens. */
const outputChances = (read) =>
  ["now", "before"].map((name) => read.reduce((all, one) => all * floored(one[name]), 1));

/** The likeliest characters under either model, the one that was written among them, in the order of the tokens. */
function candidates(now, before, written) {
  const weight = (i) => (i === written ? 2 : Math.max(now[i], before[i]));
  return now.map((_, i) => i).sort((a, b) => weight(b) - weight(a) || a - b).slice(0, MOST).sort((a, b) => a - b);
}

/** A probability in words: exact to the record's last digit only where that is needed. */
function percent(chance) {
  if (chance < 0.00005) return "0 %";
  if (chance < 0.001) return "< 0.1 %";
  return `${chance < 0.0995 || (chance > 0.995 && chance < 0.9995) ? (100 * chance).toFixed(1) :
    Math.round(100 * chance)} %`;
}

/** Two figures of a number of nats, or of a ratio. */
function short(value) {
  if (value < 0.00005) return "0";
  return value < 9.95 ? String(Number(value.toPrecision(2))) : String(Math.round(value));
}

// --- The figure ---------------------------------------------------------------------------------------------------

const CURVE = { left: 30, right: 14, top: 12, bottom: 6, height: 104 };
const STRENGTH = 0.38; // of the colour at an advantage of 2 or more

const CSS = `
:host { --up: #0072b2; --down: #c04f00; --now: #00795a; --before: #767676; }
:host([data-theme="dark"]) { --up: #56b4e9; --down: #ff8b47; --now: #2fd6a5; --before: #a3a9b1; }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.over { text-decoration: overline; }
sub { font-size: .74em; line-height: 0; }
.hint { margin: .5rem 0 .6rem; font-size: .88rem; color: var(--muted); }
.prompts button { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.time .label { display: flex; justify-content: space-between; gap: 1em; font-variant-numeric: tabular-nums; }
.time .label span { font-weight: 400; color: var(--muted); }
.time .stage { margin: 0; }
.time input { display: block; margin: 0 6px 0 22px; width: calc(100% - 28px); }
.moment { display: flex; align-items: center; justify-content: space-between; gap: .6rem; }
.moment p {
  margin: 0; white-space: nowrap; font-size: .95rem; font-weight: 650; font-variant-numeric: tabular-nums;
}
.main {
  display: grid; grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); gap: 1rem 1.8rem; margin-top: .9rem;
  padding-top: .8rem; border-top: 1px solid var(--line);
}
.row, .head {
  display: grid; grid-template-columns: minmax(0, 1fr) 3.4rem 4.6rem; column-gap: .5rem; align-items: center;
}
.head { font-size: .8rem; color: var(--muted); margin-bottom: .25rem; }
.head span:nth-child(n + 2), .row > :nth-child(n + 2) { text-align: right; }
.row { min-height: 42px; font-size: .9rem; font-variant-numeric: tabular-nums; }
.row .value { font-weight: 650; font-size: 1rem; }
.row .value.up { color: var(--up); } .row .value.down { color: var(--down); }
.row .mark { display: inline-block; width: 1.4em; text-align: center; font-weight: 650; }
.tokens { display: flex; gap: 3px; }
.token {
  position: relative; width: 38px; height: 38px; min-height: 38px; padding: 0; border-radius: 6px; overflow: hidden;
  border-color: var(--line); font-size: 1.1rem; font-weight: 650;
}
.token[hidden] { display: none; }
.token::before {
  content: ""; position: absolute; inset: 0; background: var(--ink); opacity: var(--strength);
}
.token::after {
  content: ""; position: absolute; inset: auto 0 0; border-bottom: 4px var(--edge, none) var(--ink);
}
.token.up { --ink: var(--up); --edge: solid; } .token.down { --ink: var(--down); --edge: dotted; }
.token span { position: relative; }
.token[aria-pressed="true"] {
  background: var(--paper); box-shadow: none; outline: 2px solid var(--text); outline-offset: 1px; z-index: 1;
}
.token:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; z-index: 2; }
.facts {
  display: flex; flex-wrap: wrap; gap: 0 1.4em; margin: .5rem 0 0; padding-top: .4rem; font-size: .9rem;
  border-top: 1px solid var(--line); font-variant-numeric: tabular-nums;
}
.facts span { white-space: nowrap; }
.verdict {
  margin: .5rem 0 0; padding-left: .7rem; border-left: 4px solid var(--up); font-size: .9rem; min-height: 4.4em;
}
.verdict.equal { border-color: var(--control); }
.here { margin: 0 0 .5rem; font-size: 1.15rem; white-space: nowrap; }
.here span { color: var(--muted); }
.here b {
  display: inline-block; min-width: 1.5em; text-align: center; border: 2px solid var(--text); border-radius: 5px;
}
.keys { display: flex; flex-wrap: wrap; gap: 0 1.2em; font-size: .8rem; color: var(--muted); margin: 0 0 .2rem; }
.keys i { display: inline-block; width: 1.1em; height: 9px; margin-right: .4em; background: var(--now); }
.keys .reference i { background: none; box-shadow: inset 0 0 0 2px var(--before); }
.chance {
  display: grid; grid-template-columns: 3.1rem minmax(0, 1fr) 3.4rem; column-gap: .5rem; align-items: center;
  height: 34px; font-size: .8rem; line-height: 1.2; font-variant-numeric: tabular-nums;
}
.chance .name { font-size: 1rem; font-weight: 650; white-space: nowrap; }
.chance .name.rest { font-size: .8rem; font-weight: 400; color: var(--muted); }
.chance.written { background: var(--sheet); border-radius: 6px; }
.chance .bars { display: grid; gap: 2px; }
.chance .bars span { height: 11px; background: var(--now); min-width: 1px; }
.chance .bars span + span { background: none; box-shadow: inset 0 0 0 2px var(--before); }
.chance .number span { display: block; }
.chance .number span + span { color: var(--muted); }
.token-facts { margin: .6rem 0 0; font-size: .86rem; font-variant-numeric: tabular-nums; min-height: 8.8em; }
.token-facts p { margin: 0 0 .3rem; }
@media (prefers-reduced-motion: no-preference) { .chance .bars span { transition: width .15s; } }
@container (max-width: 620px) {
  .main { grid-template-columns: minmax(0, 1fr); }
  .prompts { width: 100%; }
  .prompts button { flex: 1; padding: .35rem .2rem; font-size: .86rem; }
  .row, .head { grid-template-columns: minmax(0, 1fr) 2.9rem 4.2rem; column-gap: .55rem; }
  .moment p { font-size: .84rem; }
  .moment button { padding: .35rem .5rem; }
  .verdict { min-height: 4.4em; }
  .token-facts { min-height: 8.4em; }
}
`;

const mean = () => h("span", { class: "over" }, "R");
const sub = (symbol) => h("sub", {}, symbol);

/** The mean reward over the updates, and where the slider stands. */
function drawCurve(canvas, { updates, reward, update }, styles) {
  const { left, right, top, bottom, height } = CURVE;
  const pen = sharpPen(canvas, height);
  const colour = (name) => styles.getPropertyValue(name).trim();
  const inner = canvas.clientWidth - left - right;
  const [first, last] = [updates[0], updates.at(-1)];
  const at = (value) => left + ((value - first) / (last - first)) * inner;
  const up = (value) => height - bottom - value * (height - top - bottom);
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const value of [0, 0.5, 1]) {
    pen.fillStyle = colour("--muted");
    pen.fillText(String(value), left - 7, Math.min(up(value), height - 7));
    pen.fillStyle = colour("--line");
    pen.fillRect(left, up(value) - 0.5, inner, 1);
  }
  pen.strokeStyle = pen.fillStyle = colour("--now");
  pen.lineWidth = 2;
  pen.beginPath();
  reward.forEach((value, k) => {
    if (k >= first && k <= last) pen.lineTo(at(k), up(value));
  });
  pen.stroke();
  pen.fillStyle = colour("--text");
  pen.fillRect(at(update) - 1, 4, 2, height - 4);
  if (reward[update] === undefined) return;
  pen.beginPath();
  pen.arc(at(update), up(reward[update]), 6, 0, 2 * Math.PI);
  pen.fill();
}

function render({ model, el }) {
  let record, promptButtons, rows;
  let prompt = 0;
  let moment = 0; // which snapshot
  let chosen;

  // --- elements
  const prompts = buttonGroup("Prompt", [], "prompts");
  const canvas = h("canvas", { role: "img" });
  const slider = h("input", {
    type: "range", min: 0, step: 1, "aria-label": "updates of training",
    oninput: () => moveTo(Number(slider.value)), onchange: () => announce(),
  });
  const rewardFact = h("span", { "data-fact": "reward" });
  const momentFact = h("p", { "data-fact": "moment" });
  const beforeButton = button("before", () => jump(0));
  const afterButton = button("after", () => jump(record.updates.length - 1));
  const askedFact = h("span", { "data-fact": "asked" });
  const group = h("div", { role: "group", "aria-label": "Outputs of the group" });
  const statistics = { mean: h("span", { "data-fact": "mean" }), deviation: h("span", { "data-fact": "deviation" }) };
  const verdict = h("p", { class: "verdict" });
  const here = h("p", { class: "here mono", "data-fact": "here" });
  const chances = h("div", {});
  const facts = Object.fromEntries(["ratio", "share", "whole"].map((name) =>
    [name, h("p", { "data-fact": name })]));
  const announcer = liveRegion();
  const chanceRows = Array.from({ length: MOST + 1 }, (_, i) => {
    const name = h("span", { class: i === MOST ? "name rest" : "name mono" });
    const bars = [h("span"), h("span")];
    const numbers = [h("span"), h("span")];
    const row = h("div", { class: "chance", "data-chance": i }, name,
      h("div", { class: "bars", "aria-hidden": "true" }, ...bars), h("div", { class: "number" }, ...numbers));
    return { row, name, bars, numbers };
  });
  chances.append(...chanceRows.map(({ row }) => row));

  const figure = figureBox("Training outputs", prompts,
    h("p", { class: "hint" },
      "A small transformer learns to add. Move along its training, and look at what it writes for a sum that it " +
      "never trained on. Then tap a character: what else might have stood there?"),
    h("div", { class: "time" },
      h("p", { class: "label" }, "Mean reward in training", rewardFact),
      h("div", { class: "stage" }, canvas),
      slider,
      h("div", { class: "moment" }, beforeButton, momentFact, afterButton)),
    h("div", { class: "main" },
      h("div", {},
        h("p", { class: "label" }, askedFact),
        h("div", { class: "head", "aria-hidden": "true" },
          h("span", {}, "output, ⏎ is its end"), h("span", {}, "reward"), h("span", {}, "advantage")),
        group,
        h("p", { class: "facts" },
          h("span", {}, "mean ", mean(), " = ", statistics.mean),
          h("span", {}, "standard deviation σ", sub("R"), " = ", statistics.deviation)),
        verdict),
      h("div", {},
        h("p", { class: "label" }, "The next character here"),
        here,
        h("p", { class: "keys" },
          h("span", {}, h("i"), "policy now, π", sub("θ")),
          h("span", { class: "reference" }, h("i"), "reference, π", sub("ref"))),
        chances,
        h("div", { class: "token-facts" }, ...Object.values(facts)))),
    announcer,
  );
  const unmount = mount(el, CSS, figure, paint);

  // --- what happens
  const current = () => record.prompts[prompt].groups[moment];

  function take() {
    record = model.get("record");
    prompt = model.get("prompt");
    moment = record.updates.indexOf(model.get("update"));
    promptButtons = record.prompts.map((one, i) => button(one.prompt, () => choosePrompt(i), { "data-prompt": i }));
    prompts.replaceChildren(...promptButtons);
    slider.max = record.updates.length - 1;
    const all = record.prompts.flatMap(({ groups }) => groups.map(({ outputs }) => outputs));
    const longest = (texts) => Math.max(...texts.map((one) => one.length));
    rows = Array.from({ length: longest(all) }, (_, i) => makeRow(i, longest(all.flat())));
    group.replaceChildren(...rows.map(({ row }) => row));
    chosen = { output: 0, token: 1 };
    show();
  }

  function makeRow(i, length) {
    const tokens = Array.from({ length }, (_, t) => {
      const token = button("", () => select(i, t), { class: "token mono", onkeydown: (event) => keyOnToken(event) });
      token.replaceChildren(h("span"));
      return token;
    });
    const [reward, value] = [h("span", { "data-reward": i }), h("span", { class: "value", "data-advantage": i })];
    const row = h("div", { class: "row", role: "group", "aria-label": `output ${i + 1}` },
      h("div", { class: "tokens" }, ...tokens), reward, value);
    return { row, tokens, reward, value };
  }

  function moveTo(index) {
    moment = index;
    show();
  }

  function jump(index) {
    moveTo(index);
    announce();
  }

  function go(update) {
    const index = record.updates.indexOf(update);
    if (index < 0) throw new RangeError(`update is ${update}; there are ${record.updates.join(", ")}`);
    jump(index);
  }

  function choosePrompt(i) {
    if (!record.prompts[i]) throw new RangeError(`prompt is ${i}; it must be 0 to ${record.prompts.length - 1}`);
    prompt = i;
    show();
    announce();
  }

  function select(output, token) {
    const written = current().outputs[output];
    if (!written?.[token]) throw new RangeError(`There is no token ${token} of output ${output} here.`);
    chosen = { output, token };
    show();
    const { now, before } = read()[token];
    announcer.textContent = `Character ${written[token]}: ${percent(now)} now, reference ${percent(before)}.`;
  }

  function announce() {
    announcer.textContent = `${momentFact.textContent}: ${describe(current().rewards)}`;
  }

  const read = (output = current().outputs[chosen.output]) => readOutput({
    output, policy: current().policy, reference: record.prompts[prompt].reference, tokens: record.tokens,
  });

  // --- showing it
  function show() {
    const { outputs, rewards } = current();
    const values = advantages(rewards);
    const update = record.updates[moment];
    const last = record.updates.at(-1);
    chosen.output = Math.min(chosen.output, outputs.length - 1);
    chosen.token = Math.min(chosen.token, outputs[chosen.output].length - 1);

    press(promptButtons, "prompt", prompt);
    if (Number(slider.value) !== moment) slider.value = moment;
    attribute(slider, "aria-valuetext", `after ${update} of ${last} updates`);
    text(momentFact, update === 0 ? "before the first update" : `after ${update} of ${last} updates`);
    const reward = record.reward[update];
    text(rewardFact, reward === undefined ? "" : `here ${reward.toFixed(2)}`);
    attribute(beforeButton, "aria-disabled", moment === 0);
    attribute(afterButton, "aria-disabled", moment === record.updates.length - 1);

    const { prompt: asked, answer } = record.prompts[prompt];
    text(askedFact, `${outputs.length} outputs for ${asked} (right: ${answer})`);
    rows.forEach((parts, i) => showRow(parts, i, outputs[i], rewards[i], values[i]));
    text(statistics.mean, plain(meanOf(rewards)));
    text(statistics.deviation, plain(deviationOf(rewards)));
    text(verdict, describe(rewards));
    verdict.classList.toggle("equal", areEqual(rewards));
    showToken();
    attribute(canvas, "aria-label", `Mean reward over ${last} updates: ${record.reward.length === 0 ? "not recorded" :
      `from ${record.reward[0].toFixed(2)} to ${record.reward.at(-1).toFixed(2)}`}.`);
    paint();
  }

  function showRow({ row, tokens, reward, value }, i, output, given, advantage) {
    row.hidden = output === undefined;
    if (row.hidden) return;
    const way = advantage > 0 ? "up" : advantage < 0 ? "down" : "";
    const shown = advantage === 0 ? "0" : signed(advantage, 2);
    tokens.forEach((token, t) => {
      token.hidden = t >= output.length;
      if (token.hidden) return;
      const isChosen = i === chosen.output && t === chosen.token;
      text(token.firstChild, output[t]);
      token.className = `token mono ${way}`.trim();
      token.style.setProperty("--strength", STRENGTH * Math.min(1, Math.abs(advantage) / 2));
      attribute(token, "aria-pressed", isChosen);
      attribute(token, "tabindex", isChosen ? 0 : -1);
      attribute(token, "aria-label",
        `output ${i + 1}, character ${t + 1}: ${output[t] === "⏎" ? "end" : output[t]}, advantage ${shown}`);
    });
    const mark = { 0: "✗", 1: "✓" }[given] ?? "";
    const points = plain(given, given % 1 ? 2 : 0);
    reward.replaceChildren(h("span", { class: "mark", "aria-hidden": "true" }, mark), points);
    text(value, shown);
    value.className = `value ${way}`.trim();
  }

  function showToken() {
    const { outputs, policy } = current();
    const { prompt: asked, reference } = record.prompts[prompt];
    const output = outputs[chosen.output];
    const whole = read();
    const { token, state, now, before, k3 } = whole[chosen.token];
    here.replaceChildren(h("span", {}, asked + state), h("b", {}, token));
    const [ours, theirs] = [policy, reference].map((one) => chancesOf(one[state], record.tokens));
    const written = record.tokens.indexOf(token);
    const listed = candidates(ours, theirs, written);
    chanceRows.forEach(({ row, name, bars, numbers }, k) => {
      const rest = k === MOST;
      row.hidden = !rest && k >= listed.length;
      if (row.hidden) return;
      row.classList.toggle("written", !rest && listed[k] === written);
      text(name, rest ? "others" : record.tokens[listed[k]] + (listed[k] === written ? " ◂" : ""));
      [ours, theirs].forEach((all, which) => {
        const chance = rest ? Math.max(0, 1 - sumOf(listed.map((i) => all[i]))) : all[listed[k]];
        bars[which].style.width = `${100 * Math.min(1, chance)}%`;
        text(numbers[which], percent(chance < 0.0003 && rest ? 0 : chance)); // what rounding leaves over
      });
    });
    const total = sumOf(whole.map((one) => one.k3));
    facts.ratio.replaceChildren(`${token} was written (◂). For it r = π`, sub("ref"), " / π", sub("θ"),
      ` ≈ ${short(floored(before) / floored(now))},`);
    text(facts.share, `k₃ = r − 1 − log r ≈ ${short(k3)} nats` +
      (total < 0.00005 ? "." : `: ${percent(k3 / total)} of the sum over its output.`));
    const [likely, once] = outputChances(whole);
    text(facts.whole, `The whole output ${output}: ${percent(likely)} now, reference ${percent(once)}.`);
  }

  function paint() {
    if (canvas.clientWidth === 0) return; // not laid out: in a closed tab or a page being built
    drawCurve(canvas, { updates: record.updates, reward: record.reward, update: record.updates[moment] },
      getComputedStyle(figure));
  }

  // --- keys
  figure.addEventListener("keydown", (event) => {
    if (/^(Arrow|Home|End|Page)/.test(event.key)) event.stopPropagation(); // else a page may turn
  });
  function keyOnToken(event) {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!by || isShortcut(event)) return;
    event.preventDefault();
    const { outputs } = current();
    const output = Math.max(0, Math.min(outputs.length - 1, chosen.output + by[0]));
    const token = Math.max(0, Math.min(outputs[output].length - 1, chosen.token + by[1]));
    select(output, token);
    rows[output].tokens[token].focus();
  }

  // --- the page around it
  const followed = {
    record: take, prompt: () => choosePrompt(model.get("prompt")), update: () => go(model.get("update")),
  };
  for (const [name, follow] of Object.entries(followed)) model.on(`change:${name}`, follow);

  el.policyopt = {
    state: () => structuredClone({
      update: record.updates[moment], prompt, asked: record.prompts[prompt].prompt, chosen, ...current(),
      mean: meanOf(current().rewards), deviation: deviationOf(current().rewards),
      advantages: advantages(current().rewards), read: read(), whole: outputChances(read()),
      sentence: describe(current().rewards),
    }),
    go, prompt: choosePrompt, select,
  };
  take();

  return () => {
    unmount();
    for (const [name, follow] of Object.entries(followed)) model.off(`change:${name}`, follow);
  };
}

export {
  advantages, candidates, chancesOf, describe, deviationOf, k3Of, outputChances, percent, readOutput, short,
};
export default { render };
