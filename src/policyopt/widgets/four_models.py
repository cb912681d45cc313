"""*Four models*: one update of a language model by PPO or GRPO, step by step, and the memory it takes."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from policyopt.widgets.base import Figure, figure_module
from policyopt.widgets.checks import Checked, check_choice, check_number, is_number, not_allowed, shortened

ALGORITHMS = ("ppo", "grpo")
KL_COEFS = (0.0, 0.5)
PARTS = ("policy", "value model", "reference", "reward model", "activations")
COLUMNS = ("label", "part", "ppo", "grpo")
PEAK = "peak beyond these"  # what policyopt.language.cost calls the activations


def _check_rewards(name: str, rewards: Any) -> list[int]:
    """The rewards of the four outputs as integers."""
    try:
        values = list(rewards)
    except TypeError:
        values = []
    if len(values) != 4 or not all(is_number(value) and value in (0, 1) for value in values):
        raise not_allowed(name, rewards, "4 numbers, each 0 (wrong) or 1 (right)")
    return [int(value) for value in values]


def _check_memory(name: str, memory: Any) -> list[dict[str, Any]]:
    """The bars in a form that JSON can carry; no bars for None."""
    if memory is None:
        return []
    whole = "a list of dicts with label, part, ppo and grpo, or None"
    if isinstance(memory, str | Mapping) or not isinstance(memory, Iterable):
        raise not_allowed(name, memory, whole)
    bars, seen = [], set()
    for i, given in enumerate(memory):
        if not isinstance(given, Mapping) or set(given) != set(COLUMNS):
            raise not_allowed(f"{name}[{i}]", given, "a dict with label, part, ppo and grpo")
        label = given["label"]
        if not isinstance(label, str) or not label:
            raise not_allowed(f"{name}[{i}]['label']", label, "a text that is not empty")
        part = check_choice(f"{name}[{i}]['part']", given["part"], PARTS)
        if (label, part) in seen:
            raise ValueError(
                f"{name} has the part {part!r} of {shortened(label)} twice; each must stand once"
            )
        seen.add((label, part))
        counts = {column: given[column] for column in ("ppo", "grpo")}
        for column, count in counts.items():
            if not is_number(count) or not 0 <= count < math.inf:
                raise not_allowed(f"{name}[{i}][{column!r}]", count, "a number of bytes, 0 or more")
        bars.append({"label": label, "part": part, **{key: int(count) for key, count in counts.items()}})
    return bars


def memory_bars(table: Any) -> list[dict[str, Any]]:
    """Measured memory as the bars of ``FourModels``.

    What a model keeps, its weights, gradients and optimiser state, becomes one part, and the peak beyond it
    the part "activations"; rows with sums of others are left out.

    Args:
        table: the frame ``memory`` of ``policyopt.language.cost.cost_tables``, or any with its columns
            ``parameters`` (of the policy), ``part``, ``ppo`` and ``grpo`` (bytes).

    Returns:
        For each size and part a dict with ``label`` ("3.2 million"), ``part``, ``ppo`` and ``grpo``.
    """
    sums: dict[tuple[int, str], list[float]] = {}
    columns = (table[name] for name in ("parameters", "part", "ppo", "grpo"))
    for parameters, name, *counts in zip(*columns, strict=True):
        part = "activations" if name == PEAK else name.split(":")[0]
        if part in PARTS:
            total = sums.setdefault((int(parameters), part), [0, 0])
            total[:] = (before + count for before, count in zip(total, counts, strict=True))
    return [
        {"label": _size(parameters), "part": part, "ppo": int(ppo), "grpo": int(grpo)}
        for (parameters, part), (ppo, grpo) in sums.items()
    ]


def _size(parameters: int) -> str:
    """A number of parameters in words, to two digits."""
    rounded = float(f"{parameters:.2g}")
    for unit, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if rounded >= unit:
            return f"{rounded / unit:g}{word}"
    return f"{rounded:g}"


class FourModels(Figure):
    r"""One update of a language model by PPO or GRPO: which models take part, and what flows between them.

    The reader steps from the prompts to the gradient step. Each step marks the boxes and arrows in use, says
    what flows and in what shape, and works it out for four outputs of the prompt "23+58=" from given
    probabilities, values and rewards; a right output can be made wrong, and β changed. The formulas are those
    of ``policyopt.language.ppo.token_rewards`` and ``token_advantages``, of
    ``policyopt.returns.group_relative_advantages`` and of ``ppo_loss`` and ``grpo_loss`` without the
    normalisation of advantages over an update, which one prompt cannot show. The last step is one of gradient
    ascent on a policy that is a table of logits. Ouyang et al. (2022), arXiv:2203.02155, section 3.5; Shao et
    al. (2024), arXiv:2402.03300, figure 4.

    Below, the memory of both algorithms: by the arithmetic of ``policyopt.language.cost``, 16 bytes for each
    parameter that is trained and 4 or 2 for each that is frozen, or as measured.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``go(step)``, ``next()``, ``back()``, ``toggle(i)`` with i from 0 to 3, which makes a right output wrong
    and a wrong one right, and ``set({algorithm, beta, rewards, learned, frozenBytes, size})``. Steps are
    "prompts", "outputs", "reference", "rewards", then for PPO "values" and "tokenRewards", for GRPO
    "statistics", then "advantages", "loss" and "update".

    Args:
        algorithm: "ppo" or "grpo".
        kl_coef: β, from 0 to 0.5. With 0 there is no reference.
        rewards: those of the four outputs, 0 or 1 each.
        memory: what was measured, shown before the arithmetic: dicts with ``label`` (the size in words),
            ``part`` ("policy", "value model", "reference", "reward model" or "activations", what comes and
            goes), ``ppo`` and ``grpo`` (bytes; 0 where there is no such part), as ``memory_bars`` makes them.
            All four may also be assigned later.

    Raises:
        ValueError: an argument is not as said here, named.
    """

    kind = "four_models"
    title = "Four models"
    summary = (
        "One update of a language model, step by step: the policy writes, the frozen reference and the "
        "reward model read, and PPO's value model foresees what GRPO takes from the group. Below, the "
        "memory that each algorithm takes."
    )
    _esm = figure_module(kind)

    algorithm = Checked(check_choice, ALGORITHMS).tag(sync=True, page=True)
    kl_coef = Checked(check_number, *KL_COEFS).tag(sync=True, page=True)
    rewards = Checked(_check_rewards).tag(sync=True, page=True)
    memory = Checked(_check_memory).tag(sync=True, page=True)

    def __init__(self, algorithm="ppo", kl_coef=0.1, rewards=(1, 0, 0, 0), memory=None, **kwargs):
        super().__init__(algorithm=algorithm, kl_coef=kl_coef, rewards=rewards, memory=memory, **kwargs)

    def __repr__(self) -> str:
        rewards = ", ".join(map(str, self.rewards))
        sizes = len({bar["label"] for bar in self.memory})
        measured = f", memory of {sizes} size{'s' if sizes > 1 else ''}" if sizes else ""
        return f"FourModels({self.algorithm!r}, kl_coef={self.kl_coef:g}, rewards=({rewards}){measured})"
