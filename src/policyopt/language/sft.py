"""Supervised fine-tuning: raising the probability of demonstrated outputs, before any reward is seen.

The first stage of Ouyang et al. (2022), arXiv:2203.02155, section 3.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor
from torch.nn import functional as F

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.language.model import LanguageModel
from policyopt.language.tasks import Problem
from policyopt.language.tokenizer import pad
from policyopt.language.training import (
    fingerprint,
    make_adamw,
    memory_errors,
    scheduled_rate,
    update_generator,
)
from policyopt.losses import masked_mean
from policyopt.settings import check_settings
from policyopt.training import gradient_step, set_learning_rate, updates

__all__ = ["SFTConfig", "encode_demonstrations", "sft_loss", "train"]


@dataclass(frozen=True)
class SFTConfig:
    """Settings of supervised fine-tuning. Values out of range raise ``ValueError`` and name the field."""

    updates: int = 500  # gradient steps
    batch_size: int = 128  # demonstrations in each
    learning_rate: float = 3e-3
    learning_rate_end: float | None = 0.0  # reached in a straight line; None keeps it constant
    warmup: int = 20  # steps in which the learning rate rises to its value
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self)


def encode_demonstrations(
    model: LanguageModel, demonstrations: Sequence[Problem]
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts with their answers as tokens, padded on the right.

    Args:
        model: its tokenizer and its context count.
        demonstrations: B of them.

    Returns:
        The tokens ``[B, L]``, L the longest row's length; a mask of those that are not padding, ``[B, L]``;
        and one of those that belong to an answer, its end included, ``[B, L]``.

    Raises:
        ValueError: there is no demonstration; a text cannot be encoded, or is longer than the model's
            context.
    """
    if not demonstrations:
        raise ValueError("there is nothing to learn from: no demonstration was given")
    tokenizer, rows, starts = model.tokenizer, [], []
    for problem in demonstrations:
        prompt = tokenizer.encode_prompt(problem.prompt)
        rows.append(prompt + tokenizer.encode_output(problem.answer))
        starts.append(len(prompt))
        if len(rows[-1]) > model.context:
            raise ValueError(
                f"the demonstration {problem.prompt[:60]!r} has {len(rows[-1])} tokens; "
                f"the model's context is {model.context}"
            )
    tokens, mask = pad(rows, tokenizer.pad_id, "right")
    answers = mask & (torch.arange(tokens.shape[1]) >= torch.tensor(starts)[:, None])
    device = next(model.parameters()).device
    return tokens.to(device), mask.to(device), answers.to(device)


def sft_loss(model: LanguageModel, tokens: Tensor, mask: Tensor, answers: Tensor) -> Tensor:
    """The mean of −log π_θ(token | all tokens before it) over the tokens of answers, ends included.

    Args:
        model: π_θ.
        tokens: ``[B, L]``; these three are from ``encode_demonstrations``.
        mask: true for tokens, ``[B, L]``.
        answers: true for tokens of answers, ``[B, L]``.

    Returns:
        A scalar to be minimised. A token of a long answer counts as much as one of a short answer.
    """
    logits = model.head(model.features(tokens[:, :-1], mask[:, :-1])).float()  # [B, L−1, V]
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return masked_mean(loss, answers[:, 1:].flatten())


def train(
    model: LanguageModel,
    demonstrations: Sequence[Problem],
    config: SFTConfig = SFTConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 100,
    progress: bool = False,
) -> History:
    """Train a language model on demonstrations, in place.

    Args:
        model: learns.
        demonstrations: prompts with the answers to be imitated, right or wrong.
        config: settings.
        seed: of the order.
        checkpoint, checkpoint_every, progress: as for ``policyopt.language.grpo.train``.

    Returns:
        A row for each step, with ``loss`` and ``grad_norm``.

    Raises:
        ValueError: there is no demonstration, or one cannot be encoded or is too long; a checkpoint of
            another run.
        FloatingPointError: the gradient is not finite.
        MemoryError: a batch does not fit.
    """
    optimizer, history = make_adamw(model.parameters(), config.learning_rate, config.weight_decay), History()
    digest = hashlib.sha256(repr([tuple(problem) for problem in demonstrations]).encode()).hexdigest()
    what = f"{len(demonstrations)} demonstrations {digest[:12]}"
    run = describe_run("language sft", what, config, seed) | {"model": fingerprint(model)}
    parts = {"model": model, "optimizer": optimizer, "history": history}
    saved = Checkpoint(checkpoint, checkpoint_every, run, parts)
    columns = encode_demonstrations(model, demonstrations)
    for update in updates(config.updates, history, saved, progress, "loss"):
        set_learning_rate(optimizer, scheduled_rate(config, update, config.updates))
        generator = update_generator(seed, update)
        rows = torch.randint(len(demonstrations), (config.batch_size,), generator=generator)
        with memory_errors(f"fitting {config.batch_size} demonstrations", "batch_size"):
            loss = sft_loss(model, *(column[rows] for column in columns))
            norm = gradient_step(optimizer, loss, config.max_grad_norm)
        history.log(update=update + 1, loss=loss.detach(), grad_norm=norm)
    return history
