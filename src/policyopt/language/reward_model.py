"""A reward model: a language model that learns from comparisons which of two outputs people like better.

Christiano et al. (2017), arXiv:1706.03741, section 2.2.3; for language models Ouyang et al. (2022),
arXiv:2203.02155, section 3.5. An output has a score r_φ(q, o), one number, and the probability that o is
preferred to o′ is σ(r_φ(q, o) − r_φ(q, o′)): the model of Bradley and Terry (1952), "Rank analysis of
incomplete block designs". Only differences count, so the scores are shifted in the end to have mean 0.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.tasks import Problem
from policyopt.language.tokenizer import pad
from policyopt.language.training import (
    fingerprint,
    make_adamw,
    memory_errors,
    scheduled_rate,
    update_generator,
)
from policyopt.settings import check_settings
from policyopt.training import gradient_step, set_learning_rate, updates

__all__ = [
    "LearnedReward",
    "Preference",
    "RewardModelConfig",
    "accuracy",
    "bradley_terry_loss",
    "check_preferences",
    "encode_outputs",
    "reward_scores",
    "score_tokens",
    "train",
]


class Preference(NamedTuple):
    """Two outputs for a prompt, and which of them was liked better."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class RewardModelConfig:
    """Settings of a reward model's training. Values out of range raise ``ValueError`` and name the field."""

    updates: int = 300  # gradient steps
    batch_size: int = 64  # pairs in each
    learning_rate: float = 1e-3
    learning_rate_end: float | None = 0.0  # reached in a straight line; None keeps it constant
    warmup: int = 20  # steps in which the learning rate rises to its value
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    evaluate_every: int | None = None  # updates between two looks at pairs held out; None: after the last

    def __post_init__(self) -> None:
        check_settings(self)


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    r"""The loss of each comparison, :math:`-\log \sigma(r_\phi(q, o_w) - r_\phi(q, o_l))`.

    Book: eq-bradley-terry-loss. Ouyang et al. (2022), arXiv:2203.02155, eq. 1, for pairs (K = 2); it is the
    negated log-likelihood of the choice under the model of Bradley and Terry (1952).

    Args:
        chosen: scores of the outputs that were preferred, any shape.
        rejected: scores of the others, the same shape.

    Returns:
        The loss for each pair, to be minimised; it is log 2 where the scores are equal.
    """
    return -F.logsigmoid(chosen - rejected)


def encode_outputs(
    model: ScalarModel, prompts: Sequence[str], outputs: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Prompts with their outputs as tokens ``[B, L]``, padded on the right, and a mask, false for padding.

    The last token of each is the end of the output.

    Raises:
        ValueError: not one output for each prompt, or none at all; a text cannot be encoded, or is longer
            than the model's context.
    """
    if len(prompts) != len(outputs):
        raise ValueError(
            f"there are {len(prompts)} prompts and {len(outputs)} outputs; there must be one for each"
        )
    body = model.body
    rows = [
        body.tokenizer.encode_prompt(prompt) + body.tokenizer.encode_output(output)
        for prompt, output in zip(prompts, outputs, strict=True)
    ]
    for prompt, output, row in zip(prompts, outputs, rows, strict=True):
        if len(row) > body.context:
            raise ValueError(
                f"the output {output[:60]!r} to the prompt {prompt[:60]!r} makes {len(row)} tokens; "
                f"the reward model's context is {body.context}"
            )
    tokens, mask = pad(rows, body.tokenizer.pad_id, "right")
    device = next(model.parameters()).device
    return tokens.to(device), mask.to(device)


def score_tokens(model: ScalarModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """r_φ of each row, ``[B]``; arguments from ``encode_outputs``, rows perhaps with common padding."""
    features = model.body.features(tokens, mask)  # [B, L, D]
    last = mask.sum(dim=1) - 1  # [B]
    return model.score(features[torch.arange(len(features), device=last.device), last]).float()


def reward_scores(model: ScalarModel, prompts: Sequence[str], outputs: Sequence[str]) -> Tensor:
    """r_φ(q, o): how good the model finds each output, read after its last token, which is its end.

    An output that was cut off is judged as if it had ended there.

    Args:
        model: the reward model.
        prompts: B prompts.
        outputs: an output for each.

    Returns:
        Any real numbers, ``[B]``, with a gradient. Only differences mean something: that of two outputs for
        one prompt is the log-odds that the first is preferred.

    Raises:
        ValueError: as for ``encode_outputs``.
    """
    return score_tokens(model, *encode_outputs(model, prompts, outputs))


@torch.no_grad()
def _scores(model: ScalarModel, prompts: Sequence[str], outputs: Sequence[str], batch_size: int) -> Tensor:
    """``reward_scores`` of any number of outputs, some at a time, without a gradient, ``[B]`` on the CPU."""
    training = model.training
    model.eval()
    try:
        parts = [
            reward_scores(model, prompts[i : i + batch_size], outputs[i : i + batch_size]).cpu()
            for i in range(0, len(prompts), batch_size)
        ]
    finally:
        model.train(training)
    return torch.cat(parts) if parts else torch.zeros(0)


class LearnedReward:
    """A reward model as a ``RewardFunction``: σ(r_φ(q, o)), in [0, 1].

    With scores of mean 0, as ``train`` leaves them, that is the probability that the output is preferred to
    one of average score.

    Args:
        model: the reward model. It is not copied: it must not change while others learn from it.
        batch_size: outputs it reads at a time.
    """

    def __init__(self, model: ScalarModel, batch_size: int = 512):
        self.model, self.batch_size = model, batch_size

    def __call__(self, problems: Sequence[Problem], outputs: Sequence[str]) -> list[float]:
        """The reward of each output; errors as for ``reward_scores``."""
        prompts = [problem.prompt for problem in problems]
        if len(prompts) != len(outputs):
            raise ValueError(
                f"there are {len(prompts)} problems and {len(outputs)} outputs; there must be one for each"
            )
        return _scores(self.model, prompts, outputs, self.batch_size).sigmoid().tolist()

    def __repr__(self) -> str:
        """Says which model it is, so that a checkpoint is not taken up with another one."""
        return f"LearnedReward({fingerprint(self.model):.9g})"


def check_preferences(preferences: Sequence[Preference]) -> None:
    """Raise ``ValueError`` unless there are pairs, each of two different outputs."""
    if not preferences:
        raise ValueError("there are no preferences; at least one pair is needed")
    for i, (prompt, chosen, rejected) in enumerate(preferences):
        if chosen == rejected:
            raise ValueError(
                f"in preference {i}, for the prompt {prompt[:60]!r}, chosen and rejected are both "
                f"{chosen[:60]!r}; such a pair says nothing: leave it out"
            )


def accuracy(
    model: ScalarModel, preferences: Sequence[Preference], batch_size: int = 512
) -> tuple[float, float]:
    """The share of pairs in which the chosen output has the higher score, and its standard error.

    Equal scores count as half right. The error is √(p (1 − p) / n), as for n independent pairs.

    Args:
        model: the reward model.
        preferences: pairs that it was not trained on.
        batch_size: outputs it reads at a time.

    Returns:
        The accuracy p and its standard error.

    Raises:
        ValueError: no pair, or one of equal outputs; a text as for ``reward_scores``; a score that is not
            finite.
    """
    check_preferences(preferences)
    prompts = [pair.prompt for pair in preferences]
    chosen = _scores(model, prompts, [pair.chosen for pair in preferences], batch_size)
    rejected = _scores(model, prompts, [pair.rejected for pair in preferences], batch_size)
    bad = (~(chosen.isfinite() & rejected.isfinite())).nonzero()
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"the scores of preference {i}, for the prompt {prompts[i][:60]!r}, are {chosen[i].item()} and "
            f"{rejected[i].item()}; scores must be finite"
        )
    right = (chosen > rejected).double() + 0.5 * (chosen == rejected).double()
    share = right.mean().item()
    return share, math.sqrt(share * (1 - share) / len(preferences))


def train(
    model: ScalarModel,
    preferences: Sequence[Preference],
    config: RewardModelConfig = RewardModelConfig(),
    seed: int = 0,
    *,
    held_out: Sequence[Preference] | None = None,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 100,
    progress: bool = False,
) -> History:
    """Train a reward model on comparisons, in place.

    Start from a copy of the policy: ``ScalarModel(copy.deepcopy(policy))``, as Ouyang et al. (2022) start
    from the model after SFT. In the end the scores are shifted so that those of the pairs have mean 0; the
    loss does not notice.

    Args:
        model: learns.
        preferences: pairs of outputs, the better of the two first.
        config: settings.
        seed: of the order.
        held_out: other pairs, on which its accuracy is measured.
        checkpoint, checkpoint_every, progress: as for ``policyopt.language.grpo.train``.

    Returns:
        A row for each step, with ``loss``, ``accuracy`` (on the pairs of the step), ``margin`` (the mean of
        r_φ(q, o_w) − r_φ(q, o_l)), ``grad_norm``, and, where it was measured, ``held_out_accuracy`` with its
        standard error ``held_out_error``; with pairs held out the last row has both.

    Raises:
        ValueError: no pair, or one of equal outputs; a text cannot be encoded or is too long; a checkpoint of
            another run.
        FloatingPointError: the gradient is not finite.
        MemoryError: a batch does not fit.
    """
    check_preferences(preferences)
    if held_out is not None:
        check_preferences(held_out)
    prompts = [pair.prompt for pair in preferences]
    outputs = [pair.chosen for pair in preferences] + [pair.rejected for pair in preferences]
    tokens, mask = encode_outputs(model, 2 * prompts, outputs)
    optimizer, history = make_adamw(model.parameters(), config.learning_rate, config.weight_decay), History()
    text = "\n".join("\t".join(pair) for pair in [*preferences, *(held_out or ())])
    what = f"{len(preferences)} preferences {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    run = describe_run("language reward_model", what, config, seed) | {"model": fingerprint(model)}
    parts = {"model": model, "optimizer": optimizer, "history": history}
    saved = Checkpoint(checkpoint, checkpoint_every, run, parts)
    count = len(preferences)
    for update in updates(config.updates, history, saved, progress, "loss"):
        set_learning_rate(optimizer, scheduled_rate(config, update, config.updates))
        rows = torch.randint(count, (config.batch_size,), generator=update_generator(seed, update))
        rows = torch.cat([rows, rows + count])
        length = int(mask[rows].sum(dim=1).max())
        with memory_errors(f"fitting {config.batch_size} pairs", "batch_size"):
            scores = score_tokens(model, tokens[rows, :length], mask[rows, :length])
            chosen, rejected = scores.chunk(2)  # [batch_size] each
            loss = bradley_terry_loss(chosen, rejected).mean()
            norm = gradient_step(optimizer, loss, config.max_grad_norm)
        margin = (chosen - rejected).detach()
        row = {"loss": loss.detach(), "accuracy": (margin > 0).float().mean(), "margin": margin.mean()}
        row["grad_norm"] = norm
        last = update + 1 == config.updates
        if held_out and (last or (config.evaluate_every and (update + 1) % config.evaluate_every == 0)):
            row["held_out_accuracy"], row["held_out_error"] = accuracy(model, held_out)
        history.log(update=update + 1, **row)
    with torch.no_grad():
        model.out.bias -= _scores(model, 2 * prompts, outputs, 512).mean().to(model.out.bias.device)
    return history
