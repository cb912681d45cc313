"""The ledger: every rule on made-up results it can be told by hand for, and no verdict without evidence.

No stored result is looked at here. Scores of made-up runs are given on the scale of chance 0 and solved 1,
with chance 100 below what counts as solved on every task.
"""

import dataclasses
from itertools import product

import numpy as np
import pandas as pd
import pytest

from policyopt import cli
from policyopt.envs import BINS
from policyopt.experiments import claims as claims_module
from policyopt.experiments import evidence as evidence_module
from policyopt.experiments import rules, studies
from policyopt.experiments.claims import CLAIMS, Claim, ledger
from policyopt.experiments.evidence import SOLVED, Evidence, MissingEvidence
from policyopt.experiments.rules import Figure, Finding, Verdict, share_that_collapses, worst_tenth
from policyopt.experiments.stats import Interval
from policyopt.experiments.storage import Result, Store, pack_result
from policyopt.experiments.studies import STUDIES
from policyopt.language.cost import SETTINGS_COMPARED, SIZES

NAN = float("nan")
CARTPOLE, ACROBOT, PENDULUM = TASKS = tuple(SOLVED)
HOLDS, CONDITION, NOT_HERE = Verdict
EVEN = np.tile([-1.0, 1.0], 5)  # how ten seeds are spread: mean 0


class Made(Evidence):
    """Evidence that is made up: a list of results for each study, label and environment."""

    def __init__(self, results):
        super().__init__("nowhere")
        self.made, self.asked = results, set()

    def cells(self, study, label, environment):
        self.asked.add(study)
        return self.made[study, label, environment]


def results(returns=0.0, seconds=0.0, **columns):
    """One for each seed. Given are numbers for all seeds, or one or a row of them for each."""
    given = {"returns": returns, "seconds": seconds, **columns}
    seeds = max([10] + [len(values) for values in given.values() if np.ndim(values)])
    made = []
    for seed in range(seeds):
        row = {name: values if np.ndim(values) == 0 else values[seed] for name, values in given.items()}
        row = {name: np.atleast_1d(np.asarray(values, dtype=float)) for name, values in row.items()}
        made.append(Result(row, row.pop("returns"), row.pop("seconds"), {}))
    return made


def scored(score, task=CARTPOLE, spread=0.01, **columns):
    return results(SOLVED[task] - 100 + 100 * (score + spread * EVEN), **columns)


def learns(at, task=CARTPOLE, seconds=None, budget=1_000):
    """Runs that cross after about so many steps and seconds, the even seeds one sooner; never, where None."""
    steps = [[at + wiggle, budget] if at else [1, budget] for wiggle in EVEN]
    clocks = [[seconds + wiggle / 10, 100] for wiggle in EVEN] if seconds else [[0.1, 100]] * 10
    curve = [SOLVED[task] - (at is None)] * 2
    return results(step=steps, seconds=clocks, episode_return=[curve] * 10)


def chance():
    return {("benchmark", "random", task): scored(0, task, 0.0) for task in TASKS}


# --- made-up studies: a function for each rule ---


def loop(others=1, **scores):
    """All algorithms' scores on all tasks, and on the last task those of some."""
    made = chance()
    for label in STUDIES["benchmark"].runs:
        for task in TASKS if label != "random" else ():
            score = scores.get(label, others) if task == PENDULUM else others
            made["benchmark", label, task] = scored(score, task, 0.1)
    return made


def reinforce(with_discount, without):
    columns = {"": with_discount, "_without_discount": without}
    columns = {f"mean_square_deviation{end}": value + EVEN / 10 for end, value in columns.items()}
    return {("gradient", "REINFORCE", "FrozenLake-v1"): results(**columns)}


def variance(whole, to_go, mean, value, gae):
    """Each at three stages. The seeds' ratios differ, but their geometric mean is that of what is given."""
    names, columns = ("whole_return", "to_go", "mean_baseline", "value_baseline", "gae"), {}
    for number, (name, stages) in enumerate(zip(names, (whole, to_go, mean, value, gae), strict=True)):
        columns[f"variance_{name}"] = np.exp(EVEN * number / 100)[:, None] * stages
    return {("variance", "PPO's policy", CARTPOLE): results(**columns)}


def actors(cartpole, acrobot):
    labels = ("REINFORCE", "REINFORCE, value", "A2C")
    made = {("benchmark", label, CARTPOLE): learns(at) for label, at in zip(labels, cartpole, strict=True)}
    return made | {
        ("benchmark", label, ACROBOT): learns(at, ACROBOT) for label, at in zip(labels, acrobot, strict=True)
    }


def groups(separate=(1, 1), shared=(1, 1), together=(1, 1)):
    """Two groups a seed; all is as it should be with all seeds but the last, whose numbers are given."""
    separate, shared, together = ([[1, 1]] * 9 + [last] for last in (separate, shared, together))
    return {
        ("groups", "no state shared", CARTPOLE): results(better_rose=separate),
        ("groups", "one network", CARTPOLE): results(better_rose=shared, weighted_sum_rose=together),
    }


def beside_ppo(last_difference, last_clipped):
    columns = {
        "largest_gradient_difference": [1e-7] * 9 + [last_difference],
        "clip_fraction": [0.2] * 9 + [last_clipped],
        "largest_gradient_difference_per_output_mean": 0.5,
    }
    return {("groups", "beside PPO", CARTPOLE): results(**columns)}


def solvers(*counts):
    """So many of ten seeds just solve a task, the others miss it by one."""
    made = {("credit", "those, discounted", PENDULUM): results(-150.0)}
    for task, count in zip(TASKS, counts, strict=True):
        made["benchmark", "GRPO", task] = results(SOLVED[task] - (np.arange(10) >= count))
    return made


def cliffs(*falls):
    """So many of 60 runs with and without the clip fall below half of the best; the others exactly to it."""
    made = {}
    for clip, left, final in zip((0.2, studies.UNCLIPPED), falls, (450.0, 300.0), strict=True):
        for rate, epochs in product(studies.CLIP_LEARNING_RATES, studies.CLIP_EPOCHS):
            curves = [[NAN, 400, 199 if seed < left else 200, 400] for seed in range(10)]
            label = studies.clip_label(clip, rate, epochs)
            made["clip", label, CARTPOLE] = results(final, episode_return=curves)
            left = max(left - 10, 0)
    return made


def first_order(ppo, plain, spread=0.01):
    """PPO's score in the benchmark and plain; TRPO's is 1 and 0.8."""
    runs = {("benchmark", "PPO"): ppo, ("benchmark", "TRPO"): 1.0}
    runs |= {("details", "PPO, plain"): plain, ("details", "TRPO, plain"): 0.8}
    return {(*run, task): scored(runs[run], task, spread) for run in runs for task in TASKS} | chance()


def epochs(one, six, large):
    times = {f"{number} epochs": 500 for number in studies.EPOCHS}
    times |= {"1 epochs": one, "6 epochs": six, "1 epochs, lr × 4": large}
    return {("epochs", label, CARTPOLE): learns(at) for label, at in times.items()}


def parallel(speeds, seconds):
    """Steps a second, for 100 of them, and seconds to the threshold, with 1, 4, 16, 64, 256 environments."""
    return {
        ("clock", f"PPO, {number} environments", CARTPOLE): learns(500, seconds=time, budget=speed * 100)
        for number, speed, time in zip(studies.ENVIRONMENTS, speeds, seconds, strict=True)
    }


def robust(tuned, defaults, spread=0.01):
    made = chance()
    for ours, theirs, task in zip(tuned, defaults, TASKS, strict=True):
        made["benchmark", "PPO", task] = scored(ours, task)
        made["robustness", "PPO, defaults", task] = scored(theirs, task, spread)
    return made


def variants(clip, penalty):
    made = {("benchmark", "PPO", task): learns(at, task) for at, task in zip(clip, TASKS, strict=True)}
    return made | {
        ("benchmark", "PPO-penalty", task): learns(at, task) for at, task in zip(penalty, TASKS, strict=True)
    }


def entropies(found, nats):
    """How many of 20 seeds find the goal with each coefficient, and the mean entropy of two rows."""
    made = {}
    for coef, number, mean in zip(studies.ENTROPY_COEFS, found, nats, strict=True):
        finals = np.where(np.arange(20) < number, 0.9, 0.89)
        rows = mean + np.tile(EVEN, 2)[:, None] / 100 + [-0.2, 0.2]
        made["entropy", f"c₂ = {coef:g}", "policyopt/DeceptiveGrid-v0"] = results(finals, entropy=rows)
    return made


def stability(ppo, a2c=(1,) * 5, falls=0):
    """Scores with each learning rate; with the last so many of PPO's runs fall."""
    made, rates = chance(), {"PPO": studies.PPO_LEARNING_RATES, "A2C": studies.A2C_LEARNING_RATES}
    for name, scores in (("PPO", ppo), ("A2C", a2c)):
        for number, (rate, score) in enumerate(zip(rates[name], scores, strict=True)):
            curves = [[100, 49 if number == 4 and seed < falls else 50] for seed in range(10)]
            run = ("stability", f"{name}, lr {rate:g}", CARTPOLE)
            made[run] = scored(score, spread=0.0, episode_return=curves)
    return made


def clock(**seconds_and_steps):
    labels = {"one": "A3C, 1 workers", "two": "A3C, 2 workers", "four": "A3C, 4 workers"}
    labels |= {"a2c": "A2C", "ppo": "PPO, 16 environments"}
    return {
        ("clock", labels[name], CARTPOLE): learns(steps, seconds=seconds)
        for name, (seconds, steps) in seconds_and_steps.items()
    }


def costs(trpo_seconds, ppo_seconds, trpo=1.0, ppo=1.0, spread=0.01):
    """Of 10,240 steps, ten updates."""
    made, runs = chance(), {"TRPO": (trpo_seconds, trpo, 0.01), "PPO": (ppo_seconds, ppo, 0.0)}
    for label, (total, score, wiggle) in runs.items():
        clocks = [[1, seconds] for seconds in total * np.exp(wiggle * EVEN)]
        run = ("clock", f"{label}, 16 environments", CARTPOLE)
        made[run] = results(seconds=clocks, step=[[1_024, 10_240]] * 10)
        made |= {("benchmark", label, task): scored(score, task, spread) for task in TASKS}
    return made


def example(solved):
    return {("example", "as printed", CARTPOLE): results(np.where(np.arange(10) < solved, 475.0, 474.0))}


def saved_shares(memory=0.5, flops=0.5, both=None):
    """What GRPO saves at every size and in every setting; of both, in the last setting."""
    made = {}
    for size in SIZES:
        row = {}
        for setting in SETTINGS_COMPARED:
            for what, share in (("bytes", memory), ("flops", flops)):
                share = both if both is not None and setting == "both" else share
                row |= {f"{what}_PPO_{setting}": 100.0, f"{what}_GRPO_{setting}": 100 * (1 - share)}
            row[f"flops_one_output_{setting}"] = 25.0
        row = {name.replace(" ", "_"): value for name, value in row.items()}
        made["memory", "PPO and GRPO", size] = results(**row)[:1]
    return made


def reaches(at, **columns):
    """Training rewards that reach 0.95 with update ``at`` of 100, each of 512 outputs; never, where None."""
    updates = [[at + wiggle if at else 1, 100] for wiggle in EVEN]
    outputs = [[512 * update for update in row] for row in updates]
    return results(update=updates, outputs=outputs, reward=[[0.95 - 0.01 * (at is None)] * 2] * 10, **columns)


def compute(grpo, ppo, flops=0.5, seconds=(1.0, 1.0)):
    """Updates to the level, and seconds of one, for GRPO and PPO."""
    made = saved_shares(flops=flops)
    labels = ("GRPO, G = 8", "PPO, 1 output", "PPO, 8 outputs")
    for label, at, each in zip(labels, (grpo, ppo, ppo), (*seconds, seconds[1]), strict=True):
        made["outputs", label, "addition"] = reaches(at)
        made["token_clock", label, "addition"] = results(update=[[10.0]] * 10, seconds=[[10 * each]] * 10)
    return made


def penalties(*ends):
    """The KL at the end for each β, a little different for each seed."""
    columns = {f"kl_{name}_std": 0.5 for name in ("exact", "k1", "k2", "k3")}
    return {
        ("reference", f"β = {beta:g}", "addition"): results(0.9, kl_exact=end + EVEN / 100, **columns)
        for beta, end in zip(studies.BETAS, ends, strict=True)
    }


def samples(ppo, *groups):
    made = {("outputs", "PPO, 1 output", "addition"): reaches(ppo)}
    for size, at in zip(studies.GROUP_SIZES, groups, strict=True):
        made["outputs", f"GRPO, G = {size}", "addition"] = reaches(at)
    return made


def hard(grpo, ppo, whole, falls=0):
    """Final rewards, and how many of GRPO's ten runs fall; of the others' none."""
    made = {}
    for label, final in zip(STUDIES["critic"].runs, (grpo, ppo, whole), strict=True):
        low = [0.6 if label != "GRPO" or seed >= falls else 0.2 for seed in range(10)]
        curves = [[0.6, each, 0.6, 0.6] for each in low]
        explained = [[0.0, 0.0, 0.1, 0.3]] * 10
        made["critic", label, "long_sort"] = results(
            final + EVEN / 100, reward=curves, explained_variance=explained
        )
    return made


FAST = (100, 200, 400, 900, 1_000)  # steps a second
AWAKE, ASLEEP = (*(0.3,) * 5, 0.8), (0.3, *(0.8,) * 4, 0.3)  # entropies
DEFAULT = dict(one=(30, 300), two=(20, 400), four=(10, 500))  # seconds and steps with A3C's workers
EIGHTS, FOURS, TWOS, ONES = ((number,) * 3 for number in (8, 4, 2, 1))

# For each rule made-up results, the verdict, and figures by hand: the first whose name contains the words.
CASES = {
    "loop": [
        (loop(PPO=0.5), HOLDS, {"above chance, of 27": 27, "gain in score, PPO on Pendulum": 0.5}),
        (loop(A2C=0.05), CONDITION, {"above chance": 26, "A2C on Pendulum": 0.05}),  # above, maybe
        (loop(others=-1, PPO=0.2), CONDITION, {"above chance": 1, "smallest gain": -1}),
        (loop(others=0), NOT_HERE, {"above chance": 0}),
    ],
    "reinforce-gradient": [
        (reinforce(1, 1.05), HOLDS, {"1 if unbiased": 1, "without γ^t": 1.05}),
        (reinforce(1, 9), CONDITION, {"without γ^t": 9}),
        (reinforce(1, 0.5), CONDITION, {"without γ^t": 0.5}),  # 1 is not in its interval either
        (reinforce(2, 1), NOT_HERE, {"1 if unbiased": 2}),
        (reinforce(0.5, 1), NOT_HERE, {"1 if unbiased": 0.5}),
    ],
    "baseline-variance": [
        (variance(EIGHTS, FOURS, TWOS, ONES, (1, 1, 0.1)), HOLDS, {"to-go over the whole return": 0.5}),
        (variance(EIGHTS, FOURS, TWOS, ONES, (1, 1, 0.1)), HOLDS, {"GAE over reward-to-go, stage 2": 0.025}),
        (variance(EIGHTS, FOURS, (2, 2, 4), ONES, ONES), CONDITION, {"mean over reward-to-go, stage 2": 1}),
        (variance(FOURS, FOURS, EIGHTS, (5, 5, 5), FOURS), NOT_HERE, {"a critic over reward-to-go": 1.25}),
    ],
    "actor-critic": [
        (actors((None, 400, 200), (800, 300, 100)), HOLDS, {"E on CartPole": 1_000, "A2C on Acrobot": 100}),
        (actors((800, 400, 200), (800, 300, 800)), CONDITION, {"REINFORCE, value on CartPole": 400}),
        (actors((800, 800, None), (800, 900, 800)), NOT_HERE, {"A2C on CartPole": 1_000}),
    ],
    "grpo-name": [({}, NOT_HERE, {"the article": "Generalized Reinforcement Policy Optimization"})],
    "grpo-memory": [
        (saved_shares(0.455), HOLDS, {"memory saved with both": "46% to 46%"}),
        (saved_shares(0.5, both=0.44), CONDITION, {"with a reference": "50% to 50%", "both": "44% to 44%"}),
        (saved_shares(0.3), NOT_HERE, {"with a reward model": "30% to 30%"}),
        (saved_shares(0.7), NOT_HERE, {"with no frozen model": "70% to 70%"}),
    ],
    "grpo-compute": [
        (compute(20, 60), HOLDS, {"as many prompts": "2.0 to 2.0", "over PPO with 1": 1 / 3}),
        (compute(50, 50, seconds=(1, 3)), HOLDS, {"update, GRPO": 1, "over PPO with 8": 1 / 3}),
        (compute(50, 60), CONDITION, {"over PPO with 1": 5 / 6}),
        (compute(20, 60, flops=0.3), CONDITION, {"with both": "30% to 30%"}),
        (compute(50, 60, flops=0.7), NOT_HERE, {"GRPO, G = 8, mean": 50}),
    ],
    "group-advantage": [
        (groups(), HOLDS, {"no state shared": 1, "likelier, one network": 1, "weighted sum": 1}),
        (groups(shared=(0.5, 0)), CONDITION, {"likelier, one network": 0.925}),
        (groups(separate=(1, 0.5)), NOT_HERE, {"no state shared": 0.975}),
        (groups(shared=(0.5, 1), together=(0, 1)), NOT_HERE, {"weighted sum had risen": 0.95}),
    ],
    "grpo-is-ppo-shaped": [
        (beside_ppo(9e-6, 0.1), HOLDS, {"gradients, relative": 9e-6, "clipped": 0.19}),
        (beside_ppo(1e-5, 0.1), NOT_HERE, {"gradients, relative": 1e-5, "mean over each output": 0.5}),
        (beside_ppo(1e-7, 0.0), NOT_HERE, {"clipped": 0.18}),
    ],
    "grpo-kl": [
        (penalties(6, 5, 4, 3, 2, 1), HOLDS, {"end, β = 0": 6, "end, β = 1": 1, "held out, β = 0.1": 0.9}),
        (penalties(6, 6, 7, 3, 2, 1), CONDITION, {"end, β = 0.04": 7, "outputs of k3": 0.5}),
        (penalties(6, 6, 6, 6, 7, 8), NOT_HERE, {"end, β = 0.3": 7}),
    ],
    "grpo-samples": [
        (samples(10, 20, 20, 20, 30, None), HOLDS, {"G = 2": 20 * 512, "PPO": 10 * 512}),
        (samples(10, 10, 20, 20, 20, 5), CONDITION, {"G = 32": 5 * 512}),
        (samples(10, 10, 9, 8, 7, 6), NOT_HERE, {"G = 16": 7 * 512}),
    ],
    "grpo-hard-critic": [
        (hard(0.9, 0.8, 0.7), HOLDS, {"held out, GRPO": 0.9, "less PPO": 0.1, "explains": 0.2}),
        (hard(0.9, 0.8, 0.95), CONDITION, {"less PPO, λ = 1": -0.05}),
        (hard(0.9, 0.8, 0.7, falls=1), NOT_HERE, {"runs that fall, GRPO": 0.1}),
        (hard(0.8, 0.8, 0.9), NOT_HERE, {"less PPO": 0}),
    ],
    "grpo-general": [
        (solvers(8, 9, 10), HOLDS, {"solve CartPole": 0.8, "solve Pendulum": 1, "discounted": -150}),
        (solvers(7, 8, 0), CONDITION, {"CartPole": 0.7, "Acrobot": 0.8, "Pendulum": 0}),
        (solvers(7, 7, 7), NOT_HERE, {"solve Acrobot": 0.7}),
    ],
    "ppo-no-cliff": [
        (cliffs(3, 30), HOLDS, {"with the clip": 0.05, "without it": 0.5, "difference": 0.45, "final": 450}),
        (cliffs(4, 60), CONDITION, {"with the clip": 4 / 60, "difference": 56 / 60}),
        (cliffs(0, 1), NOT_HERE, {"difference": 1 / 60}),  # some draws are without it
        (cliffs(0, 0), NOT_HERE, {"without it": 0, "difference": 0}),
        (cliffs(30, 3), NOT_HERE, {"difference": -0.45}),
    ],
    "ppo-first-order": [
        (first_order(0.95, 0.75), HOLDS, {"less that of TRPO": -0.05, "score of TRPO, plain": 0.8}),
        (first_order(2.0, 0.5), CONDITION, {"less that of TRPO": 1, "without the details": -0.3}),
        (first_order(0.7, 0.8), NOT_HERE, {"less that of TRPO": -0.3, "without the details": 0}),
        (first_order(1.0, 0.8, spread=0.5), NOT_HERE, {"less that of TRPO": 0}),  # as good, maybe
    ],
    "ppo-epochs": [
        (epochs(500, 100, 300), HOLDS, {"1 epochs": 500, "6 epochs": 100, "lr × 4": 300}),
        (epochs(None, 100, 100), CONDITION, {"1 epochs": 1_000, "6 epochs": 100}),
        (epochs(100, 100, 300), NOT_HERE, {"1 epochs": 100}),
    ],
    "ppo-parallel": [
        (parallel(FAST, (40, 30, 20, 10, 10)), HOLDS, {"over those with 1": 9, "PPO, 4 environments": 30}),
        (
            parallel(FAST, (40, 30, 10, 20, 10)),
            CONDITION,
            {"16 environments": 400, "PPO, 16 environments": 10},
        ),
        (parallel(FAST, (40, 30, 20, 10, 30)), CONDITION, {"PPO, 256 environments": 30}),
        (parallel(FAST, (10,) * 5), NOT_HERE, {"PPO, 1 environments": 10}),
        (parallel((100, 99, 99, 190, 99), (40, 30, 20, 10, 10)), NOT_HERE, {"over those with 1": 1.9}),
    ],
    "ppo-robust": [
        (robust((1, 0.5, 1), (0.9, 0.45, 1.1)), HOLDS, {"on CartPole": 0.9, "Acrobot": 0.9, "Pendulum": 1.1}),
        (robust((1, 1, 2), (0.5, 0.9, 1)), CONDITION, {"on CartPole": 0.5, "Pendulum": 0.5}),
        (robust(ONES, (0.7,) * 3), NOT_HERE, {"on CartPole": 0.7}),
        (robust(ONES, (0.9,) * 3, spread=1), NOT_HERE, {"on CartPole": 0.9}),  # as much, maybe
    ],
    "ppo-variants": [
        (variants((100, 300, 300), (200, 300, 300)), HOLDS, {"PPO on Cart": 100, "PPO-penalty on Cart": 200}),
        (variants((100, 300, None), (200, 300, 400)), CONDITION, {"PPO on Pendulum": 1_000}),
        (variants((100,) * 3, (100,) * 3), NOT_HERE, {"PPO on Acrobot": 100}),
        (variants((100,) * 3, (100, 50, 100)), NOT_HERE, {"PPO-penalty on Acrobot": 50}),
    ],
    "ppo-entropy": [
        (entropies((5, 20, 19, 18, 17, 16), AWAKE), HOLDS, {"goal, c₂ = 0": 0.25, "entropy, c₂ = 0": 0.3}),
        (entropies((5, 20, 20, 20, 20, 5), AWAKE), CONDITION, {"goal, c₂ = 1": 0.25, "entropy, c₂ = 1": 0.8}),
        # 8 and 15 of 20: apart by 0.35, of which a standard error is 0.146; that is 2.4, and 99 % need 2.6.
        (entropies((8, 15, 20, 20, 20, 20), AWAKE), CONDITION, {"goal, c₂ = 0.01": 0.75}),
        (entropies((5,) * 6, AWAKE), NOT_HERE, {"goal, c₂ = 0.3": 0.25}),
        (entropies((5, *(20,) * 5), ASLEEP), NOT_HERE, {"entropy, c₂ = 1": 0.3}),
    ],
    "ppo-stable": [  # the worst are 5 of 50 scores, and 3 of the middle 30
        (stability((1, 1, 0.9, 1, 0.6), falls=4), HOLDS, {"PPO's": 0.6, "a quarter": 0.9, "fall": 0.08}),
        (stability((0, 1, 0.5, 1, 1), a2c=(1, 1, -1, 1, 1)), CONDITION, {"a quarter": 0.5, "A2C's": -1}),
        (stability((1, 0.4, 1, 1, 1)), NOT_HERE, {"PPO's": 0.4, "a quarter": 0.4, "fall": 0}),
    ],
    "a3c-parallel": [
        (clock(**DEFAULT, a2c=(15, 200)), HOLDS, {"A3C, 1": 30, "A3C, 4": 10, "A2C": 15}),
        (clock(one=(30, 9), two=(20, 9), four=(40, 9), a2c=(20, 9)), CONDITION, {"A2C": 20}),
        (clock(one=(30, 9), two=(30, 9), four=(10, 9), a2c=(20, 9)), NOT_HERE, {"A3C, 2": 30}),
    ],
    "ppo-beats-a3c": [
        (clock(**DEFAULT, ppo=(5, 100)), HOLDS, {"PPO": 5, "A3C, 4 workers": 10}),
        (clock(**DEFAULT, ppo=(5, 300)), CONDITION, {"PPO": 5}),
        (clock(**DEFAULT, ppo=(10, 100)), NOT_HERE, {"PPO": 10}),
    ],
    "trpo-cost": [
        (costs(20, 10, 1.05, 1), HOLDS, {"over those with PPO": 2, "PPO, the same": 1, "mean score": 0.05}),
        (costs(20, 10, 1.3, 1), CONDITION, {"TRPO, 1,024 steps": 2, "mean score": 0.3}),
        (costs(20, 10, 0.7, 1), CONDITION, {"mean score": -0.3}),
        (costs(20, 10, spread=0.5), CONDITION, {"mean score": 0}),  # comparable, maybe
        (costs(10, 10), NOT_HERE, {"over those with PPO": 1}),
    ],
    "sb3-cartpole": [
        (example(9), HOLDS, {"share of seeds": 0.9}),
        (example(5), CONDITION, {"share of seeds": 0.5}),
        (example(4), NOT_HERE, {"share of seeds": 0.4}),
    ],
}


def replayed(cartpole, acrobot):
    """Steps of PPO and DQN to the threshold, on both tasks."""
    return {
        (study, label, task): learns(at, task)
        for task, pair in ((CARTPOLE, cartpole), (ACROBOT, acrobot))
        for (study, label), at in zip((("benchmark", "PPO"), ("off_policy", "DQN")), pair, strict=True)
    }


def ablated(whole, no_replay, no_target, neither=0.0):
    labels = {"no replay": no_replay, "no target network": no_target, "neither": neither}
    runs = {("replay", label, CARTPOLE): scored(score) for label, score in labels.items()}
    return chance() | {("off_policy", "DQN", CARTPOLE): scored(whole)} | runs


def binned(free, dqn, ppo):
    made = {("benchmark", "PPO", PENDULUM): results(free + EVEN)}
    for name, returns in (("DQN", dqn), ("PPO", ppo)):
        for bins, mean in zip(BINS, returns, strict=True):
            made["bins", f"{name}, {bins} bins", f"policyopt/Pendulum{bins}-v0"] = results(mean + EVEN)
    return made


def samples(ddpg, ppo, a2c, trpo):
    runs = {"PPO": ppo, "A2C": a2c, "TRPO": trpo}
    made = {("benchmark", label, PENDULUM): learns(at, PENDULUM) for label, at in runs.items()}
    off = {"DDPG": ddpg, "TD3": 40, "SAC": None}
    return made | {("off_policy", label, PENDULUM): learns(at, PENDULUM) for label, at in off.items()}


# Rules that were fixed before their studies were run; they enter the ledger with the results.
AHEAD = {
    "ppo_on_policy": [
        (replayed((200, 100), (200, 100)), HOLDS, {"DQN, CartPole-v1": 100, "PPO, CartPole-v1": 200}),
        (replayed((200, 100), (100, 200)), CONDITION, {"DQN, Acrobot-v1": 200}),
        (replayed((100, 100), (100, None)), NOT_HERE, {"DQN, Acrobot-v1, reached by no seed within": 1_000}),
    ],
    "dqn_tricks": [
        (ablated(1, 0.5, 0.8), HOLDS, {"less that with no replay": 0.5, "score with no target": 0.8}),
        (ablated(1, 0.5, 1), CONDITION, {"less that with no target": 0}),
        (ablated(1, 1, 0.8), CONDITION, {"less that with no replay": 0}),
        (ablated(0.9, 1, 0.95), NOT_HERE, {"score of DQN less that with no replay": -0.1, "with neither": 0}),
    ],
    "dqn_actions": [
        (
            binned(-150, (-300, -200, -400), (-300, -250, -300)),
            HOLDS,
            {"best, 11 bins": 50, "less DQN, 101": 100},
        ),
        (binned(-150, (-300, -200, -400), (-300, -250, -450)), CONDITION, {"less DQN, 101": -50}),
        (binned(-250, (-300, -200, -400), (-300, -250, -300)), CONDITION, {"best, 11 bins": -50}),
        (binned(-250, (-150, -200, -200), (-300, -250, -200)), NOT_HERE, {"best, 3 bins": -100}),
    ],
    "ddpg_samples": [
        (samples(100, 200, 300, None), HOLDS, {"DDPG, mean": 100, "TRPO, reached by no seed within": 1_000}),
        (samples(250, 200, 300, 300), CONDITION, {"PPO, mean": 200}),
        (samples(400, 200, 300, 300), NOT_HERE, {"A2C, mean": 300}),
    ],
}


@pytest.mark.parametrize(
    ("name", "made", "verdict", "figures"),
    [pytest.param(name, *case, id=f"{name} {case[1].name}") for name in AHEAD for case in AHEAD[name]],
)
def test_rules_ahead_of_their_results(name, made, verdict, figures):
    finding = getattr(rules, name)(Made(made))
    assert finding.verdict is verdict
    for words, expected in figures.items():
        value = next(figure.value for figure in finding.figures if words in figure.name)
        assert getattr(value, "point", value) == pytest.approx(expected, rel=1e-4, abs=1e-9), words


@pytest.mark.parametrize(
    ("name", "made", "verdict", "figures"),
    [pytest.param(name, *case, id=f"{name} {case[1].name}") for name in CASES for case in CASES[name]],
)
def test_rules_by_hand(name, made, verdict, figures):
    evidence = Made(made)
    finding = CLAIMS[name].decide(evidence)
    assert evidence.asked == set(CLAIMS[name].studies)
    for words, expected in figures.items():
        value = next(figure.value for figure in finding.figures if words in figure.name)
        point = value.point if isinstance(value, Interval) else value
        assert (
            point == expected
            if isinstance(expected, str)
            else point == pytest.approx(expected, rel=1e-4, abs=1e-9)
        ), words  # e^±0.01 is 1.00005 on average
    assert finding.verdict is verdict


def test_every_rule_is_seen_to_give_every_verdict_it_can():
    assert list(CASES) == [name for name, claim in CLAIMS.items() if claim.decide is not None]
    for name, cases in CASES.items():
        possible = {"grpo-is-ppo-shaped": {HOLDS, NOT_HERE}, "grpo-name": {NOT_HERE}}.get(name, set(Verdict))
        assert {verdict for _, verdict, _ in cases} == possible


@pytest.mark.parametrize(
    ("curve", "falls"),
    [
        ([NAN, 20, 100, 300, 500], False),
        ([NAN, 20, 300, 149, 300], True),
        ([300, 400, 200, 400], False),  # exactly half
        ([300, 400, 199.9], True),
        ([99, 10, 99], False),  # the peak is below the floor
        ([100, 49], True),
        ([NAN, NAN, 100, 50], False),
        ([10, 100, 200], False),  # low before the peak
        ([200, 101, 500, 251, 480], False),  # of the best so far, not of the best there will be
        ([NAN], False),
    ],
)
def test_share_that_collapses_by_hand(curve, falls):
    assert share_that_collapses([np.array(curve)]).tolist() == [falls]


def test_share_that_collapses_with_another_floor_and_many_runs():
    curves = [np.array([30.0, 10.0]), np.array([19.0, 1.0]), np.array([150.0, 70.0, 150.0])]
    assert share_that_collapses(curves).tolist() == [False, False, True]
    assert share_that_collapses(iter(curves), floor=20.0).tolist() == [True, False, True]


def test_worst_tenth_by_hand():
    scores = np.arange(40.0)[::-1].reshape(10, 4)
    assert worst_tenth(scores) == 1.5  # of 0, 1, 2, 3
    assert worst_tenth(np.stack([scores, 10 + scores])).tolist() == [1.5, 11.5]
    assert worst_tenth(np.array([[3.0], [2.0], [5.0]])) == 2  # at least one


# --- figures, findings, claims ---


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (Interval(0.5, 0.25, 0.751), "", "n: 0.500 [0.250, 0.751]"),
        (Interval(-12.34, -56.78, 0.0), "s", "n: -12.3 [-56.8, 0] s"),
        (Interval(123_456.0, 99_960.0, 1_234_567.0), "steps", "n: 123,000 [100,000, 1,230,000] steps"),
        (0.0, "", "n: 0"),
        (1.0, "nats", "n: 1.00 nats"),
        (-0.05, "", "n: -0.0500"),
        (0.00012345, "", "n: 0.000123"),
        (0.00001, "", "n: 1e-05"),
        (-2.4e-7, "", "n: -2e-07"),
        (999.6, "", "n: 1,000"),
        (-1_234.5, "", "n: -1,230"),
        (12.345, "", "n: 12.3"),
        ("a name", "", "n: a name"),
    ],
)
def test_a_figure_in_print(value, unit, text):
    assert str(Figure("n", value, unit)) == text


@pytest.mark.parametrize(
    "value", [NAN, float("inf"), Interval(1.0, NAN, 2.0), Interval(1.0, 0.0, float("inf"))]
)
def test_a_figure_must_be_finite(value):
    with pytest.raises(ValueError, match=r"the figure 'speed' is .*; it must be finite"):
        Figure("speed", value)


def test_a_finding_needs_a_figure():
    with pytest.raises(ValueError, match="a finding must have a figure"):
        Finding(HOLDS, ())


def decide(evidence):
    return Finding(HOLDS, (Figure("half", 0.5, "of it"),))


@pytest.mark.parametrize("given", [{"rule"}, {"studies"}, {"decide"}])
def test_a_rule_its_words_and_its_studies_belong_together(given):
    parts = {"rule": "Holds.", "studies": ("smoke",), "decide": decide}
    for chosen in (given, set(parts) - given):  # and what is left over
        if chosen == {"rule", "decide"}:  # a name, say, is decided by no study
            continue
        with pytest.raises(ValueError, match="claim x: a rule, its words and its studies belong together"):
            Claim("x", "It is so.", **{name: parts[name] for name in chosen})
    Claim("x", "It is so.", **parts)
    Claim("x", "It is so.")


def test_unknown_studies_are_refused():
    with pytest.raises(ValueError, match="claim x: there is no study nine, zero"):
        Claim("x", "It is so.", "Holds.", ("zero", "smoke", "nine"), decide)


def test_no_rule_is_applied_before_all_its_studies_are_there():
    asked = []
    claim = Claim("x", "It is so.", "Holds.", ("smoke", "clip"), lambda evidence: asked.append("rule"))
    evidence = Made({})
    evidence.require = asked.append
    claim.find(evidence)
    assert asked == ["smoke", "clip", "rule"]
    with pytest.raises(MissingEvidence, match="nothing has been measured yet"):
        Claim("x", "It is so.").find(evidence)


# --- the ledger ---


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """All studies, of two seeds, with the same small numbers in every cell but the random policy's."""
    studies = {name: dataclasses.replace(study, seeds=range(2)) for name, study in STUDIES.items()}
    monkeypatch.setattr(claims_module, "STUDIES", studies)
    monkeypatch.setattr(evidence_module, "STUDIES", studies)
    made = [cells[0] for cases in CASES.values() for made, *_ in cases for cells in made.values()]
    history = {name: np.ones(2) for cell in made for name in cell.history}
    for study in studies.values():
        (tmp_path / study.name).mkdir()
        for cell in study.cells():
            returns = np.array([-1_300.0 if cell.label == "random" else -1_000.0])
            about = {"run": cell.run, "provenance": {"policyopt": "0.1"}}
            path = Store(tmp_path / study.name).path(cell)
            path.write_bytes(pack_result(Result(history, returns, np.ones(2), about)))
    return tmp_path


def assert_no_verdict(row, missing):
    assert pd.isna(row.verdict)
    assert row.figures == []
    assert row.missing.startswith(missing)


NOTHING = "nothing has been measured yet"


def test_the_ledger_has_the_claims_of_the_book():
    assert " ".join(CLAIMS) == (
        "loop reinforce-gradient baseline-variance actor-critic grpo-name grpo-memory grpo-compute "
        "group-advantage grpo-is-ppo-shaped grpo-kl grpo-samples grpo-hard-critic grpo-general ppo-no-cliff "
        "ppo-first-order ppo-epochs ppo-on-policy ppo-parallel ppo-robust ppo-variants ppo-entropy "
        "ppo-stable dqn-tricks dqn-actions a3c-parallel ppo-beats-a3c trpo-cost ddpg-samples ddpg-finicky "
        "sb3-cartpole"
    )
    assert all(name == claim.name for name, claim in CLAIMS.items())


def test_without_any_result_there_is_no_verdict(tmp_path):
    table = ledger(tmp_path)
    assert table.name.tolist() == list(CLAIMS)
    for row in table.itertuples():
        if row.rule and not row.studies:  # nothing needs to be measured
            assert (row.verdict, row.missing) == ("does not hold here", "")
        else:
            assert_no_verdict(row, f"study {row.studies[0]}: 0 of " if row.rule else NOTHING)


def test_with_all_results_there_is_a_verdict_wherever_there_is_a_rule(folder):
    table = ledger(folder)
    assert list(table) == ["name", "claim", "rule", "studies", "verdict", "figures", "missing", "changed"]
    for row in table.itertuples():
        claim = CLAIMS[row.name]
        assert (row.claim, row.rule, row.studies) == (claim.text, claim.rule, claim.studies)
        if claim.decide is None:
            assert_no_verdict(row, NOTHING)
        else:
            assert row.verdict in [verdict.value for verdict in Verdict]
            assert row.missing == ""
            assert row.figures


def test_one_cell_less_and_there_is_no_verdict(folder, monkeypatch):
    """Rules have been seen to work above; here a quick one takes the place of each."""
    quick = {
        name: dataclasses.replace(claim, decide=claim.decide and decide) for name, claim in CLAIMS.items()
    }
    monkeypatch.setattr(claims_module, "CLAIMS", quick)
    for study in {study for claim in CLAIMS.values() for study in claim.studies}:
        cells = evidence_module.STUDIES[study].cells()
        path = Store(folder / study).path(cells[len(study) % len(cells)])  # any one
        kept = path.read_bytes()
        path.unlink()
        for row in ledger(folder).itertuples():
            if study in row.studies:
                reason = f"study {study}: {len(cells) - 1} of {len(cells)} cells are done"
                assert_no_verdict(row, f"{reason}; policyopt study run {study}")
            elif row.rule:
                assert (row.verdict, row.missing) == ("holds", "")
            else:
                assert_no_verdict(row, NOTHING)
        path.write_bytes(kept)


def test_a_damaged_cell_is_an_error(folder):
    next((folder / "groups").iterdir()).write_bytes(b"junk")
    with pytest.raises(ValueError, match="damaged"):
        ledger(folder)


# --- the commands ---


def printed(capsys, *arguments):
    cli.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_claims_without_results_are_printed_without_verdicts(tmp_path, capsys):
    text = printed(capsys, "claims", "--results", tmp_path)
    heads = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert [head.partition(": ")[0] for head in heads[:-1]] == list(CLAIMS)
    decided = [head for head in heads[:-1] if ": no verdict (" not in head]
    assert decided == ["grpo-name: does not hold here"]
    assert heads[-1] == "29 × no verdict, 1 × does not hold here"
    one = " ".join(printed(capsys, "claims", "ppo-robust", "--results", tmp_path).split())
    missing = "study benchmark: 0 of 300 cells are done; policyopt study run benchmark"
    claim = CLAIMS["ppo-robust"]
    assert one.startswith(f"ppo-robust: no verdict ({missing}) {claim.text} rule: {claim.rule}")
    assert one.endswith("studies: benchmark, robustness 1 × no verdict")
    assert not list(tmp_path.iterdir())


def test_claims_with_and_without_verdicts_are_printed(tmp_path, capsys, monkeypatch):
    """Side by side: one without must not pass for one with a verdict."""
    made = [
        Claim("yes", "It is so.", "Holds if so.", ("smoke",), decide, changed="It was too strict."),
        Claim("no", "It is not.", "Holds if not.", ("clip",), decide),
        Claim("open", "It may be."),
    ]
    monkeypatch.setattr(claims_module, "CLAIMS", {claim.name: claim for claim in made})
    read = Evidence._read
    monkeypatch.setattr(Evidence, "_read", lambda self, study: study.name == "smoke" or read(self, study))
    blocks = printed(capsys, "claims", "--results", tmp_path).split("\n\n")
    yes, no, unknown = (block.split("\n    ") for block in blocks[:3])
    assert yes[:3] == ["yes: holds", "It is so.", "half: 0.500 of it"]
    assert yes[3:] == ["rule: Holds if so.", "rule changed: It was too strict.", "studies: smoke"]
    assert no[0] == "no: no verdict (study clip: 0 of 120 cells are done; policyopt study run clip)"
    assert no[1:] == ["It is not.", "rule: Holds if not.", "studies: clip"]
    assert unknown == ["open: no verdict (nothing has been measured yet)", "It may be."]
    assert blocks[3] == "1 × holds, 2 × no verdict\n"
    some = printed(capsys, "claims", "open", "yes", "--results", tmp_path)
    assert some.split("\n\n") == [blocks[0], blocks[2], "1 × holds, 1 × no verdict\n"]


def test_an_unknown_claim_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["claims", "loop", "nonsense", "--results", str(tmp_path)])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"policyopt: there is no claim 'nonsense'; there are {', '.join(CLAIMS)}\n"


def test_studies_are_listed_with_what_is_done(tmp_path, capsys):
    counts = dict.fromkeys(STUDIES, 0) | {"groups": 1}
    path = Store(tmp_path / "groups").path(STUDIES["groups"].cells()[0])
    path.parent.mkdir()
    path.touch()
    lines = printed(capsys, "study", "list", "--results", tmp_path).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        f"{name} {done} of {len(STUDIES[name].cells())} cells done" for name, done in counts.items()
    ]
