"""Sampling: outputs follow the model's distribution, and are read again as they were written."""

import itertools
import math

import pytest
import torch
from language_helpers import (
    TINY,
    TableModel,
    made_up_samples,
    plain_log_probs,
    table_of,
    tiny_model,
    uncached_logits,
)

from policyopt.language.sampling import (
    Samples,
    TokenScorer,
    encode_prompts,
    generate,
    join,
    read_states,
    token_noise,
)

CLOSE = dict(atol=1e-5, rtol=1e-5)

# Prompts that share nothing, something, and enough to be read once for all.
PROMPTS = {
    "one": ["abcb"],
    "several": ["ab", "cbabc", "b"],
    "shared beginning": ["abcabcabca", "abcabcabcabb", "abcabcabcacb"],
}


def noise_of(*shape, seed=0):
    return token_noise(shape, torch.Generator().manual_seed(seed))


def write(model, prompts, group_size=4, length=6, temperature=1.0, seed=0):
    noise = noise_of(len(prompts), group_size, length, seed=seed)
    return generate(model, *encode_prompts(model, prompts, length), noise, temperature)


# Prompts


def test_prompts_by_hand():
    model = tiny_model()
    tokens, mask = encode_prompts(model, ["ab", "c"], 3)
    assert tokens.tolist() == [[2, 3], [0, 4]]
    assert mask.tolist() == [[True, True], [False, True]]


def test_padding_stands_after_what_all_have_in_common():
    tokens, mask = encode_prompts(tiny_model(), ["abcc", "aba", "abaac"], 3)
    assert tokens.tolist() == [[2, 3, 0, 4, 4], [2, 3, 0, 0, 2], [2, 3, 2, 2, 4]]
    assert mask.int().tolist() == [[1, 1, 0, 1, 1], [1, 1, 0, 0, 1], [1] * 5]


def test_a_prompt_that_begins_another_still_ends_in_the_last_column():
    tokens, mask = encode_prompts(tiny_model(), ["ab", "abab", "ab"], 3)
    assert tokens.tolist() == [[2, 0, 0, 3], [2, 3, 2, 3], [2, 0, 0, 3]]
    assert mask[:, -1].all()


def test_bad_prompts():
    model = tiny_model()
    encode_prompts(model, ["a" * (TINY.context - 4)], 4)
    with pytest.raises(ValueError, match=r"'aaa.*a' has 21 tokens; with 4 more .* context of 24"):
        encode_prompts(model, ["a", "a" * (TINY.context - 3)], 4)
    with pytest.raises(ValueError, match=r"lacks '\?'"):
        encode_prompts(model, ["a", "b?"], 4)
    with pytest.raises(ValueError, match="at least one character"):
        encode_prompts(model, ["a", ""], 4)
    with pytest.raises(ValueError, match="no row was given"):
        encode_prompts(model, [], 4)


# Which token is written


def test_noise():
    noise = noise_of(5, 6, 7)
    assert noise.shape == (5, 6, 7)
    assert ((noise >= 0) & (noise < 1)).all()
    assert torch.equal(noise, noise_of(5, 6, 7))
    assert not torch.equal(noise, noise_of(5, 6, 7, seed=1))


def test_a_token_is_the_first_whose_cumulative_probability_exceeds_its_noise():
    """A grid of noise, against the inverse of the cumulative distribution worked out in double precision."""
    logits = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    model = TableModel("abcde", logits.float().expand(7, 7))
    shares = logits.softmax(dim=0)
    count = 1000
    noise = ((torch.arange(count) + 0.5) / count).view(1, count, 1)
    samples = generate(model, *encode_prompts(model, ["a"], 1), noise)
    written = samples.tokens[0, :, 0]
    borders = shares.cumsum(dim=0)
    assert (
        (noise.flatten().double()[:, None] - borders).abs() > 1e-5
    ).all()  # so that rounding cannot matter
    by_hand = [sum(border <= u for border in borders.tolist()) for u in noise.flatten().tolist()]
    assert written.tolist() == by_hand
    torch.testing.assert_close(samples.log_probs[0, :, 0], shares.log().float()[written], **CLOSE)
    counts = written.bincount(minlength=7) / count
    torch.testing.assert_close(counts.double(), shares, atol=1 / count, rtol=0)


@pytest.mark.parametrize("noise", [0.0, 1 - 2**-24])
def test_the_ends_of_the_noise_give_tokens_that_can_be(noise):
    model = table_of("ab", {"a": {"b": 1.0}, "b": {"a": 0.3, "b": 0.7}})
    samples = generate(model, *encode_prompts(model, ["a", "b"], 1), torch.full((2, 1, 1), noise))
    assert samples.texts(model.tokenizer) == [["b"], ["a" if noise == 0 else "b"]]


def exact_shares(model, prompt, length):
    """The probability of every output of ``length`` tokens at most, from uncached forward passes."""
    prompt, end = model.tokenizer.encode_prompt(prompt), model.tokenizer.end_id
    shares, open_outputs = {}, {(): 1.0}
    for t in range(length):
        grown = {}
        for output, share in open_outputs.items():
            with torch.no_grad():
                following = model(torch.tensor([prompt + list(output)]))[0, -1].double().softmax(dim=-1)
            for token, p in enumerate(following.tolist()):
                target = shares if token == end or t == length - 1 else grown
                target[(*output, token)] = share * p
        open_outputs = grown
    return shares


def test_outputs_follow_the_distribution_of_the_model():
    """Every output of a transformer over four tokens, by its frequency among 40,000."""
    model, count, length = tiny_model("ab", std=0.4), 20_000, 3
    prompts = ["ab", "baabb"]
    samples = write(model, prompts, count, length)
    for q, prompt in enumerate(prompts):
        shares = exact_shares(model, prompt, length)
        assert math.fsum(shares.values()) == pytest.approx(1.0)
        assert len(shares) == 1 + 3 + 9 * 4
        found = dict.fromkeys(shares, 0)
        for output, mask in zip(samples.tokens[q].tolist(), samples.mask[q].tolist(), strict=True):
            found[tuple(itertools.compress(output, mask))] += 1
        for output, share in shares.items():
            error = math.sqrt(share * (1 - share) / count)
            assert abs(found[output] / count - share) < 4 * error + 1 / count, output


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_temperature_0_takes_the_likeliest_token(prompts):
    model = tiny_model()
    samples = write(model, prompts, group_size=2, temperature=0.0)
    for q, g in itertools.product(range(len(prompts)), range(2)):
        likeliest = uncached_logits(model, samples, q, g).argmax(dim=-1)
        assert likeliest.tolist() == samples.tokens[q, g][samples.mask[q, g]].tolist()
    torch.testing.assert_close(samples.log_probs, plain_log_probs(model, samples), **CLOSE)  # at 1


def test_temperature_divides_the_log_odds():
    """At temperature τ a table is that of the logits divided by τ."""
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    for temperature in (0.3, 1.7):
        hot = write(TableModel("abc", logits), ["a", "bc"], 50, temperature=temperature)
        plain = write(TableModel("abc", logits / temperature), ["a", "bc"], 50)
        assert torch.equal(hot.tokens, plain.tokens)
        torch.testing.assert_close(hot.log_probs, plain.log_probs, **CLOSE)


def test_the_limits_of_temperature():
    model = tiny_model()
    assert torch.equal(
        write(model, ["ab"], temperature=1e-4).tokens, write(model, ["ab"], temperature=0).tokens
    )
    hot = write(model, ["ab"], 2000, 1, temperature=1e6).tokens.flatten().bincount(minlength=5) / 2000
    torch.testing.assert_close(hot, torch.full((5,), 0.2), atol=4 * math.sqrt(0.16 / 2000), rtol=0)


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_bad_temperatures(temperature):
    with pytest.raises(ValueError, match=rf"temperature is {temperature}; it must be a number ≥ 0"):
        write(tiny_model(), ["ab"], temperature=temperature)


# Where an output ends


def test_nothing_stands_after_the_end():
    model = tiny_model()
    samples = write(model, ["ab", "cbabc", "b"], group_size=40, length=8)
    lengths = samples.lengths
    assert lengths.min() == 1
    assert lengths.max() == 8
    assert torch.equal(samples.mask, torch.arange(8) < lengths[..., None])
    assert (samples.tokens[~samples.mask] == model.tokenizer.pad_id).all()
    assert (samples.log_probs[~samples.mask] == 0).all()
    assert (samples.log_probs[samples.mask] < 0).all()
    ended = samples.finished(model.tokenizer)
    is_end = samples.mask & (samples.tokens == model.tokenizer.end_id)
    assert torch.equal(is_end.sum(dim=-1), ended.long())
    last = samples.tokens.gather(-1, lengths[..., None] - 1).squeeze(-1)
    assert torch.equal(last == model.tokenizer.end_id, ended)
    assert (lengths[~ended] == 8).all()
    assert ended.any()
    assert not ended.all()


def test_outputs_of_one_token():
    model = table_of("ab", {})  # always ends at once
    samples = write(model, ["a", "ba"], group_size=3, length=5)
    assert samples.tokens.tolist() == [[[1]] * 3] * 2
    assert samples.mask.all()
    assert (samples.lengths == 1).all()
    assert samples.finished(model.tokenizer).all()
    assert samples.texts(model.tokenizer) == [[""] * 3] * 2
    assert samples.log_probs.abs().max() < 1e-6
    assert write(tiny_model(), ["ab"], length=1).tokens.shape == (1, 4, 1)


def test_outputs_of_full_length():
    model = table_of("ab", {"a": {"b": 1.0}, "b": {"a": 1.0}})  # never ends
    samples = write(model, ["a", "ba", "b"], group_size=2, length=5)
    assert samples.texts(model.tokenizer) == [["babab"] * 2, ["babab"] * 2, ["ababa"] * 2]
    assert samples.mask.all()
    assert not samples.finished(model.tokenizer).any()
    model = tiny_model()
    full = write(model, ["a" * (TINY.context - 6)], group_size=50)  # to the last place of the context
    assert full.lengths.max() == 6
    torch.testing.assert_close(full.log_probs, TokenScorer(model)(full), **CLOSE)


def test_writing_stops_when_all_have_ended():
    model = table_of("ab", {"a": {"b": 1.0}})
    assert write(model, ["a", "b"], length=50).tokens.shape == (2, 4, 2)
    # "b" may be followed by the end only.
    assert write(model, ["a", "b"], group_size=1, length=50).tokens.tolist() == [[[3, 1]], [[1, 0]]]


def test_an_output_does_not_depend_on_what_is_written_beside_it():
    model, length, size = tiny_model(), 7, 3
    prompts = ["ab", "abcabcabcabca", "abcabcabcb", "c"]
    noise = noise_of(4, size, length)

    def of(rows, outputs=slice(None)):
        some = [prompts[row] for row in rows]
        return generate(model, *encode_prompts(model, some, length), noise[rows][:, outputs])

    together = of([0, 1, 2, 3])
    for rows, outputs in (([0], slice(None)), ([1, 2], slice(None)), ([3, 0], slice(1)), ([2], slice(1, 3))):
        apart = of(rows, outputs)
        width = apart.tokens.shape[-1]
        for name in ("tokens", "mask"):
            column = getattr(together, name)[rows][:, outputs]
            assert torch.equal(getattr(apart, name), column[..., :width])
            assert not column[..., width:].any()
        log_probs = together.log_probs[rows][:, outputs, :width]
        torch.testing.assert_close(apart.log_probs, log_probs, **CLOSE)


def test_writing_leaves_no_graph_and_changes_nothing():
    model = tiny_model()
    before = [parameter.clone() for parameter in model.parameters()]
    samples = write(model, ["ab", "c"])
    assert not samples.log_probs.requires_grad
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    state = torch.get_rng_state()
    again = write(model, ["ab", "c"])
    assert torch.equal(samples.tokens, again.tokens)
    assert torch.equal(samples.log_probs, again.log_probs)
    assert torch.equal(state, torch.get_rng_state())


# Reading again


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_what_was_written_is_read_with_the_same_probability(prompts, temperature):
    model = tiny_model()
    samples = write(model, prompts, group_size=16, length=8, temperature=temperature)
    read = TokenScorer(model, temperature)(samples)
    torch.testing.assert_close(read, samples.log_probs, **CLOSE)
    torch.testing.assert_close(read, plain_log_probs(model, samples, temperature), **CLOSE)


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_reading_what_others_wrote(prompts):
    model = tiny_model()
    samples = made_up_samples(model, prompts, group_size=4, length=6)
    read = TokenScorer(model)(samples)
    assert read.requires_grad
    assert (read[~samples.mask] == 0).all()
    torch.testing.assert_close(read, plain_log_probs(model, samples), **CLOSE)


@pytest.mark.parametrize("length", [1, 4])
def test_states(length):
    """State t has seen the prompt and o_<t; one more state follows the last token when asked for."""
    model = tiny_model()
    samples = made_up_samples(model, ["ab", "cbabc"], group_size=3, length=length)
    states, longer = read_states(model, samples), read_states(model, samples, after_last=True)
    assert states.shape == (2, 3, length, TINY.width)
    assert longer.shape == (2, 3, length + 1, TINY.width)
    torch.testing.assert_close(longer[:, :, :-1][samples.mask], states[samples.mask], **CLOSE)
    for q, g in itertools.product(range(2), range(3)):
        prompt = samples.prompts[q][samples.prompt_mask[q]]
        output = samples.tokens[q, g][samples.mask[q, g]]
        features = model.features(torch.cat([prompt, output])[None])[0, len(prompt) - 1 :]
        torch.testing.assert_close(longer[q, g, : len(output) + 1], features, **CLOSE)


# Outputs as data


def counted(num_prompts, width, group_size, length, start=0):
    """Samples in which every number is another one."""
    prompts = start + torch.arange(num_prompts * width).view(num_prompts, width)
    shape = (num_prompts, group_size, length)
    tokens = start + 1000 + torch.arange(math.prod(shape)).view(shape)
    mask = torch.ones(shape, dtype=torch.bool)
    return Samples(prompts, torch.ones_like(prompts, dtype=torch.bool), tokens, mask, tokens / 10)


def test_some_of_the_prompts():
    samples = counted(4, 2, 3, 5)
    assert len(samples) == 4
    for index in (slice(1, 3), torch.tensor([3, 0]), torch.tensor([True, False, True, False])):
        some = samples[index]
        assert isinstance(some, Samples)
        for name in ("prompts", "prompt_mask", "tokens", "mask", "log_probs"):
            assert torch.equal(getattr(some, name), getattr(samples, name)[index])
    assert len(samples[torch.tensor([3, 0])]) == 2


def test_join_by_hand():
    one, other = counted(2, 3, 2, 1), counted(1, 2, 2, 4, start=100)
    joint = join([one, other])
    assert joint.prompts.tolist() == [[0, 1, 2], [3, 4, 5], [0, 100, 101]]
    assert joint.prompt_mask.int().tolist() == [[1, 1, 1], [1, 1, 1], [0, 1, 1]]
    assert joint.tokens[:2].tolist() == [
        [[1000, 0, 0, 0], [1001, 0, 0, 0]],
        [[1002, 0, 0, 0], [1003, 0, 0, 0]],
    ]
    assert torch.equal(joint.tokens[2:], other.tokens)
    assert joint.mask[:2].sum().item() == 4
    assert joint.mask[2:].all()
    assert joint.lengths.tolist() == [[1, 1], [1, 1], [4, 4]]
    assert joint.log_probs[0, 0].tolist() == [100, 0, 0, 0]
    for name in ("prompts", "prompt_mask", "tokens", "mask", "log_probs"):
        assert torch.equal(getattr(join([one]), name), getattr(one, name))


def test_joint_outputs_are_read_as_before():
    model = tiny_model()
    parts = [write(model, ["ab", "abca"], seed=1), write(model, ["abcabcbcb"], length=3, seed=2)]
    joint = join(parts)
    torch.testing.assert_close(TokenScorer(model)(joint), joint.log_probs, **CLOSE)


def test_texts_by_hand():
    tokenizer = tiny_model().tokenizer
    tokens = torch.tensor([[[2, 3, 1], [1, 0, 0]], [[4, 4, 4], [2, 1, 0]]])
    mask = torch.tensor([[[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 0]]], dtype=torch.bool)
    samples = Samples(torch.zeros(2, 1), torch.ones(2, 1), tokens, mask, torch.zeros(2, 2, 3))
    assert samples.texts(tokenizer) == [["ab", ""], ["ccc", "a"]]
    assert samples.lengths.tolist() == [[3, 1], [3, 2]]
    assert samples.finished(tokenizer).tolist() == [[True, True], [False, True]]
