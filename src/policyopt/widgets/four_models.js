// Four models: one update of a language model by PPO or GRPO, step by step, with the numbers of one prompt, and the
// memory that the models keep. Everything above "The figure" touches no page: the tests run it in Node.

import {
  attribute, button, buttonGroup, figureBox, h, isShortcut, known, liveRegion, mount, plain, press, signed, text,
} from "./common.js";

// --- One prompt, four outputs -----------------------------------------------------------------------------------

const PROMPT = "23+58=";
const END = "end"; // the token that ends an output
const OUTPUTS = ["81", "71", "82", "8"].map((written) => [...written, END]);
/** log π(token | prompt and what is written so far), by what is written and token; other tokens share the rest. */
const POLICY = {
  "": { 8: -0.36, 7: -1.39 }, "8": { 1: -0.51, 2: -1.61, [END]: -3 }, "7": { 1: -0.6 },
  "81": { [END]: -0.05 }, "71": { [END]: -0.06 }, "82": { [END]: -0.07 },
};
const REFERENCE = {
  "": { 8: -0.51, 7: -1.05 }, "8": { 1: -0.69, 2: -1.45, [END]: -2.66 }, "7": { 1: -0.73 },
  "81": { [END]: -0.09 }, "71": { [END]: -0.05 }, "82": { [END]: -0.11 },
};
const VALUES = { "": 0.4, "8": 0.55, "7": 0.1, "81": 0.9, "71": 0.05, "82": 0.15 }; // V, by what is written
const [GAMMA, LAMBDA, CLIP, RATE] = [1, 0.95, 0.2, 4]; // γ, λ, ε, and α of the gradient step

const sumOf = (numbers) => numbers.reduce((a, b) => a + b, 0);
const meanOf = (numbers) => sumOf(numbers) / numbers.length;
const writtenBefore = (tokens, t) => tokens.slice(0, t).join("");
/** f(output i, step t) for every token of every output. */
const forTokens = (f) => OUTPUTS.map((tokens, i) => tokens.map((_, t) => f(i, t)));
/** What a table says of every token, by what was written before it. */
const read = (table) => forTokens((i, t) => table[writtenBefore(OUTPUTS[i], t)][OUTPUTS[i][t]]);

// --- The formulas of policyopt, on outputs of different length --------------------------------------------------

/** r_t: what each token pays for its drift, and R for the last: policyopt.language.ppo.token_rewards. */
function tokenRewards(rewards, logProbs, referenceLogProbs, beta) {
  return logProbs.map((row, i) => row.map((logProb, t) =>
    (t === row.length - 1 ? rewards[i] : 0) - beta * (logProb - referenceLogProbs[i][t])));
}

/** δ_t and Â_t of the tokens; nothing follows the last: policyopt.language.ppo.token_advantages. */
function tokenAdvantages(rewards, values, gamma, lambda) {
  const deltas = rewards.map((row, i) =>
    row.map((reward, t) => reward + gamma * (values[i][t + 1] ?? 0) - values[i][t]));
  const advantages = deltas.map((row) => {
    const sums = [];
    row.toReversed().forEach((delta) => sums.unshift(delta + gamma * lambda * (sums[0] ?? 0)));
    return sums;
  });
  return { deltas, advantages };
}

/** R̄, σ_R and Â_i of a group; exactly 0 where all are equal: policyopt.returns.group_relative_advantages. */
function groupAdvantages(rewards) {
  const mean = meanOf(rewards);
  const deviation = Math.sqrt(sumOf(rewards.map((reward) => (reward - mean) ** 2)) / (rewards.length - 1));
  const equal = Math.min(...rewards) === Math.max(...rewards);
  return { mean, deviation, advantages: rewards.map((reward) => (equal ? 0 : (reward - mean) / (deviation + 1e-4))) };
}

/** policyopt.losses.clipped_surrogate */
const clippedSurrogate = (ratio, advantage, clip) =>
  Math.min(ratio * advantage, Math.min(Math.max(ratio, 1 - clip), 1 + clip) * advantage);

/** policyopt.losses.kl_k3 */
const klK3 = (logRatio) => Math.expm1(logRatio) - logRatio;

/**
 * A step of gradient ascent on the logits of a policy that is a table: `gradients` are those of the objective in
 * every token's log-probability.
 */
function stepOf(table, gradients, rate) {
  return Object.fromEntries(Object.entries(table).map(([written, logProbs]) => {
    const names = Object.keys(logProbs);
    const logits = Object.values(logProbs);
    const probabilities = logits.map(Math.exp);
    const pushes = names.map(() => 0);
    OUTPUTS.forEach((tokens, i) => tokens.forEach((token, t) => {
      if (writtenBefore(tokens, t) !== written) return;
      names.forEach((name, k) => (pushes[k] += gradients[i][t] * (Number(name === token) - probabilities[k])));
    }));
    const rest = 1 - sumOf(probabilities); // all other tokens as one: the pushes sum to 0
    const moved = [...logits.map((logit, k) => logit + rate * pushes[k]), Math.log(rest) - rate * sumOf(pushes)];
    const total = Math.log(sumOf(moved.map(Math.exp)));
    return [written, Object.fromEntries(names.map((name, k) => [name, moved[k] - total]))];
  }));
}

/** All numbers of the update: of tokens by output and step, of outputs by output. */
function compute({ algorithm, beta, rewards }) {
  const ppo = algorithm === "ppo";
  const [logProbs, referenceLogProbs, values] =
    [read(POLICY), read(REFERENCE), forTokens((i, t) => VALUES[writtenBefore(OUTPUTS[i], t)])];
  const earned = tokenRewards(rewards, logProbs, referenceLogProbs, beta);
  const gae = tokenAdvantages(earned, values, GAMMA, LAMBDA);
  const group = groupAdvantages(rewards);
  const advantages = ppo ? gae.advantages : forTokens((i) => group.advantages[i]);
  const logRatios = forTokens((i, t) => referenceLogProbs[i][t] - logProbs[i][t]);
  const counts = OUTPUTS.map((tokens) => tokens.length);
  const weights = forTokens((i) => 1 / (ppo ? sumOf(counts) : counts[i] * counts.length));
  const average = (terms) => sumOf(forTokens((i, t) => weights[i][t] * terms[i][t]).flat());

  // the loss, which is minimised, of the first pass: π_θ is still π_old
  const penalties = forTokens((i, t) => (ppo ? 0 : beta * klK3(logRatios[i][t])));
  const valueErrors = forTokens((i, t) => (ppo ? gae.advantages[i][t] ** 2 : 0)); // (V − target)², target = Â + V
  const losses = forTokens((i, t) =>
    penalties[i][t] + valueErrors[i][t] - clippedSurrogate(1, advantages[i][t], CLIP));

  const gradients = forTokens((i, t) => // of the objective in log π_θ, at ρ = 1
    weights[i][t] * (advantages[i][t] + (ppo ? 0 : beta * Math.expm1(logRatios[i][t]))));
  const moved = read(stepOf(POLICY, gradients, RATE));
  const ratios = forTokens((i, t) => Math.exp(moved[i][t] - logProbs[i][t]));
  const surrogates = forTokens((i, t) => clippedSurrogate(ratios[i][t], advantages[i][t], CLIP));
  const probability = (rows) => rows.map((row) => Math.exp(sumOf(row)));
  return {
    logProbs, referenceLogProbs, values: ppo ? values : null, earned: ppo ? earned : null,
    deltas: ppo ? gae.deltas : null, targets: ppo ? forTokens((i, t) => advantages[i][t] + values[i][t]) : null,
    group: ppo ? null : group, advantages, weights, losses,
    drifts: logRatios.map((row) => -sumOf(row)),
    loss: average(losses), policyLoss: -average(forTokens((i, t) => clippedSurrogate(1, advantages[i][t], CLIP))),
    valueLoss: average(valueErrors), penalty: average(penalties),
    moved, ratios, surrogates, held: forTokens((i, t) => surrogates[i][t] < ratios[i][t] * advantages[i][t]),
    before: probability(logProbs), after: probability(moved),
  };
}

// --- Memory: as policyopt.language.cost reckons it, or as it was measured ---------------------------------------

const PARTS = ["policy", "value model", "reference", "reward model", "activations"];
const TRAINED = 16; // bytes a parameter: weight, gradient and Adam's two moments in float32

/** Bytes by part and algorithm, their totals, and the share that GRPO saves. */
function memoryOf({ parameters, bars, reference, learned, frozenBytes }) {
  const both = [frozenBytes, frozenBytes];
  const reckoned =
    { "policy": [TRAINED, TRAINED], "value model": [TRAINED, 0], "reference": both, "reward model": both };
  const all = bars ?? Object.entries(reckoned).map(([part, [ppo, grpo]]) =>
    ({ part, ppo: ppo * parameters, grpo: grpo * parameters }));
  const there = { "reference": reference, "reward model": learned };
  const parts = PARTS.flatMap((name) => all.filter(({ part }) => part === name && (there[name] ?? true)));
  const [ppo, grpo] = ["ppo", "grpo"].map((name) => sumOf(parts.map((bar) => bar[name])));
  return { parts, ppo, grpo, saved: ppo ? 1 - grpo / ppo : 0 };
}

/** Three digits with a decimal unit: "112 GB". */
function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (power < units.length - 1 && Number((count / 1000 ** power).toPrecision(3)) >= 1000) power += 1;
  return `${Number((count / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

// --- The way of the data ----------------------------------------------------------------------------------------

/**
 * Boxes and arrows in a drawing of the given width, in pixels: rows from top to bottom, three columns, and a lane at
 * either side, for log π_old on its way down and for the gradients on theirs up.
 */
function layout(width, { algorithm, beta }) {
  const ppo = algorithm === "ppo";
  const [lane, gap] = [24, 8];
  const column = (width - 2 * lane - 2 * gap) / 3;
  const x = (k) => lane + k * (column + gap);
  const over = (k, count) => [x(k), count * column + (count - 1) * gap]; // where columns begin, and how wide they are
  const rows = { prompts: [0, 44], outputs: [66, 32], models: [120, 66], read: [206, 30], third: [258, 46] };
  rows.fourth = [326, 46];
  rows.loss = [394, 46];
  const box = (row, [left, wide]) => ({ x: left, y: rows[row][0], w: wide, h: rows[row][1] });
  const boxes = {
    prompts: box("prompts", [0, lane + column - 14]), // and a longer arrow
    policy: box("prompts", over(1, 2)),
    outputs: box("outputs", [0, x(2) + column]),
    reference: box("models", over(0, 1)),
    reward: box("models", over(1, 1)),
    value: box("models", over(2, 1)),
    ...(beta > 0 ? { referenceLogProbs: box("read", over(0, 1)) } : {}),
    rewards: box("read", over(1, 1)),
    ...(ppo ? { values: box("read", over(2, 1)), tokenRewards: box("third", over(0, 2)) } :
      { statistics: box("third", over(1, 2)) }),
    advantages: box("fourth", ppo ? over(0, 3) : over(1, 2)),
    loss: box("loss", over(0, 3)),
  };
  const middle = ({ x: left, w }) => left + w / 2;
  const height = ({ y, h: high }) => y + high / 2;
  const drop = (from, to, at) => [[at, boxes[from].y + boxes[from].h], [at, boxes[to].y]];
  const straight = (from, to, at = middle(boxes[from])) => [from, to, drop(from, to, at)];
  const down = (to) =>
    [[6, rows.outputs[0] + rows.outputs[1]], [6, height(boxes[to])], [boxes[to].x, height(boxes[to])]];
  const up = (to) => {
    const [edge, end] = [width - 6, boxes[to].x + boxes[to].w];
    return [[x(2) + column, height(boxes.loss)], [edge, height(boxes.loss)], [edge, height(boxes[to])],
      [end, height(boxes[to])]];
  };
  const routes = [
    ["prompts", "policy", [[boxes.prompts.w, height(boxes.prompts)], [x(1), height(boxes.policy)]]],
    straight("policy", "outputs"),
    ...(beta > 0 ? [
      straight("outputs", "reference", middle(boxes.reference)),
      straight("reference", "referenceLogProbs"),
    ] : []),
    straight("outputs", "reward", middle(boxes.reward)),
    straight("reward", "rewards"),
    ...(ppo ? [
      straight("outputs", "value", middle(boxes.value)),
      straight("value", "values"),
      ...(beta > 0 ? [
        straight("referenceLogProbs", "tokenRewards"),
        ["outputs", "tokenRewards", down("tokenRewards")],
      ] : []),
      straight("rewards", "tokenRewards"),
      straight("tokenRewards", "advantages"),
      straight("values", "advantages"),
    ] : [
      straight("rewards", "statistics"),
      straight("statistics", "advantages"),
      ...(beta > 0 ? [straight("referenceLogProbs", "loss")] : []),
    ]),
    straight("advantages", "loss"),
    ["outputs", "loss", down("loss")],
    ["loss", "policy", up("policy")],
    ...(ppo ? [["loss", "value", up("value")]] : []),
  ];
  return {
    height: rows.loss[0] + rows.loss[1] + 2,
    boxes,
    arrows: routes.map(([from, to, points]) => ({ from, to, points })),
  };
}

/** The steps of an update by name, with the boxes in use and the arrows, "from-to". */
const STEPS = {
  ppo: {
    prompts: [["prompts"], []],
    outputs: [["policy", "outputs"], ["prompts-policy", "policy-outputs"]],
    reference: [["reference", "referenceLogProbs"], ["outputs-reference", "reference-referenceLogProbs"]],
    rewards: [["reward", "rewards"], ["outputs-reward", "reward-rewards"]],
    values: [["value", "values"], ["outputs-value", "value-values"]],
    tokenRewards:
      [["tokenRewards"], ["referenceLogProbs-tokenRewards", "rewards-tokenRewards", "outputs-tokenRewards"]],
    advantages: [["advantages"], ["tokenRewards-advantages", "values-advantages"]],
    loss: [["policy", "value", "loss"], ["advantages-loss", "outputs-loss"]],
    update: [["policy", "value"], ["loss-policy", "loss-value"]],
  },
};
STEPS.grpo = {
  ...Object.fromEntries(["prompts", "outputs", "reference", "rewards"].map((name) => [name, STEPS.ppo[name]])),
  statistics: [["statistics"], ["rewards-statistics"]],
  advantages: [["advantages"], ["statistics-advantages"]],
  loss: [["policy", "loss"], ["advantages-loss", "outputs-loss", "referenceLogProbs-loss"]],
  update: [["policy"], ["loss-policy"]],
};
/** Where a step of the one algorithm is not one of the other. */
const INSTEAD = { values: "statistics", tokenRewards: "statistics", statistics: "values" };

/** Of a step: its name, one sentence, and what flows: its symbol, words for it, its shape, and the shape here. */
function describe(name, { algorithm, beta, learned }) {
  const ppo = algorithm === "ppo";
  const perToken = ["Q × G × T", "1 × 4 × 3"];
  const perOutput = ["Q × G", "1 × 4"];
  const none = beta === 0;
  const reread = "The policy reads the outputs again, for the ratio ρ = π_θ / π_old, which is 1 in this first pass. ";
  return {
    prompts: {
      title: "Prompts",
      words: "An update begins with Q prompts from the data. We follow one of them.",
      flow: ["q", "prompts of P tokens", "Q × P", "1 × 6"],
    },
    outputs: {
      title: "The policy writes",
      words: "The policy writes G outputs for each prompt, of at most T tokens, and keeps their probabilities. " +
        (ppo ? "PPO does not compare them: G = 1 would do." : "GRPO compares them: G must be 2 or more."),
      flow: ["log π_old", "log-probability of each token", ...perToken],
    },
    reference: {
      title: "The reference reads",
      words: none ?
        "Nothing to do: with β = 0 no drift is paid for, and no reference need be in memory." :
        "The frozen reference, the policy as it was before training, reads the outputs: how probable is each token " +
        "to it?",
      flow: ["log π_ref", "log-probability of each token", ...(none ? ["none", "0"] : perToken)],
    },
    rewards: {
      title: learned ? "The reward model judges" : "The checker judges",
      words: learned ?
        "The frozen reward model reads each output as a whole and gives it one number, here 1 or 0." :
        "A program checks each output as a whole: 1 for the right sum, otherwise 0. It has no parameters.",
      flow: ["R_i", "reward of each output", ...perOutput],
    },
    values: {
      title: "The value model foresees",
      words: "The value model reads along and says, before each token, what reward is still to come.",
      flow: ["V_φ(s_t)", "value before each token", ...perToken],
    },
    tokenRewards: {
      title: "Rewards of the tokens",
      words: none ?
        "With β = 0 no token pays anything, and the last one earns the output's reward R." :
        "Each token pays β times its drift, log π_old − log π_ref, and is paid where that is negative. " +
        "The last token also earns R.",
      flow: ["r_t", "reward of each token", ...perToken],
    },
    statistics: {
      title: "The group's statistics",
      words: "There is no value model: the group itself says what to expect of its prompt, by the mean and the " +
        "spread of its rewards.",
      flow: ["R̄, σ_R", "mean and standard deviation", "Q", "1"],
    },
    advantages: {
      title: "Advantages",
      words: ppo ?
        "GAE works back from the last token: did it go better or worse than the value model foresaw? Every token " +
        "has an advantage of its own." :
        "Each output is compared with its group, and all its tokens get the same advantage.",
      flow: ppo ? ["Â_t", "advantage of each token", ...perToken] : ["Â_i", "advantage of each output", ...perOutput],
    },
    loss: {
      title: "Loss",
      words: reread + (ppo ?
        "So does the value model: its squared error is added, with the target Â + V." :
        none ? "With β = 0 nothing else is in the loss." : "Drift is paid for here, by β k₃, not in the reward."),
      flow: ["loss", "over all tokens", "one number", ""],
    },
    update: {
      title: "Update",
      words: `A gradient step: ${ppo ? "the policy and the value model learn" : "only the policy learns"}. ` +
        "In the next pass ρ is no longer 1, and where it has gone far enough, the clip holds it.",
      flow: [ppo ? "θ, φ" : "θ", "all parameters that learn", ppo ? "|θ| + |φ|" : "|θ|", ""],
    },
  }[name];
}

const two = (value) => plain(value, 2);
const three = (value) => plain(value, 3);
const advantage = (value) => (value === 0 ? "0" : signed(value, 3));
/** In brackets where a minus stands before it. */
const inner = (value, digits = 2) => plain(value, digits).replace(/^−.*/, "($&)");
const digit = (k) => "₀₁₂₃₄"[k];

/**
 * Of a step: what stands in each token's cell and beside each output, the symbols of both, which cells are marked,
 * and the working for one output, line by line.
 */
function numbersOf(name, now, i) {
  const all = compute(now);
  const { beta, rewards } = now;
  const o = `o${digit(i + 1)}`;
  const last = OUTPUTS[i].length - 1;
  const [logProbs, reference] = [all.logProbs[i], all.referenceLogProbs[i]];
  const cells = (rows, write = three) => rows.map((row) => row.map(write));
  const empty = { tokens: "", cells: forTokens(() => ""), side: "", sides: OUTPUTS.map(() => "") };
  const earned = { ...empty, side: "R_i", sides: rewards.map(String) };
  switch (name) {
    case "prompts":
      return { ...empty, lines: [`q = “${PROMPT}”`, "its tokens: 2, 3, +, 5, 8, ="] };
    case "outputs":
      return {
        tokens: "log π_old", cells: cells(all.logProbs, two), side: "π_old", sides: all.before.map(two),
        lines: ["log of an output: the sum of its tokens'",
          `${logProbs.map(two).join(" ").replaceAll(" −", " − ")} = ${two(sumOf(logProbs))}`,
          `π_old(${o} | q) = exp(${two(sumOf(logProbs))}) = ${two(all.before[i])}`],
      };
    case "reference":
      if (beta === 0) return { ...empty, lines: ["β = 0: not needed"] };
      return {
        tokens: "log π_ref", cells: cells(all.referenceLogProbs, two), side: "drift", sides: all.drifts.map(two),
        lines: ["drift: the sum of log π_old − log π_ref",
          `${two(sumOf(logProbs))} − (${two(sumOf(reference))}) = ${signed(all.drifts[i], 2)} nats`,
          `π_old writes it ${all.drifts[i] > 0 ? "more" : "less"} often than π_ref`],
      };
    case "rewards":
      return {
        ...earned, lines: [`R${digit(i + 1)} = ${rewards[i]}: ${o} counts as ${rewards[i] ? "right" : "wrong"}`],
      };
    case "values":
      return {
        ...earned, tokens: "V_φ(s_t)", cells: cells(all.values, two),
        lines: all.values[i].map((value, t) =>
          `V(s${digit(t)}) = ${two(value)}, after “${PROMPT}${writtenBefore(OUTPUTS[i], t)}”`),
      };
    case "tokenRewards": {
      const paid = logProbs.map((value, t) => {
        const start = t === last ? `${rewards[i]} − ` : "−";
        return `r${digit(t)} = ${start}${two(beta)} · ${inner(value - reference[t])} = ${three(all.earned[i][t])}`;
      });
      return {
        ...earned, tokens: "r_t", cells: cells(all.earned),
        lines: beta === 0 ? [`r${digit(last)} = R${digit(i + 1)} = ${rewards[i]}, the others 0`] :
          ["r_t = −β · drift, and R at the end", ...paid],
      };
    }
    case "statistics": {
      const { mean, deviation } = all.group;
      return {
        ...earned,
        lines: [`R̄ = (${rewards.join(" + ")}) / 4 = ${two(mean)}`, "σ_R² = sum of (R_i − R̄)² / (4 − 1)",
          `σ_R = ${three(deviation)}`],
      };
    }
    case "advantages": {
      if (now.algorithm === "ppo") {
        const [deltas, gae] = [all.deltas[i], all.advantages[i]];
        const working = gae.map((value, t) => `Â${digit(t)} = ${three(deltas[t])}` +
          (t === last ? "" : ` + ${LAMBDA} · ${inner(gae[t + 1], 3)} = ${three(value)}`));
        return {
          ...earned, tokens: "Â_t", cells: cells(all.advantages, advantage),
          lines: ["δ_t = r_t + V(s_{t+1}) − V(s_t)", `Â_t = δ_t + ${LAMBDA} · Â_{t+1}, from the last back:`,
            ...working.reverse()],
        };
      }
      const { mean, deviation, advantages } = all.group;
      const value = `(${rewards[i]} − ${two(mean)}) / ${(deviation + 1e-4).toFixed(4)} = ${advantage(advantages[i])}`;
      return {
        ...earned, tokens: "Â_i", cells: cells(all.advantages, advantage),
        lines: ["Â_i = (R_i − R̄) / (σ_R + 0.0001)",
          `Â${digit(i + 1)} = ${deviation === 0 ? "0, as all rewards are equal" : value}`],
      };
    }
    case "loss":
      return now.algorithm === "ppo" ? {
        ...earned, tokens: "−Â_t + (target − V)²", cells: cells(all.losses),
        lines: ["means over the 11 tokens:", `−ρÂ: ${three(all.policyLoss)}, (target − V)²: ${three(all.valueLoss)}`,
          `loss = ${three(all.loss)}`],
      } : {
        ...earned, tokens: beta === 0 ? "−Â_i" : "−Â_i + β k₃", cells: cells(all.losses),
        lines: ["means over tokens, then over outputs:",
          `−ρÂ: ${three(all.policyLoss)}${beta === 0 ? "" : `, β k₃: ${plain(all.penalty, 4)}`}`,
          `loss = ${plain(all.loss, 4)}`, "Advantages sum to 0, their gradients do not."],
      };
    default: // the update
      return {
        tokens: "ρ_t", cells: cells(all.ratios), side: "π_θ", sides: all.after.map(two), marks: all.held,
        lines: [`π_old(${o} | q) = ${two(all.before[i])} → π_θ(${o} | q) = ${two(all.after[i])}`,
          "✕: beyond 1 ± 0.2, the clip holds it", "the policy is a table here, α = 4"],
      };
  }
}

// --- The figure -------------------------------------------------------------------------------------------------

const NAMES = { ppo: "PPO", grpo: "GRPO" };
const BETA = [0, 0.5, 0.01];
const SIZES = { "30 million": 3e7, "500 million": 5e8, "1.5 billion": 1.5e9, "7 billion": 7e9, "70 billion": 7e10 };
const FROZEN = { 4: "float32, 4 bytes", 2: "half, 2 bytes" };
const TIME = 0.5; // seconds in which the arrows of a step grow

const CSS = `
:host {
  --tint: #e3effa; --policy: #9cc3e4; --value: #f0b98d; --reference: #b9c2cc; --reward: #8fcdb6; --act: #e6bdd3;
}
:host([data-theme="dark"]) {
  --tint: #1d3448; --policy: #2f6390; --value: #95521f; --reference: #56616e; --reward: #1f6b54; --act: #7d4a66;
}
sub { font-size: .76em; line-height: 0; }
.hint { margin: .5rem 0 0; font-size: .88rem; color: var(--muted); }
.main {
  display: grid; gap: .7rem 1.4rem; margin-top: .8rem;
  grid-template: "flow nav" auto "flow list" 1fr "words words" auto / minmax(0, 1.45fr) minmax(0, 1fr);
}
.flow { grid-area: flow; position: relative; }
.flow svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.flow .side {
  position: absolute; font-size: 12px; line-height: 14px; color: var(--muted); writing-mode: vertical-rl;
  transform: rotate(180deg);
}
.arrow { fill: none; stroke: var(--control); stroke-width: 1.25; }
.head { fill: var(--control); }
.done.arrow { stroke: var(--text); } .done.head { fill: var(--text); }
.now.arrow { stroke: var(--blue); stroke-width: 4; } .now.head { fill: var(--blue); }
.box {
  position: absolute; display: flex; flex-direction: column; align-items: center; justify-content: center;
  padding: 0 2px; border: 1px solid var(--control); border-radius: 4px; background: var(--paper); text-align: center;
  font-size: 13px; line-height: 16px; color: var(--muted); cursor: pointer; font-variant-numeric: tabular-nums;
}
.box b { font-weight: 600; }
.box small { font-size: 12px; line-height: 15px; }
.box.data { border-radius: 16px; }
.box.model { border-width: 1.5px; border-radius: 8px; }
.box.learns { border-width: 4px; }
.box.tall b { width: min-content; }
.box.absent { border: 1.5px dashed var(--control); background: none; }
.box.done { color: var(--text); border-color: var(--text); }
.box.now { color: var(--text); border-color: var(--blue); background: var(--tint); }
.box.now b { font-weight: 750; }
.nav { grid-area: nav; display: grid; grid-template-columns: 1fr auto 1fr; gap: .5rem; align-items: center; }
.nav span {
  font-size: .84rem; color: var(--muted); font-variant-numeric: tabular-nums; text-align: center; min-width: 3em;
}
.nav .next { border-color: var(--blue); border-width: 2px; font-weight: 650; }
.nav .next[aria-disabled="true"] { border-color: var(--line); font-weight: 400; }
.list { grid-area: list; margin: 0; padding: 0; list-style: none; }
.list button {
  width: 100%; display: flex; gap: .6em; align-items: center; border-color: transparent; border-radius: 6px;
  padding: .2rem .5rem; color: var(--muted); background: none;
}
.list .done button { color: var(--text); }
.list i { font-style: normal; min-width: 1.1em; text-align: right; font-variant-numeric: tabular-nums; }
.list button[aria-current="step"] {
  color: var(--text); font-weight: 650; background: var(--tint); box-shadow: inset 4px 0 0 var(--blue);
}
.words { grid-area: words; padding-left: .75rem; border-left: 4px solid var(--blue); min-height: 6.3em; }
.words p { margin: 0; }
.words .step { font-weight: 650; }
.words .flows { margin-top: .25rem; font-size: .88rem; color: var(--muted); }
.flows b { color: var(--text); font-weight: 650; white-space: nowrap; }
.numbers {
  display: grid; grid-template-columns: minmax(0, 1.45fr) minmax(0, 1fr); gap: .3rem 1.4rem; margin-top: .9rem;
  padding-top: .8rem; border-top: 1px solid var(--line);
}
.numbers h3 { grid-column: 1 / -1; margin: 0; font-size: .95rem; font-weight: 650; }
.numbers table { table-layout: fixed; }
.numbers :is(th, td) { padding: 2px; text-align: center; height: 42px; line-height: 1.25; }
.numbers thead :is(th, td) { height: 1.6em; font-size: .84rem; color: var(--muted); white-space: nowrap; }
.numbers thead th { font-weight: 650; color: var(--text); }
.numbers tbody tr { border-top: 1px solid var(--line); }
.numbers tr > :first-child { width: 5.4rem; text-align: left; padding-left: 0; }
.numbers tr > :last-child { width: 3.6rem; text-align: right; padding-right: 5px; }
.numbers td small { display: block; font-size: 12px; color: var(--muted); }
.numbers td.held span::after { content: " ✕"; }
.numbers tr.chosen td { background: var(--sheet); }
.toggle {
  width: 100%; padding: .2rem .45rem; display: flex; justify-content: space-between; align-items: center;
  font-size: .86rem;
}
.toggle[aria-pressed="true"] { box-shadow: none; background: var(--paper); font-weight: 400; }
.working { font-size: .86rem; font-variant-numeric: tabular-nums; }
.working ul { margin: 0 0 .5rem; padding: 0; list-style: none; min-height: 10.2em; }
.working li { min-height: 1.45em; }
.working label { display: block; }
.working label > span { display: flex; justify-content: space-between; gap: .5em; }
.memory { margin-top: .9rem; padding-top: .8rem; border-top: 1px solid var(--line); }
.memory h3 { margin: 0 0 .5rem; font-size: .95rem; font-weight: 650; }
.choices { display: flex; flex-wrap: wrap; gap: .5rem .7rem; align-items: center; font-size: .88rem; }
.choices > * { display: inline-flex; gap: .5em; align-items: center; }
.choices .group button { min-width: 40px; }
.rule { margin: .4rem 0 0; font-size: .84rem; color: var(--muted); min-height: 2.9em; }
.choices .check { padding: .35rem .6rem; }
.choices .check::before { content: "–"; width: 1em; text-align: center; font-weight: 400; }
.choices .check[aria-pressed="true"]::before { content: "✓"; }
.choices .check[aria-pressed="true"] { font-weight: 400; }
.bars { display: grid; grid-template-columns: auto minmax(0, 1fr) 4.6rem; gap: .4rem .6rem; margin: .3rem 0 .5rem; }
.bars > * { align-self: center; }
.bars b { font-weight: 650; }
.bars .total { text-align: right; font-variant-numeric: tabular-nums; font-weight: 650; white-space: nowrap; }
.stack { display: flex; height: 34px; border-radius: 4px; background: var(--sheet); overflow: hidden; }
.stack span {
  flex: none; height: 100%; overflow: hidden; display: flex; align-items: center; justify-content: center;
  border-right: 2px solid var(--paper); font-size: 12px; white-space: nowrap;
}
.stack em { font-style: normal; background: var(--paper); border-radius: 4px; padding: 0 .35em; }
.swatch {
  display: inline-block; width: 1.5em; height: .95em; margin-right: .5em; vertical-align: -.1em; border-radius: 2px;
}
[data-part="policy"] { background: var(--policy); }
[data-part="value model"] { background: repeating-linear-gradient(45deg, var(--value) 0 6px, var(--paper) 6px 8px); }
[data-part="reference"] { background: repeating-linear-gradient(90deg, var(--reference) 0 4px, #0000 4px 6px); }
[data-part="reward model"] { background: repeating-linear-gradient(0deg, var(--reward) 0 4px, #0000 4px 6px); }
[data-part="activations"] { background: repeating-linear-gradient(-45deg, var(--act) 0 3px, var(--paper) 3px 5px); }
.memory table { margin-top: .3rem; }
.memory :is(th, td) { padding: .18rem 0; border-top: 1px solid var(--line); }
.memory thead :is(th, td) { border: 0; color: var(--muted); text-align: right; }
.memory tbody td, .memory thead th { width: 6.2rem; }
.memory tr.away { color: var(--muted); }
.memory tr.away .swatch { opacity: .4; }
.verdict { margin: .5rem 0 0; font-size: .95rem; min-height: 2.9em; }
.verdict b { font-weight: 650; }
@media (prefers-reduced-motion: no-preference) {
  .now.arrow { stroke-dasharray: 1; animation: grow ${TIME}s ease-out; }
  .now.head { animation: show ${TIME}s steps(1); }
  .stack span { transition: width .2s; }
}
@keyframes grow { from { stroke-dashoffset: 1; } to { stroke-dashoffset: 0; } }
@keyframes show { from { opacity: 0; } to { opacity: 1; } }
@container (max-width: 620px) {
  .main { grid-template: "list" "flow" "nav" "words" / minmax(0, 1fr); }
  .list { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 6px; }
  .list button { justify-content: center; padding: 0; border-color: var(--line); }
  .list button > span { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .list button[aria-current="step"] { box-shadow: inset 0 -4px 0 var(--blue); }
  .list i { min-width: 0; }
  .words { min-height: 11.7em; }
  .numbers { grid-template-columns: minmax(0, 1fr); }
  .numbers tr > :first-child { width: 4.6rem; }
  .numbers tr > :last-child { width: 3.1rem; }
  .working ul { min-height: 7.6em; margin-top: .3rem; }
  .memory tbody td, .memory thead th { width: 5.2rem; }
  .rule, .verdict { min-height: 4.4em; }
}
`;

/** Text with subscripts: "π_old", "V(s_{t+1})". */
const rich = (words) => words.split(/(_\{[^}]*\}|_[\wθφ]+)/u).map((part) =>
  part.startsWith("_") ? h("sub", {}, part.replace(/[_{}]/g, "")) : part);
const spoken = (words) => words.replace(/_\{?/g, " ").replace("}", "");

function render({ model, el }) {
  const now = { algorithm: "ppo", beta: 0.1, rewards: [1, 0, 0, 0], learned: true, frozenBytes: 4, size: "" };
  let step = "prompts";
  let chosen = 0; // the output that is written out
  let lastBeta = 0.1; // what β becomes when the reference comes back
  let measured = {}; // by label, the bars

  // --- elements
  const { namespaceURI } = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg");
  const svg = (tag, properties) => {
    const element = document.createElementNS(namespaceURI, tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    return element;
  };
  const algorithmButtons = Object.entries(NAMES).map(([name, words]) =>
    button(words, () => set({ algorithm: name }), { "data-algorithm": name }));
  const drawing = svg("svg", { "aria-hidden": "true" });
  const flow = h("div", { class: "flow", role: "img" }, drawing);
  const back = button("← Back", () => move(-1));
  const next = button("Next →", () => move(1), { class: "next" });
  const place = h("span", { "data-fact": "place" });
  const list = h("ol", { class: "list", "aria-label": "Steps of the update" });
  const title = h("p", { class: "step" });
  const sentence = h("p", { "data-fact": "sentence" });
  const flows = h("p", { class: "flows", "data-fact": "flow" });
  const tokensHead = h("th", { colspan: 3, scope: "colgroup" });
  const sideHead = h("th", { scope: "col" });
  const rows = OUTPUTS.map((tokens, i) => {
    const sign = h("b", { "aria-hidden": "true" });
    const toggler = button("", () => toggle(i), { class: "toggle", "aria-label": `output ${i + 1} is right` });
    toggler.replaceChildren(h("span", {}, `o${digit(i + 1)}`), sign);
    const cells = [0, 1, 2].map((t) => {
      const [token, value] = [h("small", {}), h("span", { "data-cell": `${i} ${t}` })];
      return { token, value, cell: h("td", {}, token, value) };
    });
    const side = h("td", { "data-side": i });
    const row = h("tr", {}, h("th", { scope: "row" }, toggler), ...cells.map(({ cell }) => cell), side);
    return { row, sign, toggler, cells, side };
  });
  const working = h("ul", {});
  const betaValue = h("b", { "data-fact": "beta" });
  const betaInput = h("input", {
    type: "range", min: BETA[0], max: BETA[1], step: BETA[2], "aria-label": "β, what a nat of drift costs",
    oninput: () => set({ beta: Number(betaInput.value) }, true), onchange: () => announce(workingWords()),
  });
  const sizeSelect = h("select",
    { "onchange": () => set({ size: sizeSelect.value }), "aria-label": "Parameters of a model" });
  const frozenButtons = Object.entries(FROZEN).map(([count, words]) =>
    button(count, () => set({ frozenBytes: Number(count) }),
      { "data-frozen": count, "aria-label": `frozen models in ${words} a parameter` }));
  const withReference = button("reference", () => restore(now.beta === 0),
    { "class": "check", "aria-label": "reference model" });
  const withRewardModel = button("reward model", () => set({ learned: !now.learned }),
    { "class": "check", "aria-label": "learned reward model" });
  const bars = Object.fromEntries(Object.keys(NAMES).map((name) => [name, {
    stack: h("div", { class: "stack", "aria-hidden": "true" }),
    total: h("span", { class: "total", "data-total": name }),
  }]));
  const partRows = PARTS.map((part) => {
    const cells = Object.keys(NAMES).map((name) => h("td", { "data-bytes": `${part} ${name}` }));
    const swatch = h("span", { class: "swatch", "data-part": part, "aria-hidden": "true" });
    return { part, cells, row: h("tr", {}, h("th", { scope: "row" }, swatch, part), ...cells) };
  });
  const rule = h("p", { class: "rule" });
  const verdict = h("p", { class: "verdict", "data-fact": "saving" });
  const announcer = liveRegion();

  const figure = figureBox("Four models",
    buttonGroup("Algorithm", algorithmButtons),
    h("p", { class: "hint" },
      "Step through one update: Next, arrow keys or a tap on a box. Models in thick frames learn."),
    h("div", { class: "main" }, flow,
      h("div", { class: "nav" }, back, place, next), list,
      h("div", { class: "words" }, title, sentence, flows)),
    h("div", { class: "numbers" }, h("h3", {}, `Worked example: “${PROMPT}”`),
      h("table", {},
        h("thead", {}, h("tr", {}, h("td", {}, "right?"), tokensHead, sideHead)),
        h("tbody", {}, ...rows.map(({ row }) => row))),
      h("div", { class: "working" }, working,
        h("label", {}, h("span", {}, "β, what a nat of drift costs", betaValue), betaInput))),
    h("div", { class: "memory" },
      h("h3", {}, "Memory"),
      h("div", { class: "choices" }, h("label", {}, "model", sizeSelect), withReference, withRewardModel,
        h("div", {}, "bytes if frozen", buttonGroup("Bytes of a frozen parameter", frozenButtons))),
      rule,
      h("div", { class: "bars" }, ...Object.entries(bars).flatMap(([name, { stack, total }]) =>
        [h("b", {}, NAMES[name]), stack, total])),
      h("table", {},
        h("thead", {}, h("tr", {}, h("td", {}),
          ...Object.values(NAMES).map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, ...partRows.map(({ row }) => row))),
      verdict),
    announcer,
  );
  const unmount = mount(el, CSS, figure, paint, [flow]);

  // --- what happens
  const names = () => Object.keys(STEPS[now.algorithm]);
  const allowed = {
    algorithm: (value) => known("algorithm", value, Object.keys(NAMES)),
    beta(value) {
      if (typeof value === "number" && value >= BETA[0] && value <= BETA[1]) return value;
      throw new RangeError(`beta is ${value}; it must be a number from ${BETA[0]} to ${BETA[1]}.`);
    },
    rewards(value) {
      const right = Array.isArray(value) && value.length === 4 && value.every((one) => one === 0 || one === 1);
      if (right) return [...value];
      throw new RangeError(`rewards are ${value}; they must be 4 numbers, each 0 or 1.`);
    },
    learned: (value) => Boolean(value),
    frozenBytes: (value) => Number(known("number of bytes", String(value), Object.keys(FROZEN))),
    size: (value) => known("size", value, [...Object.keys(measured), ...Object.keys(SIZES)]),
  };

  function set(changes, quiet = false) {
    const entries = Object.entries(changes).map(([name, value]) =>
      [name, allowed[known("setting", name, Object.keys(allowed))](value)]);
    Object.assign(now, Object.fromEntries(entries));
    if (now.beta > 0) lastBeta = now.beta;
    if (!names().includes(step)) step = INSTEAD[step];
    show();
    const ofMemory = ["learned", "frozenBytes", "size"].some((name) => name in changes);
    if (!quiet) announce(ofMemory ? verdict.textContent : "");
  }

  function restore(on) {
    set({ beta: on ? lastBeta : 0 }, true);
    announce(verdict.textContent);
  }

  function go(name) {
    step = known("step", name, names());
    show();
    announce();
  }

  function move(by) {
    const to = names()[names().indexOf(step) + by];
    if (to) go(to);
  }

  function toggle(i) {
    if (!(i in now.rewards)) throw new RangeError(`There is no output ${i}; there are 0 to 3.`);
    chosen = i;
    set({ rewards: now.rewards.map((reward, k) => (k === i ? 1 - reward : reward)) }, true);
    announce(workingWords());
  }

  const barsOf = () => memoryOf({
    parameters: SIZES[now.size], bars: measured[now.size], reference: now.beta > 0, learned: now.learned,
    frozenBytes: now.frozenBytes,
  });

  // --- showing it
  const stepWords = () => `${NAMES[now.algorithm]}, step ${names().indexOf(step) + 1} of ${names().length}`;
  const workingWords = () => `${numbersOf(step, now, chosen).lines.map(spoken).join("; ")}.`;

  function announce(said = "") {
    const { title: name, words } = describe(step, now);
    announcer.textContent = said || `${stepWords()}: ${name}. ${spoken(words)}`;
  }

  /** What stands in the boxes: the words, whether in bold, small print, and the kind. */
  function labels() {
    const { algorithm, beta, learned } = now;
    const ppo = algorithm === "ppo";
    const none = beta === 0;
    return {
      prompts: ["prompts q", "", "data"],
      policy: ["policy model π_θ", "learns", "model learns"],
      outputs: ["outputs o, with their log π_old", "", "data"],
      reference: ["reference model", none ? "not needed" : "frozen", `tall model ${none ? "absent" : ""}`],
      reward: learned ? ["reward model", "frozen", "tall model"] : ["checker", "a program", ""],
      value: ["value model", ppo ? "learns" : "not there", `tall model ${ppo ? "learns" : "absent"}`],
      referenceLogProbs: ["log π_ref", "", "data"],
      rewards: ["R_i", "", "data"],
      values: ["V_φ(s_t)", "", "data"],
      tokenRewards: ["token rewards r_t", none ? "R at the last token" : "R at the end, −β · drift", ""],
      statistics: ["group computation", "mean R̄, spread σ_R", ""],
      advantages: ppo ? ["advantages Â_t, by GAE", "from token rewards and values", ""] :
        ["advantages Â_i", "(R_i − R̄) / σ_R", ""],
      loss: ["loss", ppo ? "clipped surrogate, value error" : `clipped surrogate${none ? "" : ", β k₃"}`, ""],
    };
  }

  /** "now", "done" or "yet" of a box or an arrow, of which `of` picks the names in use at a step. */
  function stateOf(name, of) {
    const at = names().map((one) => of(STEPS[now.algorithm][one]).includes(name));
    const here = names().indexOf(step);
    return at[here] ? "now" : at.indexOf(true) >= 0 && at.indexOf(true) < here ? "done" : "yet";
  }

  let drawn = ""; // what the drawing shows
  function paint() {
    const width = flow.clientWidth;
    if (width === 0) return; // not laid out: in a closed tab or a page being built
    const wanted = JSON.stringify([width, now.algorithm, now.beta > 0, now.learned, step]);
    if (wanted === drawn) return; // else the arrows would grow again
    drawn = wanted;
    const { boxes, arrows, height } = layout(width, now);
    flow.style.height = `${height}px`;
    const words = labels();
    const nodes = Object.entries(boxes).map(([name, { x, y, w, h: high }]) => {
      const [label, small, kind] = words[name];
      const node = h("div", { "data-box": name, class: `box ${kind} ${stateOf(name, ([used]) => used)}` },
        h("b", {}, ...rich(label)), ...(small ? [h("small", {}, ...rich(small))] : []));
      Object.assign(node.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${high}px` });
      const first = names().find((one) => STEPS[now.algorithm][one][0].includes(name));
      if (first) node.addEventListener("click", () => go(first));
      return node;
    });
    const side = (label, x, y, of) => {
      const node = h("div", { class: "side", "data-side-of": of }, ...rich(label));
      Object.assign(node.style, { left: `${x}px`, top: `${y}px` });
      return node;
    };
    const order = { yet: 0, done: 1, now: 2 }; // what is in use lies above the rest
    const lines = arrows.map(({ from, to, points }) => ({ points, name: `${from}-${to}` }))
      .map((arrow) => ({ ...arrow, state: stateOf(arrow.name, ([, used]) => used) }))
      .sort((a, b) => order[a.state] - order[b.state]);
    drawing.replaceChildren(...lines.flatMap(({ points, name, state }) => {
      const [tip, before] = [points.at(-1), points.at(-2)];
      const [dx, dy] = [Math.sign(tip[0] - before[0]), Math.sign(tip[1] - before[1])];
      const size = state === "now" ? 10 : 7;
      const base = [tip[0] - size * dx, tip[1] - size * dy];
      const wing = (sign) => [base[0] + sign * dy * 0.6 * size, base[1] + sign * dx * 0.6 * size];
      const path = [...points.slice(0, -1), base].map((point) => point.join(" ")).join("L");
      return [
        svg("path", { "class": `arrow ${state}`, "data-arrow": name, "d": `M${path}`, "pathLength": 1 }),
        svg("polygon", { class: `head ${state}`, points: [tip, wing(1), wing(-1)].join(" ") }),
      ];
    }));
    flow.replaceChildren(drawing, ...nodes,
      side("log π_old", 8, boxes.reference.y + 4, "old"),
      side("gradient", width - 22, boxes.advantages.y - 40, "gradient"));
    paintBars();
  }

  function paintBars() {
    const memory = barsOf();
    const most = Math.max(memory.ppo, memory.grpo) || 1;
    for (const [name, { stack, total }] of Object.entries(bars)) {
      stack.replaceChildren(...memory.parts.filter((bar) => bar[name] > 0).map((bar) => {
        const wide = (bar[name] / most) * stack.clientWidth;
        const label = wide > 8 * bar.part.length + 8 ? [h("em", {}, bar.part)] : [];
        const segment = h("span", { "data-part": bar.part }, ...label);
        segment.style.width = `${(100 * bar[name]) / most}%`;
        return segment;
      }));
      text(total, bytes(memory[name]));
    }
  }

  function showMemory() {
    const memory = barsOf();
    const isMeasured = now.size in measured;
    for (const { part, cells, row } of partRows) {
      const bar = memory.parts.find((one) => one.part === part);
      row.hidden = part === "activations" && !isMeasured;
      row.classList.toggle("away", !bar);
      cells.forEach((cell, k) => {
        const count = bar?.[Object.keys(NAMES)[k]];
        text(cell, count ? bytes(count) : "–");
      });
    }
    for (const one of frozenButtons) attribute(one, "aria-disabled", isMeasured);
    press(frozenButtons, "frozen", isMeasured ? "" : now.frozenBytes);
    sizeSelect.value = now.size;
    attribute(withReference, "aria-pressed", now.beta > 0);
    attribute(withRewardModel, "aria-pressed", now.learned);
    const percent = Math.round(100 * memory.saved);
    const frozen = memory.parts.some(({ part }) => part.startsWith("re"));
    const why = frozen ? "Only the value model goes; what is frozen stays in both." :
      "Exactly half: two models learn, and one of the two goes.";
    text(rule, isMeasured ?
      "Measured in updates of both algorithms: weights, gradients and Adam's moments, and the activations." :
      `Reckoned: ${TRAINED} bytes for each parameter that learns (weight, gradient, Adam's two moments), ` +
      `${now.frozenBytes} for each that is frozen; no activations.`);
    text(verdict, `GRPO takes ${bytes(memory.grpo)} instead of ${bytes(memory.ppo)}: ` +
      `${Math.abs(percent)}\u00a0% ${percent < 0 ? "more" : "less"}.${isMeasured ? "" : ` ${why}`}`);
  }

  function show() {
    const { title: name, words, flow: [symbol, meaning, shape, here] } = describe(step, now);
    const index = names().indexOf(step);
    figure.dataset.step = step;
    press(algorithmButtons, "algorithm", now.algorithm);
    text(place, `${index + 1} of ${names().length}`);
    attribute(back, "aria-disabled", index === 0);
    attribute(next, "aria-disabled", index === names().length - 1);
    showList(index);
    text(title, name);
    sentence.replaceChildren(...rich(words));
    flows.replaceChildren("What flows: ", h("b", {}, ...rich(symbol)), `, ${meaning}. Shape `, h("b", {}, shape),
      here ? `, here ${here.replaceAll(" ", "\u00a0")}.` : ".");
    showNumbers();
    showMemory();
    const used = STEPS[now.algorithm][step][0].map((box) => spoken(labels()[box][0]));
    const learning = now.algorithm === "ppo" ? "The policy and the value model learn" :
      "Only the policy learns; there is no value model";
    attribute(flow, "aria-label", `${stepWords()}: ${name}. In use: ${used.join(", ")}. ` +
      `${learning}${now.beta > 0 ? "; the reference is frozen." : "; no reference is needed."}`);
    paint();
    paintBars();
  }

  function showList(index) {
    const steps = names();
    if (list.children.length !== steps.length || list.dataset.of !== now.algorithm) {
      list.dataset.of = now.algorithm;
      list.replaceChildren(...steps.map((one, k) => h("li", { "data-step": one },
        button("", () => go(one), { "data-go": one }))));
      steps.forEach((_, k) => list.children[k].firstChild.append(h("i", {}, String(k + 1)), h("span", {})));
    }
    steps.forEach((one, k) => {
      const item = list.children[k];
      const { title: name } = describe(one, now);
      item.className = k < index ? "done" : "";
      text(item.firstChild.lastChild, name);
      attribute(item.firstChild, "aria-label", `Step ${k + 1}: ${name}`);
      if (k === index) attribute(item.firstChild, "aria-current", "step");
      else item.firstChild.removeAttribute("aria-current");
    });
  }

  function showNumbers() {
    const numbers = numbersOf(step, now, chosen);
    tokensHead.replaceChildren(...rich(numbers.tokens));
    sideHead.replaceChildren(...rich(numbers.side));
    const written = step !== "prompts";
    rows.forEach(({ row, sign, toggler, cells, side }, i) => {
      row.classList.toggle("chosen", i === chosen);
      attribute(toggler, "aria-pressed", now.rewards[i] === 1);
      text(sign, now.rewards[i] ? "✓" : "✗");
      cells.forEach(({ token, value, cell }, t) => {
        text(token, written ? OUTPUTS[i][t] ?? "" : "");
        text(value, numbers.cells[i][t] ?? "");
        cell.classList.toggle("held", Boolean(numbers.marks?.[i][t]));
      });
      text(side, numbers.sides[i]);
    });
    working.replaceChildren(...numbers.lines.map((line) => h("li", {}, ...rich(line))));
    text(betaValue, two(now.beta));
    if (Number(betaInput.value) !== now.beta) betaInput.value = now.beta;
  }

  // --- keys
  figure.addEventListener("keydown", (event) => {
    if (!/^(Arrow|Home|End|Page)/.test(event.key)) return;
    event.stopPropagation(); // else a page may turn
    const own = event.target.matches("input, select"); // which have keys of their own
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (own || isShortcut(event) || !by) return;
    event.preventDefault();
    move(by);
  });

  // --- the page around it
  function readMemory() {
    measured = {};
    for (const bar of model.get("memory")) (measured[bar.label] ??= []).push(bar);
    const group = (label, options) => {
      const element = h("optgroup", { label });
      element.append(...options.map((option) => h("option", { value: option }, option)));
      return element;
    };
    const labelsOf = Object.keys(measured);
    sizeSelect.replaceChildren(...(labelsOf.length ? [group("measured", labelsOf)] : []),
      group("reckoned, parameters", Object.keys(SIZES)));
    return labelsOf[0] ?? "7 billion";
  }
  const followed = {
    algorithm: () => set({ algorithm: model.get("algorithm") }, true),
    kl_coef: () => set({ beta: model.get("kl_coef") }, true),
    rewards: () => set({ rewards: model.get("rewards") }, true),
    memory: () => set({ size: readMemory() }, true),
  };
  for (const [name, follow] of Object.entries(followed)) model.on(`change:${name}`, follow);

  el.policyopt = {
    state: () => structuredClone({
      ...now, step, chosen, steps: names(), numbers: compute(now), memory: barsOf(),
      sentence: describe(step, now).words,
    }),
    set, go, next: () => move(1), back: () => move(-1), toggle,
  };
  now.size = readMemory();
  for (const follow of Object.values(followed)) follow();

  return () => {
    unmount();
    for (const [name, follow] of Object.entries(followed)) model.off(`change:${name}`, follow);
  };
}

export {
  bytes, clippedSurrogate, compute, describe, groupAdvantages, klK3, layout, memoryOf, numbersOf, OUTPUTS, POLICY,
  REFERENCE, STEPS, stepOf, tokenAdvantages, tokenRewards, VALUES,
};
export default { render };
