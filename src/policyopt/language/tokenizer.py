"""Text and numbers: a vocabulary of characters, and what any tokenizer of the laboratory must offer."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["CharTokenizer", "Tokenizer", "pad"]


class Tokenizer(Protocol):
    """What sampling and training ask of a tokenizer; ``CharTokenizer`` and that of a pretrained model have
    it.
    """

    pad_id: int  # fills short rows; masked everywhere
    end_ids: tuple[int, ...]  # an output is over after any of these

    def encode_prompt(self, prompt: str) -> list[int]:
        """The tokens that stand before the first one the model is to write."""

    def encode_output(self, output: str) -> list[int]:
        """The tokens of an output, the end token last."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of an output, up to its end token and without it."""


class CharTokenizer:
    """One token for each character, one for the end of an output, one for padding.

    Args:
        characters: what can be written; repetitions count once.

    Attributes:
        characters: the vocabulary in order; token ``2 + i`` is its ``i``-th character, counted from 0.
        pad_id: the token that fills short rows, 0.
        end_id: the token after which an output is over, 1.

    Raises:
        ValueError: there is no character.
    """

    pad_id, end_id = 0, 1
    end_ids = (1,)

    def __init__(self, characters: str):
        self.characters = "".join(dict.fromkeys(characters))
        if not self.characters:
            raise ValueError("a vocabulary needs at least one character")
        self._ids = {character: 2 + i for i, character in enumerate(self.characters)}
        self._texts = {self.pad_id: "", **{i: character for character, i in self._ids.items()}}

    def __len__(self) -> int:
        """V, the number of tokens, padding and end included."""
        return 2 + len(self.characters)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without an end.

        Raises:
            ValueError: a character is not in the vocabulary; the message names it.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise ValueError(
                f"the vocabulary lacks {error.args[0]!r}, which {text!r} needs; it has {self.characters!r}"
            ) from None

    def encode_prompt(self, prompt: str) -> list[int]:
        """The tokens of a prompt.

        Raises:
            ValueError: it is empty, or a character is not in the vocabulary.
        """
        if not prompt:
            raise ValueError("a prompt needs at least one character")
        return self.encode(prompt)

    def encode_output(self, output: str) -> list[int]:
        """The tokens of an output, the end token last.

        Raises:
            ValueError: a character is not in the vocabulary.
        """
        return [*self.encode(output), self.end_id]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens up to the end token; padding is left out.

        Raises:
            ValueError: a number is no token of this vocabulary.
        """
        text = []
        for token in map(int, tokens):
            if token == self.end_id:
                break
            if token not in self._texts:
                raise ValueError(
                    f"there is no token {token}; those of this vocabulary are 0 to {len(self) - 1}"
                )
            text.append(self._texts[token])
        return "".join(text)

    def __repr__(self) -> str:
        return f"CharTokenizer({self.characters!r})"


def pad(rows: Sequence[Sequence[int]], pad_id: int, side: str) -> tuple[Tensor, Tensor]:
    """Rows of tokens as one tensor.

    Prompts are padded on the left, so that all end in the last column, where the output begins; outputs on
    the right.

    Args:
        rows: B lists of tokens.
        pad_id: fills the gaps.
        side: ``"left"`` or ``"right"``.

    Returns:
        The tokens, ``[B, L]`` with L the longest row's length, and a mask ``[B, L]``, true for tokens.

    Raises:
        ValueError: there is no row; no such side.
    """
    if side not in ("left", "right"):
        raise ValueError(f"side is {side!r}; it must be 'left' or 'right'")
    if not rows:
        raise ValueError("there is nothing to pad: no row was given")
    length = max(map(len, rows))
    tokens = torch.full((len(rows), length), pad_id)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(length - len(row), None) if side == "left" else slice(len(row))
        tokens[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = True
    return tokens, mask
