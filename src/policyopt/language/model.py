"""A small transformer that reads and writes characters, its keys and values cached while it writes.

The layout is that of Llama (Touvron et al., 2023, arXiv:2302.13971): RMSNorm before each part, rotary
positions (Su et al., 2021, arXiv:2104.09864), a gated feed-forward network, no biases.

Shapes: B sequences, L new tokens of each, S ≥ L tokens that may be looked at (cached and new), D the width,
H heads of D/H numbers, V tokens in the vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policyopt.language.tokenizer import CharTokenizer, Tokenizer
from policyopt.settings import check_fields, check_seed

__all__ = ["Cache", "LanguageModel", "Transformer", "TransformerConfig"]


class Cache:
    """Keys and values of the tokens read so far, one pair for each layer, and which of them are tokens."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # [B, H, S, D/H] each
        self.mask: Tensor | None = None  # [B, S] bool, false for padding

    def extend_mask(self, mask: Tensor) -> Tensor:
        """Append ``[B, L]`` to the mask; all of it, ``[B, S]``."""
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], dim=1)
        return self.mask

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append ``[B, H, L, D/H]`` to a layer; all of it, ``[B, H, S, D/H]``."""
        if layer in self.layers:
            old_keys, old_values = self.layers[layer]
            keys, values = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        self.layers[layer] = keys, values
        return keys, values

    def repeat(self, times: int) -> None:
        """Each sequence ``times`` times, one after the other: ``[B · times, …]``."""
        self.mask = self.mask.repeat_interleave(times, dim=0)
        for layer, pair in self.layers.items():
            self.layers[layer] = tuple(part.repeat_interleave(times, dim=0) for part in pair)


class LanguageModel(Protocol):
    """What sampling and training ask of a model; ``Transformer`` and a pretrained model have it.

    It is an ``nn.Module`` too.
    """

    tokenizer: Tokenizer
    context: int  # tokens at most, prompt and output together
    width: int  # D
    head: nn.Module  # features [..., D] → logits [..., V]

    def new_cache(self) -> Cache:
        """A cache with nothing in it."""

    def features(self, tokens: Tensor, mask: Tensor, cache: Cache | None = None) -> Tensor:
        """What the last layer says after each new token, ``[B, L, D]``.

        ``mask`` is ``[B, L]``, false for padding. With a cache the tokens follow those in it, and join them.
        """


@dataclass(frozen=True)
class TransformerConfig:
    """Size of a transformer. Values out of range raise ``ValueError`` and name the field."""

    layers: int = 2
    width: int = 64  # D
    heads: int = 4  # H; D/H must be even
    hidden: int = 172  # of the feed-forward network
    context: int = 256  # tokens at most, prompt and output together

    def __post_init__(self) -> None:
        check_fields(self, **dict.fromkeys(("layers", "width", "heads", "hidden"), (int, 1, math.inf)))
        check_fields(self, context=(int, 2, math.inf))
        if self.width % (2 * self.heads):
            raise ValueError(
                f"TransformerConfig.width is {self.width}; "
                f"it must be a multiple of 2 · heads = {2 * self.heads}"
            )


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of neighbours by angles that grow with the position: x ``[B, L, H, D/H]``, angles
    ``[B or 1, L, 1, D/2H]``.

    A pair (a, b) is the complex number a + ib, and to turn it by φ is to multiply it by exp(iφ).
    """
    pairs = torch.view_as_complex(x.to(angles.dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2).to(x.dtype)


class Block(nn.Module):
    """Attention, then a feed-forward network; each is added to what came in."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.layer, self.heads = layer, config.heads
        self.attention_norm, self.feed_norm = nn.RMSNorm(config.width), nn.RMSNorm(config.width)
        self.to_qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.from_heads = nn.Linear(config.width, config.width, bias=False)
        self.to_hidden = nn.Linear(config.width, 2 * config.hidden, bias=False)
        self.from_hidden = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor, angles: Tensor, attend: Tensor | None, cache: Cache | None) -> Tensor:
        """``[B, L, D]`` to ``[B, L, D]``; ``attend [B or 1, 1, L, S]`` is true where a token may look."""
        qkv = self.to_qkv(self.attention_norm(x)).unflatten(-1, (3 * self.heads, -1))  # [B, L, 3H, D/H]
        queries_keys, values = qkv.split((2 * self.heads, self.heads), dim=2)
        queries, keys = rotate(queries_keys, angles).chunk(2, dim=2)  # [B, L, H, D/H] each
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)  # [B, H, S, D/H]
        causal = attend is None and queries.shape[2] > 1
        read = F.scaled_dot_product_attention(queries, keys, values, attend, is_causal=causal)
        x = x + self.from_heads(read.transpose(1, 2).flatten(2))  # [B, L, D]
        gate, hidden = self.to_hidden(self.feed_norm(x)).chunk(2, dim=-1)  # [B, L, hidden] each
        return x + self.from_hidden(F.silu(gate) * hidden)


class Transformer(nn.Module):
    """A causal language model over characters: ``model(tokens)`` gives logits ``[B, L, V]``.

    Args:
        tokenizer: what its tokens mean.
        config: its size; the default has about 100,000 parameters.
        seed: of the first weights.
    """

    def __init__(
        self, tokenizer: CharTokenizer, config: TransformerConfig = TransformerConfig(), seed: int = 0
    ):
        super().__init__()
        self.tokenizer, self.config = tokenizer, config
        self.context, self.width = config.context, config.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(check_seed(seed))
            self.embedding = nn.Embedding(len(tokenizer), config.width)
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
            self.norm = nn.RMSNorm(config.width)
            self.head = nn.Linear(config.width, len(tokenizer), bias=False)
            nn.init.normal_(self.head.weight, std=0.02)  # at first all tokens are nearly as likely
            for block in self.blocks:  # each layer keeps the scale of its input
                for layer in (block.to_qkv, block.to_hidden):
                    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                for layer in (block.from_heads, block.from_hidden):  # and their sum: Radford et al. (2019)
                    nn.init.normal_(layer.weight, std=(2 * config.layers * layer.in_features) ** -0.5)
        size = config.width // config.heads
        speeds = 10_000 ** (-torch.arange(0, size, 2) / size)  # radians a position, [D/2H]
        angles = torch.arange(config.context)[:, None] * speeds  # [context, D/2H]
        self.register_buffer("angles", angles, persistent=False)

    def new_cache(self) -> Cache:
        """A cache with nothing in it."""
        return Cache()

    def features(self, tokens: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """What the last layer says after each new token.

        Args:
            tokens: the new tokens, ``[B, L]``.
            mask: false for padding, ``[B, L]``; all are tokens when None.
            cache: of the tokens before them, which the new ones join.

        Returns:
            ``[B, L, D]``; what stands at padding means nothing.

        Raises:
            ValueError: the sequence is longer than the context.
        """
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        seen = mask if cache is None else cache.extend_mask(mask)  # [B, S]
        (_, length), total = tokens.shape, seen.shape[1]
        if total > self.context:
            raise ValueError(f"a sequence has {total} tokens, but the model's context is {self.context}")
        causal = torch.ones(length, total, dtype=torch.bool, device=seen.device).tril(total - length)
        if (seen[:, 1:] > seen[:, :-1]).any():  # a token comes after padding
            positions = (seen.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]  # [B, L], padding not counted
            attend = causal & seen[:, None, None, :]  # [B, 1, L, S]
            attend = attend | ~mask[:, None, :, None]  # padding looks everywhere, or softmax has nothing
        else:  # then to look back is enough, which attention does by itself if all tokens or one are new
            positions = torch.arange(total - length, total, device=seen.device)[None]  # [1, L]
            attend = None if length in (1, total) else causal[None, None]
        angles = self.angles[positions, None]  # [B or 1, L, 1, D/2H]
        x = self.embedding(tokens)  # [B, L, D]
        for block in self.blocks:
            x = block(x, angles, attend, cache)
        return self.norm(x)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits of the token that follows each, ``[B, L, V]``: softmax makes them probabilities."""
        return self.head(self.features(tokens, mask, cache))
