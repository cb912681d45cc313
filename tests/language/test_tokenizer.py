"""Text and tokens, there and back; rows of tokens as one tensor."""

import random

import pytest
import torch

from policyopt.language.tokenizer import CharTokenizer, pad


def test_tokens_by_hand():
    tokenizer = CharTokenizer("ba+")
    assert (len(tokenizer), tokenizer.pad_id, tokenizer.end_id, tokenizer.end_ids) == (5, 0, 1, (1,))
    assert tokenizer.encode("ab+b") == [3, 2, 4, 2]
    assert tokenizer.encode_prompt("a+") == [3, 4]
    assert tokenizer.encode_output("a+") == [3, 4, 1]
    assert tokenizer.encode("") == []
    assert tokenizer.encode_output("") == [1]  # nothing, said by ending at once
    assert repr(tokenizer) == "CharTokenizer('ba+')"


def test_there_and_back():
    characters = "0123456789+=()[]{}: äπ\n"
    tokenizer, rng = CharTokenizer(characters), random.Random(0)
    assert tokenizer.characters == characters
    for length in range(40):
        text = "".join(rng.choices(characters, k=length))
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode(tokenizer.encode_output(text)) == text
        assert all(1 < token < len(tokenizer) for token in tokenizer.encode(text))
    assert sorted(tokenizer.encode(characters)) == list(range(2, len(tokenizer)))


def test_repeated_characters_count_once():
    assert CharTokenizer("abca").characters == "abc"
    assert CharTokenizer("abcacb").encode("cab") == CharTokenizer("abc").encode("cab")


def test_what_stands_after_the_end_is_not_read():
    tokenizer = CharTokenizer("abc")
    assert tokenizer.decode([2, 1, 3]) == "a"
    assert tokenizer.decode([1, 3]) == ""
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([0, 0, 2, 3, 1, 0, 0]) == "ab"
    assert tokenizer.decode(torch.tensor([2, 3, 4])) == "abc"


@pytest.mark.parametrize("token", [5, -1, -100])
def test_a_number_that_is_no_token(token):
    with pytest.raises(ValueError, match=rf"no token {token}; .* 0 to 4"):
        CharTokenizer("abc").decode([2, token])


@pytest.mark.parametrize("method", ["encode", "encode_prompt", "encode_output"])
def test_a_character_the_vocabulary_lacks_is_named(method):
    with pytest.raises(ValueError, match=r"lacks '!', which 'ab!\?' needs; it has 'abc'"):
        getattr(CharTokenizer("abc"), method)("ab!?")


def test_empty_input():
    with pytest.raises(ValueError, match="at least one character"):
        CharTokenizer("")
    with pytest.raises(ValueError, match="a prompt needs at least one character"):
        CharTokenizer("abc").encode_prompt("")


def test_pad_by_hand():
    tokens, mask = pad([[5, 6], [], [7, 8, 9]], 4, "left")
    assert tokens.tolist() == [[4, 5, 6], [4, 4, 4], [7, 8, 9]]
    assert mask.tolist() == [[False, True, True], [False] * 3, [True] * 3]
    assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)
    tokens, mask = pad([[5, 6], [], [7, 8, 9]], 4, "right")
    assert tokens.tolist() == [[5, 6, 4], [4, 4, 4], [7, 8, 9]]
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_padding_tokens_that_are_also_written_stay_in_the_mask():
    tokens, mask = pad([[0, 1], [1]], 0, "right")
    assert tokens.tolist() == [[0, 1], [1, 0]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_pad_of_rows_without_tokens():
    tokens, mask = pad([[], []], 0, "left")
    assert tokens.shape == mask.shape == (2, 0)


def test_pad_refuses():
    with pytest.raises(ValueError, match="no row"):
        pad([], 0, "left")
    with pytest.raises(ValueError, match="side is 'middle'; it must be 'left' or 'right'"):
        pad([[1]], 0, "middle")
