"""The rules that decide the field's claims: what a verdict is, and how it follows from stored results.

Intervals are 95 % unless a rule says otherwise. A task counts as solved when the mean return of 100 fresh
episodes, greedy, reaches 475 on CartPole-v1, −100 on Acrobot-v1, −200 on Pendulum-v1; on the scale of
scores, chance is 0 and solved is 1. Times to the threshold are those at which the training return, the mean
of the last 20 episodes or of the last batch of them, reaches it; what is compared is their mean up to a
common horizon.
"""

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from policyopt.envs import BINS
from policyopt.experiments.evidence import SOLVED, Evidence
from policyopt.experiments.language import cost_column
from policyopt.experiments.stats import (
    Interval,
    TimeToThreshold,
    interval,
    mean_difference,
    mean_score,
    time_to_threshold,
)
from policyopt.experiments.studies import (
    A2C_LEARNING_RATES,
    BETAS,
    CLIP_EPOCHS,
    CLIP_LEARNING_RATES,
    ENTROPY_COEFS,
    ENVIRONMENTS,
    EPOCHS,
    GROUP_SIZES,
    PPO_LEARNING_RATES,
    STUDIES,
    UNCLIPPED,
    WORKERS,
    clip_label,
)
from policyopt.language.cost import SETTINGS_COMPARED, SIZES, saved

__all__ = ["Figure", "Finding", "Verdict", "share_that_collapses"]

CARTPOLE, ACROBOT, PENDULUM = TASKS = tuple(SOLVED)


class Verdict(enum.Enum):
    """What the evidence says."""

    HOLDS = "holds"
    CONDITION = "holds with a condition"
    NOT_HERE = "does not hold here"


@dataclass(frozen=True)
class Figure:
    """A number that decides, with its interval where it is an estimate; a text where that is the question."""

    name: str
    value: Interval | float | str
    unit: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.value, str):
            return
        if not np.isfinite(np.atleast_1d(np.asarray(self.value, dtype=float))).all():
            raise ValueError(f"the figure {self.name!r} is {self.value}; it must be finite")

    def __str__(self) -> str:
        if isinstance(self.value, Interval):
            point, low, high = (_short(value) for value in self.value)
            text = f"{point} [{low}, {high}]"
        elif isinstance(self.value, str):
            text = self.value
        else:
            text = f"{self.value:,}" if isinstance(self.value, int) else _short(self.value)
        return f"{self.name}: {text}{self.unit and ' '}{self.unit}"


def _short(value: float) -> str:
    """Three significant digits, without exponents where they can be avoided."""
    if value == 0 or abs(value) < 1e-4:
        return f"{value:.1g}"
    digits = max(2 - math.floor(math.log10(abs(value))), 0)
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{digits}f}"


@dataclass(frozen=True)
class Finding:
    """A verdict and the figures it follows from, of which there must be some."""

    verdict: Verdict
    figures: tuple[Figure, ...]

    def __post_init__(self) -> None:
        if not self.figures:
            raise ValueError("a finding must have a figure")


# --- what rules have in common ---


def graded(full: bool, partly: bool) -> Verdict:
    """The verdict for a claim that holds in full, partly, or not."""
    return Verdict.HOLDS if full else Verdict.CONDITION if partly else Verdict.NOT_HERE


def share(hits: Sequence[bool] | np.ndarray) -> Interval:
    """A share of independent runs and its exact interval (Clopper & Pearson, 1934)."""
    hits = np.asarray(hits, dtype=bool)
    return time_to_threshold(np.ones(len(hits)), hits).reached


def mean_of(values: np.ndarray) -> Interval:
    """The mean of a number for each seed and its bootstrap interval."""
    return interval(np.asarray(values, dtype=float)[:, None], mean_score)


def sooner(one: Interval, other: Interval) -> bool:
    """Whether the first interval lies whole below the second."""
    return bool(one.high < other.low)


def describe_times(times: dict[tuple[str, str], TimeToThreshold], unit: str, where: str = "") -> list[Figure]:
    """For each run the mean time up to the horizon and how many got there at all; and the horizon."""
    figures = []
    for (_, label), found in times.items():
        if found.reached.point == 0:
            figures.append(Figure(f"{label}{where}, reached by no seed within", found.horizon, unit))
            continue
        name = f"{label}{where}, mean, reached by {found.reached.point:.0%} of the seeds"
        figures.append(Figure(name, found.restricted_mean, unit))
    horizon = next(iter(times.values())).horizon
    return [*figures, Figure(f"horizon of these means{where}", horizon, unit)]


def share_that_collapses(returns: Iterable[np.ndarray], floor: float = 100.0) -> np.ndarray:
    """Which learning curves fall off a cliff: after a peak of at least ``floor`` they are, at some later row,
    below half of the best so far.

    Args:
        returns: training returns, one array ``[rows]`` for each run, NaN before the first episode has ended;
            for tasks whose returns are not negative.
        floor: below it half a peak is noise; 100 of CartPole's 500.

    Returns:
        ``[runs]`` bool.
    """
    collapsed = []
    for values in returns:
        values = np.nan_to_num(np.asarray(values, dtype=float))
        best = np.maximum.accumulate(values)
        collapsed.append(bool(((best >= floor) & (values < best / 2)).any()))
    return np.array(collapsed)


# --- the rules ---


def loop(evidence: Evidence) -> Finding:
    gains = {
        f"{label} on {environment}": mean_difference(
            evidence.score("benchmark", label, environment)[:, None],
            evidence.score("benchmark", "random", environment)[:, None],
        )
        for label in STUDIES["benchmark"].runs
        for environment in TASKS
        if label != "random"
    }
    above = [bool(gain.low > 0) for gain in gains.values()]
    name, smallest = min(gains.items(), key=lambda item: item[1].point)
    figures = (
        Figure(f"algorithm and task pairs above chance, of {len(above)}", sum(above)),
        Figure(f"the smallest gain in score, {name}", smallest),
    )
    return Finding(graded(all(above), any(above)), figures)


def reinforce_gradient(evidence: Evidence) -> Finding:
    where = ("gradient", "REINFORCE", "FrozenLake-v1")
    with_discount = mean_of(evidence.last(*where, "mean_square_deviation"))
    without = mean_of(evidence.last(*where, "mean_square_deviation_without_discount"))
    unbiased = with_discount.low <= 1 <= with_discount.high
    figures = (
        Figure("mean squared deviation in standard errors, 1 if unbiased", with_discount),
        Figure("the same without γ^t", without),
    )
    return Finding(graded(unbiased and without.low <= 1 <= without.high, unbiased), figures)


def baseline_variance(evidence: Evidence) -> Finding:
    label, environment = "PPO's policy", CARTPOLE
    names = {"mean_baseline": "a mean", "value_baseline": "a critic", "gae": "GAE"}
    columns = {
        name: np.stack(evidence.column("variance", label, environment, f"variance_{name}"))
        for name in ("whole_return", "to_go", *names)
    }  # [seeds, stages]
    figures, smaller = [], []
    for name, words in {"to_go": "reward-to-go", **names}.items():
        reference = "whole_return" if name == "to_go" else "to_go"
        logs = np.log(columns[name] / columns[reference])
        for stage in range(logs.shape[1]):
            ratio = Interval(*np.exp(interval(logs[:, [stage]], mean_score)))
            smaller.append(ratio.high < 1)
            against = "the whole return" if name == "to_go" else "reward-to-go"
            figures.append(Figure(f"variance with {words} over {against}, stage {stage}", ratio))
    return Finding(graded(all(smaller), any(smaller)), tuple(figures))


def actor_critic(evidence: Evidence) -> Finding:
    figures, better = [], []
    runs = [("benchmark", label) for label in ("REINFORCE", "REINFORCE, value", "A2C")]
    for environment in (CARTPOLE, ACROBOT):
        times = evidence.times(runs, environment)
        means = [times[run].restricted_mean for run in runs]
        better += [sooner(mean, means[0]) for mean in means[1:]]
        figures += describe_times(times, "steps", f" on {environment}")
    return Finding(graded(all(better), any(better)), tuple(figures))


def group_advantage(evidence: Evidence) -> Finding:
    separate, shared, together = (
        np.concatenate(evidence.column("groups", label, CARTPOLE, name))
        for label, name in (
            ("no state shared", "better_rose"),
            ("one network", "better_rose"),
            ("one network", "weighted_sum_rose"),
        )
    )
    per_seed = [rows.mean() for rows in evidence.column("groups", "one network", CARTPOLE, "better_rose")]
    figures = (
        Figure("better outputs that became likelier, no state shared", float(separate.mean())),
        Figure("better outputs that became likelier, one network", mean_of(np.array(per_seed))),
        Figure("steps after which their weighted sum had risen, one network", float(together.mean())),
    )
    partly = (separate == 1).all() and (together == 1).all()
    return Finding(graded(bool(partly and (shared == 1).all()), bool(partly)), figures)


def grpo_is_ppo_shaped(evidence: Evidence) -> Finding:
    where = ("groups", "beside PPO", CARTPOLE)
    difference = float(evidence.last(*where, "largest_gradient_difference").max())
    clipped = evidence.last(*where, "clip_fraction")
    other = evidence.last(*where, "largest_gradient_difference_per_output_mean")
    figures = (
        Figure("largest difference of the gradients, relative", difference),
        Figure("the same with GRPO's mean over each output", mean_of(other)),
        Figure("share of ratios clipped", mean_of(clipped)),
    )
    same = difference < 1e-5 and bool((clipped > 0).all())
    return Finding(graded(same, partly=False), figures)


def grpo_name(evidence: Evidence) -> Finding:
    names = {"the article": "Generalized Reinforcement", "Shao et al. (2024)": "Group Relative"}
    names = {who: f"{words} Policy Optimization" for who, words in names.items()}
    figures = tuple(Figure(f"the name according to {who}", name) for who, name in names.items())
    return Finding(graded(len(set(names.values())) == 1, partly=False), figures)


def share_saved(evidence: Evidence, what: str) -> dict[tuple[int, str], float]:
    """What GRPO saves of PPO's ``bytes`` or ``flops`` at equal outputs, by size and setting."""
    found = {}
    for size in SIZES:
        cell = evidence.cells("memory", "PPO and GRPO", size)[0]
        for setting in SETTINGS_COMPARED:
            ppo, grpo = (
                float(cell.history[cost_column(what, algorithm, setting)][0]) for algorithm in ("PPO", "GRPO")
            )
            found[size, setting] = saved(ppo, grpo)
    return found


def saved_figures(shares: dict[tuple[int, str], float], what: str) -> list[Figure]:
    """A figure for each setting: the least that is saved at any size, and the most."""
    figures = []
    for setting in SETTINGS_COMPARED:
        values = [share for (_, where), share in shares.items() if where == setting]
        text = f"{min(values):.0%} to {max(values):.0%}"
        figures.append(Figure(f"{what} saved with {setting}, {len(values)} sizes", text))
    return figures


def grpo_memory(evidence: Evidence) -> Finding:
    shares = share_saved(evidence, "bytes")
    near = {
        setting: all(abs(share - 0.5) <= 0.05 for (_, where), share in shares.items() if where == setting)
        for setting in SETTINGS_COMPARED
    }
    figures = saved_figures(shares, "memory")
    return Finding(graded(all(near.values()), any(near.values())), tuple(figures))


TO_LEVEL = {"of": "reward", "level": 0.95}  # of the addition's training reward, the mean of 512 outputs


def grpo_compute(evidence: Evidence) -> Finding:
    shares = share_saved(evidence, "flops")
    runs = [("outputs", label) for label in ("GRPO, G = 8", "PPO, 1 output", "PPO, 8 outputs")]
    times = evidence.times(runs, "addition", "update", **TO_LEVEL)
    updates = [times[run].restricted_mean for run in runs]
    seconds = {
        label: mean_of(
            evidence.last("token_clock", label, "addition", "seconds")
            / evidence.last("token_clock", label, "addition", "update")
        )
        for _, label in runs
    }
    grpo, *others = (
        seconds[label].point * mean.point for (_, label), mean in zip(runs, updates, strict=True)
    )
    ratios = [grpo / other for other in others]
    more = [
        float(row[cost_column("flops", "GRPO", setting)][0])
        / float(row[cost_column("flops", "one output", setting)][0])
        for size in SIZES
        for row in [evidence.cells("memory", "PPO and GRPO", size)[0].history]
        for setting in SETTINGS_COMPARED
    ]
    figures = (
        *saved_figures(shares, "FLOPs of an update with as many outputs"),
        Figure(
            "FLOPs with as many prompts, GRPO's 8 outputs over PPO's 1", f"{min(more):.1f} to {max(more):.1f}"
        ),
        *(Figure(f"seconds of an update, {label}", found, "s") for label, found in seconds.items()),
        *describe_times(times, "updates of 512 outputs"),
        Figure("seconds to reward 0.95, GRPO over PPO with 1 output", ratios[0]),
        Figure("seconds to reward 0.95, GRPO over PPO with 8 outputs", ratios[1]),
    )
    at_equal_outputs = all(0.4 <= share <= 0.6 for share in shares.values())
    to_level = ratios[0] <= 0.6
    return Finding(graded(at_equal_outputs and to_level, at_equal_outputs or to_level), figures)


def grpo_kl(evidence: Evidence) -> Finding:
    labels = {beta: f"β = {beta:g}" for beta in BETAS}
    where = {beta: ("reference", label, "addition") for beta, label in labels.items()}
    exact = {beta: evidence.last(*cell, "kl_exact") for beta, cell in where.items()}
    none, *others = BETAS
    closer = [mean_difference(exact[beta][:, None], exact[none][:, None]).high < 0 for beta in others]
    figures = [
        Figure(f"KL at the end, {labels[beta]}", mean_of(found), "nats") for beta, found in exact.items()
    ]
    figures += [
        Figure(f"reward of problems held out, {labels[beta]}", evidence.mean(*cell))
        for beta, cell in where.items()
    ]
    for name in ("exact", "k1", "k2", "k3"):
        spread = mean_of(evidence.last(*where[0.04], f"kl_{name}_std"))
        figures.append(Figure(f"standard deviation over outputs of {name}, β = 0.04", spread, "nats"))
    return Finding(graded(all(closer), any(closer)), tuple(figures))


def grpo_samples(evidence: Evidence) -> Finding:
    runs = [("outputs", f"GRPO, G = {size}") for size in GROUP_SIZES] + [("outputs", "PPO, 1 output")]
    times = evidence.times(runs, "addition", "outputs", **TO_LEVEL)
    *grpo, ppo = (times[run].restricted_mean for run in runs)
    more = [sooner(ppo, mean) for mean in grpo]
    return Finding(graded(all(more), any(more)), tuple(describe_times(times, "outputs")))


def grpo_hard_critic(evidence: Evidence) -> Finding:
    final = {label: evidence.final("critic", label, "long_sort") for label in STUDIES["critic"].runs}
    falls = {
        label: share_that_collapses(evidence.column("critic", label, "long_sort", "reward"), floor=0.5)
        for label in final
    }
    better = {
        label: mean_difference(final["GRPO"][:, None], values[:, None])
        for label, values in final.items()
        if label != "GRPO"
    }
    figures = [
        *(
            Figure(f"reward of problems held out, {label}", mean_of(values))
            for label, values in final.items()
        ),
        *(Figure(f"GRPO less {label}", difference) for label, difference in better.items()),
        *(
            Figure(f"standard deviation over seeds, {label}", float(values.std(ddof=1)))
            for label, values in final.items()
        ),
        *(Figure(f"share of runs that fall, {label}", share(hits)) for label, hits in falls.items()),
    ]
    for label in better:
        explained = evidence.column("critic", label, "long_sort", "explained_variance")
        halves = np.array([np.nanmean(values[len(values) // 2 :]) for values in explained])
        figures.append(
            Figure(f"variance the critic explains, second half of the training, {label}", mean_of(halves))
        )
    ahead = [difference.low > 0 for difference in better.values()]
    steady = all(falls["GRPO"].mean() <= falls[label].mean() for label in better)
    return Finding(graded(all(ahead) and steady, any(ahead) and steady), tuple(figures))


def grpo_general(evidence: Evidence) -> Finding:
    solved = {task: evidence.solved("benchmark", "GRPO", task) for task in TASKS}
    figures = [Figure(f"share of seeds that solve {task}", share(hits)) for task, hits in solved.items()]
    label = "those, discounted"
    figures.append(Figure("Pendulum, judged by discounted rewards", evidence.mean("credit", label, PENDULUM)))
    works = [hits.mean() >= 0.8 for hits in solved.values()]
    return Finding(graded(all(works), any(works)), tuple(figures))


def ppo_no_cliff(evidence: Evidence) -> Finding:
    settings = [(rate, epochs) for rate in CLIP_LEARNING_RATES for epochs in CLIP_EPOCHS]
    falls = [
        np.stack(
            [
                share_that_collapses(
                    evidence.column("clip", clip_label(clip, *setting), CARTPOLE, "episode_return")
                )
                for setting in settings
            ],
            axis=1,
        )
        for clip in (0.2, UNCLIPPED)
    ]  # [seeds, settings] each
    clipped, unclipped = (each.astype(float) for each in falls)
    difference = mean_difference(unclipped, clipped)
    final = [
        np.stack(
            [evidence.final("clip", clip_label(clip, *setting), CARTPOLE) for setting in settings], axis=1
        )
        for clip in (0.2, UNCLIPPED)
    ]
    figures = (
        Figure("share of runs that fall, with the clip", share(falls[0].ravel())),
        Figure("share of runs that fall, without it", share(falls[1].ravel())),
        Figure("difference", difference),
        Figure("final return with the clip", interval(final[0], mean_score)),
        Figure("final return without it", interval(final[1], mean_score)),
    )
    fewer = difference.low > 0
    return Finding(graded(bool(fewer and clipped.mean() <= 0.05), bool(fewer)), figures)


def ppo_first_order(evidence: Evidence) -> Finding:
    full, plain = (
        mean_difference(
            evidence.scores(study, f"PPO{end}", TASKS), evidence.scores(study, f"TRPO{end}", TASKS)
        )
        for study, end in (("benchmark", ""), ("details", ", plain"))
    )
    figures = (
        Figure("mean score of PPO less that of TRPO", full),
        Figure("the same without the details of both", plain),
        *(
            Figure(f"score of {label}", interval(evidence.scores(study, label, TASKS), mean_score))
            for study, label in (
                ("benchmark", "PPO"),
                ("benchmark", "TRPO"),
                ("details", "PPO, plain"),
                ("details", "TRPO, plain"),
            )
        ),
    )
    return Finding(graded(full.low >= -0.1 and plain.low >= -0.1, full.low >= -0.1), figures)


def ppo_epochs(evidence: Evidence) -> Finding:
    labels = [*(f"{epochs} epochs" for epochs in EPOCHS), "1 epochs, lr × 4"]
    times = evidence.times([("epochs", label) for label in labels], CARTPOLE)
    means = {label: times["epochs", label].restricted_mean for label in labels}
    figures = tuple(describe_times(times, "steps"))
    tuned = means["6 epochs"]
    than_one, than_large = (sooner(tuned, means[label]) for label in ("1 epochs", "1 epochs, lr × 4"))
    return Finding(graded(than_one and than_large, than_one), figures)


def steps_per_second(evidence: Evidence, label: str) -> np.ndarray:
    """Of the study ``clock``, ``[seeds]``."""
    where = ("clock", label, CARTPOLE)
    return evidence.last(*where, "step") / evidence.last(*where, "seconds")


def ppo_parallel(evidence: Evidence) -> Finding:
    labels = {number: f"PPO, {number} environments" for number in ENVIRONMENTS}
    speeds = {number: mean_of(steps_per_second(evidence, label)) for number, label in labels.items()}
    runs = [("clock", label) for label in labels.values()]
    times = evidence.times(runs, CARTPOLE, by="seconds")
    seconds = {number: times["clock", label].restricted_mean for number, label in labels.items()}
    ratio = np.log(steps_per_second(evidence, labels[64]) / steps_per_second(evidence, labels[1]))
    gain = Interval(*np.exp(mean_of(ratio)))
    best = min(seconds, key=lambda number: seconds[number].point)
    figures = (
        Figure("steps a second with 64 environments over those with 1", gain),
        *(Figure(f"{number} environments", speed, "steps a second") for number, speed in speeds.items()),
        *describe_times(times, "s"),
    )
    faster = gain.low > 2 and sooner(seconds[best], seconds[1])
    never_worse = all(not sooner(seconds[best], seconds[number]) for number in ENVIRONMENTS if number > best)
    return Finding(graded(bool(faster and never_worse), bool(faster)), figures)


def ppo_robust(evidence: Evidence) -> Finding:
    figures, kept = [], []
    for task in TASKS:
        tuned = evidence.score("benchmark", "PPO", task).mean()
        part = mean_of(evidence.score("robustness", "PPO, defaults", task) / tuned)
        figures.append(Figure(f"share of the tuned gain on {task}", part))
        kept.append(tuned > 0 and part.low >= 0.8)
    return Finding(graded(all(kept), any(kept)), tuple(figures))


def ppo_variants(evidence: Evidence) -> Finding:
    runs = [("benchmark", "PPO"), ("benchmark", "PPO-penalty")]
    figures, better, worse = [], [], []
    for task in TASKS:
        times = evidence.times(runs, task)
        clip, penalty = (times[run].restricted_mean for run in runs)
        figures += describe_times(times, "steps", f" on {task}")
        better.append(sooner(clip, penalty))
        worse.append(sooner(penalty, clip))
    return Finding(graded(any(better) and not any(worse), any(better)), tuple(figures))


def ppo_entropy(evidence: Evidence) -> Finding:
    environment = "policyopt/DeceptiveGrid-v0"
    labels = {coef: f"c₂ = {coef:g}" for coef in ENTROPY_COEFS}
    found = {
        coef: (evidence.final("entropy", label, environment) >= 0.9)[:, None]
        for coef, label in labels.items()
    }
    entropies = {
        coef: mean_of(
            np.array([rows.mean() for rows in evidence.column("entropy", label, environment, "entropy")])
        )
        for coef, label in labels.items()
    }
    figures = [
        *(
            Figure(f"share that find the goal, c₂ = {coef:g}", share(hits[:, 0]))
            for coef, hits in found.items()
        ),
        *(Figure(f"mean entropy, c₂ = {coef:g}", mean, "nats") for coef, mean in entropies.items()),
    ]
    none, *others = ENTROPY_COEFS
    gains = [
        mean_difference(found[coef].astype(float), found[none].astype(float), confidence=0.99).low > 0
        for coef in others
    ]
    keeps_exploring = entropies[others[-1]].low > entropies[none].high
    full = keeps_exploring and all(gains)
    return Finding(graded(full, keeps_exploring and any(gains)), tuple(figures))


def worst_tenth(scores: np.ndarray) -> np.ndarray:
    """The mean of the worst tenth of all runs, ``[..., runs, tasks]`` to ``[...]``."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    return flat[..., : max(flat.shape[-1] // 10, 1)].mean(axis=-1)


def ppo_stable(evidence: Evidence) -> Finding:
    scores = {
        name: np.stack(
            [evidence.score("stability", f"{name}, lr {rate:g}", CARTPOLE) for rate in rates], axis=1
        )
        for name, rates in (("PPO", PPO_LEARNING_RATES), ("A2C", A2C_LEARNING_RATES))
    }  # [seeds, learning rates]
    worst = {name: interval(values, worst_tenth) for name, values in scores.items()}
    middle = interval(scores["PPO"][:, 1:-1], worst_tenth)
    falls = share_that_collapses(
        values
        for rate in PPO_LEARNING_RATES
        for values in evidence.column("stability", f"PPO, lr {rate:g}", CARTPOLE, "episode_return")
    )
    figures = (
        Figure("worst tenth of PPO's scores, learning rates from 1/16 to 16 times", worst["PPO"]),
        Figure("from a quarter to 4 times", middle),
        Figure("worst tenth of A2C's, from 1/16 to 16 times", worst["A2C"]),
        Figure("share of PPO's runs that fall", share(falls)),
    )
    return Finding(graded(worst["PPO"].low >= 0.5, middle.low >= 0.5), figures)


def ppo_on_policy(evidence: Evidence) -> Finding:
    """Steps to the threshold on CartPole and Acrobot, both as tuned. Holds if DQN is sooner than PPO on both,
    the intervals apart; with a condition if on one.
    """
    ppo, dqn = ("benchmark", "PPO"), ("off_policy", "DQN")
    wins, figures = [], []
    for task in (CARTPOLE, ACROBOT):
        times = evidence.times([ppo, dqn], task)
        wins.append(sooner(times[dqn].restricted_mean, times[ppo].restricted_mean))
        figures += describe_times(times, "steps", f", {task}")
    return Finding(graded(all(wins), any(wins)), tuple(figures))


def dqn_tricks(evidence: Evidence) -> Finding:
    """Scores on CartPole. Holds if DQN's are higher than those without replay, and than those without a
    target network, the interval of the difference above 0; with a condition if one of the two.
    """
    whole = evidence.score("off_policy", "DQN", CARTPOLE)[:, None]
    figures, helps = [Figure("score of DQN", interval(whole, mean_score))], []
    for label in ("no replay", "no target network", "neither"):
        without = evidence.score("replay", label, CARTPOLE)[:, None]
        difference = mean_difference(whole, without)
        helps.append(bool(difference.low > 0))
        figures += [
            Figure(f"score with {label}", interval(without, mean_score)),
            Figure(f"score of DQN less that with {label}", difference),
        ]
    return Finding(graded(all(helps[:2]), any(helps[:2])), tuple(figures))


def dqn_actions(evidence: Evidence) -> Finding:
    """Returns of Pendulum's fresh episodes. Holds if PPO with continuous actions earns more than DQN with the
    number of bins that serves it best, and PPO with most bins more than DQN with as many, the interval of
    each difference above 0; with a condition if one of the two.
    """
    tasks = {bins: f"policyopt/Pendulum{bins}-v0" for bins in BINS}
    found = {
        (name, bins): evidence.final("bins", f"{name}, {bins} bins", task)[:, None]
        for bins, task in tasks.items()
        for name in ("DQN", "PPO")
    }
    free = evidence.final("benchmark", "PPO", PENDULUM)[:, None]
    best, most = max(BINS, key=lambda bins: found["DQN", bins].mean()), max(BINS)
    continuous = mean_difference(free, found["DQN", best])
    many = mean_difference(found["PPO", most], found["DQN", most])
    figures = (
        Figure("PPO with continuous actions", interval(free, mean_score)),
        *(Figure(f"{name}, {bins} bins", interval(runs, mean_score)) for (name, bins), runs in found.items()),
        Figure(f"continuous PPO less DQN with its best, {best} bins", continuous),
        Figure(f"PPO less DQN, {most} bins each", many),
    )
    better = bool(continuous.low > 0), bool(many.low > 0)
    return Finding(graded(all(better), any(better)), figures)


def ddpg_samples(evidence: Evidence) -> Finding:
    """Steps to the threshold on Pendulum, all as tuned. Holds if DDPG is sooner than PPO, A2C and TRPO, the
    intervals apart; with a condition if sooner than some.
    """
    on_policy = [("benchmark", label) for label in ("PPO", "A2C", "TRPO")]
    replayed = [("off_policy", label) for label in ("DDPG", "TD3", "SAC")]
    times = evidence.times([*replayed, *on_policy], PENDULUM)
    ddpg = times[replayed[0]].restricted_mean
    wins = [sooner(ddpg, times[run].restricted_mean) for run in on_policy]
    return Finding(graded(all(wins), any(wins)), tuple(describe_times(times, "steps")))


def a3c_parallel(evidence: Evidence) -> Finding:
    labels = {number: f"A3C, {number} workers" for number in WORKERS}
    runs = [*(("clock", label) for label in labels.values()), ("clock", "A2C")]
    seconds = evidence.times(runs, CARTPOLE, by="seconds")
    steps = evidence.times(runs, CARTPOLE)
    figures = (*describe_times(seconds, "s"), *describe_times(steps, "steps"))
    means = {run[1]: seconds[run].restricted_mean for run in runs}
    speeds_up = sooner(means[labels[2]], means[labels[1]])
    beats_a2c = any(sooner(means[labels[number]], means["A2C"]) for number in WORKERS[1:])
    return Finding(graded(speeds_up and beats_a2c, speeds_up), figures)


def ppo_beats_a3c(evidence: Evidence) -> Finding:
    ppo = ("clock", "PPO, 16 environments")
    others = [("clock", f"A3C, {number} workers") for number in WORKERS]
    figures, wins = [], []
    for by, unit in (("seconds", "s"), ("step", "steps")):
        times = evidence.times([ppo, *others], CARTPOLE, by)
        figures += describe_times(times, unit)
        means = {run: found.restricted_mean for run, found in times.items()}
        wins.append(all(sooner(means[ppo], means[run]) for run in others))
    return Finding(graded(all(wins), wins[0]), tuple(figures))


def trpo_cost(evidence: Evidence) -> Finding:
    per_update = [
        evidence.last("clock", label, CARTPOLE, "seconds")
        / evidence.last("clock", label, CARTPOLE, "step")
        * 1024
        for label in ("TRPO, 16 environments", "PPO, 16 environments")
    ]
    ratio = Interval(*np.exp(mean_of(np.log(per_update[0] / per_update[1]))))
    difference = mean_difference(
        evidence.scores("benchmark", "TRPO", TASKS), evidence.scores("benchmark", "PPO", TASKS)
    )
    figures = (
        Figure("seconds of an update with TRPO over those with PPO", ratio),
        Figure("TRPO, 1,024 steps collected and one update", mean_of(per_update[0]), "s"),
        Figure("PPO, the same", mean_of(per_update[1]), "s"),
        Figure("mean score of TRPO less that of PPO", difference),
    )
    slower, comparable = ratio.low > 1, difference.low >= -0.1 and difference.high <= 0.1
    return Finding(graded(bool(slower and comparable), bool(slower)), figures)


def sb3_cartpole(evidence: Evidence) -> Finding:
    solved = evidence.solved("example", "as printed", CARTPOLE)
    figures = (
        Figure("share of seeds with a mean return of 475", share(solved)),
        Figure("mean return", evidence.mean("example", "as printed", CARTPOLE)),
    )
    return Finding(graded(solved.mean() >= 0.9, solved.mean() >= 0.5), figures)
