"""The ledger: what the field claims, the rule that decides, the figures, and the verdict.

A verdict is computed from stored results whenever it is asked for; nowhere is one written down. A rule was
fixed before the results of its study were looked at; where one was changed afterwards, ``changed`` says so.
What its words mean by solved, by a score and by the threshold stands in ``policyopt.experiments.rules``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from policyopt.experiments import rules
from policyopt.experiments.evidence import Evidence, MissingEvidence
from policyopt.experiments.rules import Finding
from policyopt.experiments.studies import STUDIES
from policyopt.experiments.study import RESULTS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CLAIMS", "Claim", "ledger"]


@dataclass(frozen=True)
class Claim:
    """A claim of the article, and how it is decided.

    Attributes:
        name: its id in the book.
        text: what is claimed.
        rule: what decides, in words.
        studies: the names of those it is decided by; none where nothing is to be measured.
        decide: the rule, which makes a ``Finding`` of an ``Evidence``.
        changed: how and why the rule was changed after the numbers had been looked at.
    """

    name: str
    text: str
    rule: str = ""
    studies: tuple[str, ...] = ()
    decide: Callable | None = None
    changed: str = ""

    def __post_init__(self) -> None:
        if (self.decide is None) != (not self.rule) or (self.studies and not self.rule):
            raise ValueError(f"claim {self.name}: a rule, its words and its studies belong together")
        unknown = set(self.studies) - set(STUDIES)
        if unknown:
            raise ValueError(f"claim {self.name}: there is no study {', '.join(sorted(unknown))}")

    def find(self, evidence: Evidence) -> Finding:
        """Apply the rule.

        Raises:
            MissingEvidence: there is no rule yet, or a study it needs is not whole.
        """
        if self.decide is None:
            raise MissingEvidence("nothing has been measured yet")
        for study in self.studies:
            evidence.require(study)
        return self.decide(evidence)


CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        Claim(
            "loop",
            "The agent's loop of state, action and reward raises the cumulative reward over time.",
            "Holds if the final return of every algorithm on every task lies above the random policy's, the"
            " interval of the difference above 0; with a condition if that is so for some.",
            ("benchmark",),
            rules.loop,
        ),
        Claim(
            "reinforce-gradient",
            "REINFORCE moves the parameters along the reward-weighted gradient of the log-policy.",
            "The estimate's mean against the exact gradient of FrozenLake. Unbiased if the interval of the "
            "mean squared deviation, in standard errors, contains 1. Holds if that is so with and without "
            "the factor γ^t, with a condition if only with it.",
            ("gradient",),
            rules.reinforce_gradient,
        ),
        Claim(
            "baseline-variance",
            "A baseline or an advantage reduces the variance of the gradient.",
            "On the same episodes, at three stages of a training: the variance with reward-to-go over that "
            "with the whole return, and with a mean, a critic and GAE over that with reward-to-go. Holds if"
            " every ratio's interval lies below 1, with a condition if some do.",
            ("variance",),
            rules.baseline_variance,
        ),
        Claim(
            "actor-critic",
            "The critic's baseline helps the actor.",
            "Steps to the threshold on CartPole and Acrobot, each algorithm as tuned. Holds if REINFORCE "
            "with a learned value and A2C are both sooner than REINFORCE without a baseline on both, the "
            "intervals apart; with a condition if some are.",
            ("benchmark",),
            rules.actor_critic,
        ),
        Claim(
            "grpo-name",
            "GRPO is short for Generalized Reinforcement Policy Optimization.",
            "Holds if the paper that introduced it, arXiv:2402.03300, spells the name out in these words.",
            (),
            rules.grpo_name,
        ),
        Claim(
            "grpo-memory",
            "Dropping the critic saves roughly half of the memory.",
            "Bytes of an update, measured for PPO and GRPO on one model at three sizes. Holds if GRPO saves "
            "between 45 % and 55 % without frozen models, with a reference, with a reward model and with "
            "both, at every size; with a condition if in some of these settings.",
            ("memory",),
            rules.grpo_memory,
        ),
        Claim(
            "grpo-compute",
            "GRPO nearly halves the compute of RLHF with PPO.",
            "Holds if GRPO saves between 40 % and 60 % of the floating-point operations of an update with as "
            "many outputs, at three sizes and with any frozen models, and needs at most 0.6 of the seconds "
            "that PPO with one output a prompt needs to a training reward of 0.95 in addition; with a "
            "condition if one of the two.",
            ("memory", "outputs", "token_clock"),
            rules.grpo_compute,
        ),
        Claim(
            "group-advantage",
            "Reward minus the group's mean tells better from worse, and the update makes the better "
            "likelier.",
            "One small step on each of many random groups. Holds if every better output became likelier, "
            "both where no state is shared and where one network shares them all, and the "
            "advantage-weighted sum always rose; with a condition if some did not where one network shares "
            "them.",
            ("groups",),
            rules.group_advantage,
        ),
        Claim(
            "grpo-is-ppo-shaped",
            "GRPO has PPO's surrogate and its clip.",
            "Holds if the gradients of both losses differ by less than 1e-5 of the largest entry, for a "
            "group from one start, advantages from a critic that knows its value, and some ratios clipped.",
            ("groups",),
            rules.grpo_is_ppo_shaped,
        ),
        Claim(
            "grpo-kl",
            "A KL term to a reference keeps the policy close.",
            "Addition, β from 0 to 1; the KL to the model that a run began with, at its end, exact but for "
            "the states. Holds if it is smaller with every β than with none, the intervals of the "
            "differences below 0; with a condition if with some.",
            ("reference",),
            rules.grpo_kl,
        ),
        Claim(
            "grpo-samples",
            "GRPO pays with more samples an update.",
            "Addition, 512 outputs an update: outputs written until the training reward reaches 0.95. Holds "
            "if GRPO needs more of them with every size of its groups, 2 to 32, than PPO with one output a "
            "prompt, the intervals apart; with a condition if with some.",
            ("outputs",),
            rules.grpo_samples,
        ),
        Claim(
            "grpo-hard-critic",
            "GRPO is simpler and steadier where values are hard to learn.",
            "Eight to ten digits are sorted, rewarded only when all are right. Holds if GRPO ends with a "
            "higher reward on problems held out than PPO with λ = 0.95 and with λ = 1, at equal outputs, the "
            "intervals of the differences above 0, and no larger a share of its runs falls below half of "
            "their best after a peak of 0.5; with a condition if that is so against one of the two.",
            ("critic",),
            rules.grpo_hard_critic,
        ),
        Claim(
            "grpo-general",
            "GRPO works beyond language.",
            "Holds if at least 8 of 10 seeds solve each of CartPole, Acrobot and Pendulum, with a condition"
            " if that is so for some.",
            ("benchmark", "credit"),
            rules.grpo_general,
        ),
        Claim(
            "ppo-no-cliff",
            "The clip prevents falling off a cliff.",
            "On CartPole, three constant learning rates and two numbers of epochs. A run falls if its "
            "training return, after a peak of at least 100, is ever below half of its best. Holds if more "
            "runs fall without the clip, the interval of the difference above 0, and at most 5 % with it; "
            "with a condition if only the first.",
            ("clip",),
            rules.ppo_no_cliff,
        ),
        Claim(
            "ppo-first-order",
            "PPO, with first-order steps, is about as good as TRPO.",
            "Mean score over three tasks at equal steps. Holds if PPO is at most 0.1 behind, by the lower "
            "end of the difference, with and without advantage normalisation, annealing and the gradient's "
            "clip; with a condition if only with them.",
            ("benchmark", "details"),
            rules.ppo_first_order,
        ),
        Claim(
            "ppo-epochs",
            "Several epochs on one batch are worth it.",
            "Steps to the threshold on CartPole. Holds if the tuned six epochs are sooner than one, the "
            "intervals apart, also when one has four times the learning rate; with a condition if only at "
            "the same.",
            ("epochs",),
            rules.ppo_epochs,
        ),
        Claim("ppo-on-policy", "PPO gives up the sample efficiency of DQN."),
        Claim(
            "ppo-parallel",
            "PPO is easy to parallelise over environments.",
            "CartPole, 1 to 256 environments, 1,024 steps an update. Holds if 64 make more than twice the "
            "steps a second of 1, the best number reaches the threshold in fewer seconds than 1, and none "
            "above it takes longer; with a condition if only the last fails.",
            ("clock",),
            rules.ppo_parallel,
        ),
        Claim(
            "ppo-robust",
            "PPO is robust across tasks with little tuning.",
            "The defaults on all three tasks. Holds if they keep at least 0.8 of the tuned gain over chance"
            " on each, by the lower end; with a condition if on some.",
            ("benchmark", "robustness"),
            rules.ppo_robust,
        ),
        Claim(
            "ppo-variants",
            "The clip is more popular than the adaptive penalty for good reason.",
            "Steps to the threshold on three tasks, equal settings. Holds if the clip is sooner on one, the"
            " intervals apart, and later on none; with a condition if it is sooner on one and later on "
            "another.",
            ("benchmark",),
            rules.ppo_variants,
        ),
        Claim(
            "ppo-entropy",
            "The entropy bonus keeps the policy exploring.",
            "A grid with a small reward near and a large one far, 20 seeds. Holds if the largest bonus "
            "keeps more entropy than none, by 95 % intervals, and every bonus finds the goal more often than "
            "none, by a 99 % interval; with a condition if it does, and some bonus finds it more often.",
            ("entropy",),
            rules.ppo_entropy,
        ),
        Claim(
            "ppo-stable",
            "PPO does not collapse or diverge easily.",
            "CartPole, five learning rates around the tuned one. Holds if the mean of the worst tenth of "
            "the scores is at least 0.5, by the lower end, from a sixteenth to 16 times; with a condition "
            "if only from a quarter to 4 times.",
            ("benchmark", "stability"),
            rules.ppo_stable,
        ),
        Claim("dqn-tricks", "Replay and a target network stabilise Q-learning."),
        Claim("dqn-actions", "PPO handles large or continuous sets of actions better than DQN."),
        Claim(
            "a3c-parallel",
            "Asynchronous workers decorrelate and speed up learning.",
            "Seconds to the threshold on CartPole, on two cores. Holds if two workers are sooner than one, "
            "and two or four sooner than A2C, the intervals apart; with a condition if only the first.",
            ("clock",),
            rules.a3c_parallel,
        ),
        Claim(
            "ppo-beats-a3c",
            "PPO outperforms A3C in less wall-clock time.",
            "CartPole, one machine. Holds if PPO reaches the threshold in fewer seconds and in fewer steps "
            "than A3C with any number of workers, the intervals apart; with a condition if only in seconds.",
            ("clock",),
            rules.ppo_beats_a3c,
        ),
        Claim(
            "trpo-cost",
            "TRPO's second-order update is slower, its return comparable.",
            "CartPole, updates of 1,024 steps, one machine. Holds if the ratio of the seconds lies above 1 "
            "and the mean scores over three tasks differ by at most 0.1, intervals included; with a "
            "condition if only the first.",
            ("benchmark", "clock"),
            rules.trpo_cost,
        ),
        Claim("ddpg-samples", "Off-policy DDPG is more sample-efficient on continuous control."),
        Claim("ddpg-finicky", "DDPG is brittle; TD3 and SAC mend it."),
        Claim(
            "sb3-cartpole",
            "The article's example balances the pole after 50,000 steps.",
            "The example as printed. Holds if at least 9 of 10 seeds reach a mean return of 475, with a "
            "condition if at least half do.",
            ("example",),
            rules.sb3_cartpole,
        ),
    )
}


def ledger(results: str | PathLike = RESULTS) -> "pd.DataFrame":
    """All claims, a row for each: ``name``, ``claim``, ``rule``, ``studies``, ``verdict``, ``figures`` (a
    list of texts), ``changed``, and ``missing``, why there is no verdict where there is none.

    Args:
        results: the folder in which the studies have their own.

    Raises:
        ValueError: a stored cell is damaged or of another configuration.
    """
    import pandas as pd

    evidence, rows = Evidence(results), []
    for claim in CLAIMS.values():
        about = {"name": claim.name, "claim": claim.text, "rule": claim.rule, "studies": claim.studies}
        try:
            finding = claim.find(evidence)
        except MissingEvidence as error:
            row = {"verdict": None, "figures": [], "missing": str(error)}
        else:
            row = {
                "verdict": finding.verdict.value,
                "figures": list(map(str, finding.figures)),
                "missing": "",
            }
        rows.append({**about, **row, "changed": claim.changed})
    return pd.DataFrame(rows)
