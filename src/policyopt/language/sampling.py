"""Letting a model write, and reading again what it wrote.

Q prompts, G outputs of each, T tokens at most: everything about outputs is ``[Q, G, T]``. The first token of
an output follows the prompt, so with o_0 … o_{T−1} its tokens, state t is the prompt and o_{<t}.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from policyopt.language.model import Cache, LanguageModel
from policyopt.language.tokenizer import pad

__all__ = ["Samples", "TokenScorer", "encode_prompts", "generate", "join", "read_states", "token_noise"]

WORTH_SHARING = 8  # tokens; for fewer an extra pass costs more than it saves


@dataclass(frozen=True)
class Samples:
    """Outputs of Q prompts, G of each."""

    prompts: Tensor  # [Q, P]        tokens; padding stands before the last one, so all end in one column
    prompt_mask: Tensor  # [Q, P] bool
    tokens: Tensor  # [Q, G, T]      what was written, padded on the right
    mask: Tensor  # [Q, G, T] bool   true for what was written, the end token included
    log_probs: Tensor  # [Q, G, T]   log π_old(o_t | q, o_<t); 0 after the end

    def __len__(self) -> int:
        """Q."""
        return len(self.prompts)

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Some of the prompts, with their outputs."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def lengths(self) -> Tensor:
        """|o_i|, tokens of each output, ``[Q, G]``."""
        return self.mask.sum(dim=-1)

    def texts(self, tokenizer) -> list[list[str]]:
        """The outputs as text: Q lists of G."""
        return [[tokenizer.decode(output) for output in group] for group in self.tokens.tolist()]

    def finished(self, tokenizer) -> Tensor:
        """Which outputs came to an end of their own, ``[Q, G]`` bool."""
        ends = torch.tensor(tokenizer.end_ids, device=self.tokens.device)
        return (torch.isin(self.tokens, ends) & self.mask).any(dim=-1)


def join(parts: Sequence[Samples]) -> Samples:
    """Outputs of several batches, with the same G, as one."""
    width = max(part.prompts.shape[1] for part in parts)
    length = max(part.tokens.shape[2] for part in parts)

    def column(name: str, side: str) -> Tensor:
        gaps = ((width if side == "left" else length) - getattr(part, name).shape[-1] for part in parts)
        pads = ((gap, 0) if side == "left" else (0, gap) for gap in gaps)
        return torch.cat([F.pad(getattr(part, name), pad) for part, pad in zip(parts, pads, strict=True)])

    sides = dict(prompts="left", prompt_mask="left", tokens="right", mask="right", log_probs="right")
    return Samples(**{name: column(name, side) for name, side in sides.items()})


def encode_prompts(
    model: LanguageModel, prompts: Sequence[str], max_new_tokens: int
) -> tuple[Tensor, Tensor]:
    """Prompts as tokens ``[Q, P]`` and their mask, false for padding, on the model's device.

    All end in the last column, where the output begins. The padding of the shorter ones stands after what all
    have in common (instructions, say, which are then read once for all), so at the left if that is nothing.

    Raises:
        ValueError: there is no prompt; a prompt cannot be encoded; a prompt with ``max_new_tokens`` more
            exceeds the model's context.
    """
    rows = [model.tokenizer.encode_prompt(prompt) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) + max_new_tokens > model.context:
            raise ValueError(
                f"the prompt {prompt[:60]!r} has {len(row)} tokens; with {max_new_tokens} more to write that "
                f"is over the model's context of {model.context}"
            )
    columns = zip(*(row[:-1] for row in rows), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    tokens, mask = pad([row[shared:] for row in rows], model.tokenizer.pad_id, "left")
    if shared > 0:
        common = torch.tensor(rows[0][:shared]).expand(len(rows), -1)
        tokens = torch.cat([common, tokens], dim=1)
        mask = torch.cat([torch.ones_like(common, dtype=torch.bool), mask], dim=1)
    device = next(model.parameters()).device
    return tokens.to(device), mask.to(device)


def token_noise(shape: Sequence[int], generator: Generator) -> Tensor:
    """A number from [0, 1) for each token to be sampled, on the CPU.

    Drawn before anything is sampled, so that an output does not depend on what is sampled beside it.
    """
    return torch.rand(*shape, generator=generator)


def _read_prompts(
    model: LanguageModel, prompts: Tensor, mask: Tensor, group_size: int
) -> tuple[Tensor, Cache]:
    """Read each prompt once: the feature of its last token ``[Q·G, 1, D]``, and a cache of Q·G sequences.

    What all prompts begin with, instructions say, is read once for all.
    """
    cache = model.new_cache()
    same = (prompts == prompts[:1]).all(dim=0) & mask.all(dim=0)  # [P]
    shared = min(int(same.long().cumprod(dim=0).sum()), prompts.shape[1] - 1)
    if len(prompts) == 1 or shared < WORTH_SHARING:
        shared = 0
    if shared:
        model.features(prompts[:1, :shared], mask[:1, :shared], cache)
        cache.repeat(len(prompts))
    last = model.features(prompts[:, shared:], mask[:, shared:], cache)[:, -1:]  # [Q, 1, D]
    cache.repeat(group_size)
    return last.repeat_interleave(group_size, dim=0), cache


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Tensor,
    prompt_mask: Tensor,
    noise: Tensor,
    temperature: float = 1.0,
) -> Samples:
    """Let the model write G outputs for each of Q prompts, token by token, with a cache.

    A token is the first whose cumulative probability exceeds its number from [0, 1).

    Args:
        model: writes.
        prompts: tokens, from ``encode_prompts``, ``[Q, P]``.
        prompt_mask: false for padding, ``[Q, P]``.
        noise: from ``token_noise``, ``[Q, G, T]``.
        temperature: logits are divided by it; 0 takes the likeliest token.

    Returns:
        The outputs, with their log-probabilities at this temperature (at 1 when it is 0).

    Raises:
        ValueError: a temperature below 0 or not finite.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature is {temperature!r}; it must be a number ≥ 0")
    num_prompts, group_size, limit = noise.shape
    noise = noise.flatten(0, 1).to(prompts.device)  # [B, T] with B = Q · G
    ends = torch.tensor(model.tokenizer.end_ids, device=prompts.device)
    feature, cache = _read_prompts(model, prompts, prompt_mask, group_size)
    goes_on = torch.ones(len(noise), dtype=torch.bool, device=prompts.device)
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for t in range(limit):
        log_probs = (model.head(feature[:, -1]).float() / (temperature or 1.0)).log_softmax(dim=-1)  # [B, V]
        if temperature == 0:
            tokens = log_probs.argmax(dim=-1)
        else:
            reached = log_probs.exp().cumsum(dim=-1)  # its last entry can be off 1 by rounding
            tokens = torch.searchsorted(reached, noise[:, t, None] * reached[:, -1:], right=True).squeeze(1)
            tokens = tokens.clamp(max=log_probs.shape[-1] - 1)
        tokens = torch.where(goes_on, tokens, model.tokenizer.pad_id)
        chosen = log_probs.gather(1, tokens[:, None]).squeeze(1)
        columns.append((tokens, goes_on, torch.where(goes_on, chosen, 0.0)))
        goes_on = goes_on & ~torch.isin(tokens, ends)
        if t == limit - 1 or not goes_on.any():
            break
        feature = model.features(tokens[:, None], columns[-1][1][:, None], cache)
    written = (
        torch.stack(column, dim=1).unflatten(0, (num_prompts, group_size))
        for column in zip(*columns, strict=True)
    )
    return Samples(prompts, prompt_mask, *written)


def read_states(model: LanguageModel, samples: Samples, after_last: bool = False) -> Tensor:
    """What a model says in each state of the outputs, its features ``[Q, G, T, D]``.

    Feature t has seen the prompt and o_{<t}: the head makes of it the distribution of o_t, a value function
    V(s_t). Each prompt is read once, not once for each output.

    Args:
        model: reads.
        samples: Q prompts with G outputs of T tokens.
        after_last: also give what it says after o_{T−1}, so that the third dimension is T + 1.
    """
    num_prompts, group_size, length = samples.tokens.shape
    first, cache = _read_prompts(model, samples.prompts, samples.prompt_mask, group_size)
    rest = length if after_last else length - 1
    states = first
    if rest:
        tokens, mask = (x.flatten(0, 1)[:, :rest] for x in (samples.tokens, samples.mask))
        states = torch.cat([first, model.features(tokens, mask, cache)], dim=1)
    return states.unflatten(0, (num_prompts, group_size))


class TokenScorer(nn.Module):
    """How likely a model finds outputs, as a module of its own so that it can be run in parallel.

    Args:
        model: the policy.
        temperature: at which the outputs were sampled.
    """

    def __init__(self, model: LanguageModel, temperature: float = 1.0):
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, samples: Samples) -> Tensor:
        """log π(o_t | q, o_{<t}), ``[Q, G, T]``; 0 after the end."""
        logits = self.model.head(read_states(self.model, samples)).float() / self.temperature  # [Q, G, T, V]
        chosen = logits.gather(-1, samples.tokens[..., None]).squeeze(-1) - logits.logsumexp(dim=-1)
        return torch.where(samples.mask, chosen, 0.0)
