"""The parts of GRPO and its relatives: each by hand, and how they relate to one another."""

import dataclasses
import math
from functools import partial

import pytest
import torch

from policyopt.language.variants import (
    VARIANTS,
    Variant,
    asymmetric_clip,
    informative_groups,
    leave_one_out_advantages,
    output_ratio,
    overlong_penalty,
    per_budget,
    per_output_mean,
    per_token_mean,
    sequence_ratio,
    token_ratio,
)
from policyopt.losses import clipped_surrogate
from policyopt.returns import group_relative_advantages

# Two prompts with two outputs each, of 1 and 3, 3 and 2 tokens.
MASK = torch.tensor([[[1, 0, 0], [1, 1, 1]], [[1, 1, 1], [1, 1, 0]]], dtype=torch.bool)


def random_mask(generator, shape=(3, 4), limit=7):
    lengths = torch.randint(1, limit + 1, shape, generator=generator)
    return torch.arange(limit) < lengths[..., None]


# --- advantages ---


def test_leave_one_out_by_hand():
    """Each reward minus the mean of the other three."""
    advantages = leave_one_out_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.5], [2.0, 2.0, 2.0, 2.0]]))
    expected = [1 - 0.5 / 3, 0 - 1.5 / 3, 0 - 1.5 / 3, 0.5 - 1 / 3]
    assert advantages[0].tolist() == pytest.approx(expected)
    assert advantages[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_leave_one_out_is_the_centred_reward_scaled(size):
    rewards = torch.randn(5, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    others = torch.stack(
        [torch.cat([rewards[:, :i], rewards[:, i + 1 :]], dim=1).mean(1) for i in range(size)], dim=1
    )
    torch.testing.assert_close(leave_one_out_advantages(rewards), rewards - others)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    torch.testing.assert_close(leave_one_out_advantages(rewards), size / (size - 1) * centred)
    assert torch.equal(
        leave_one_out_advantages(rewards),
        group_relative_advantages(rewards, divide_by_std=False) * (size / (size - 1)),
    )


def test_of_two_the_standardised_advantage_says_only_which_is_better():
    """(±d/2) / (d/√2): whatever the difference d, ±1/√2. Without the division it stays ±d/2; against the
    other one, ±d.
    """
    rewards = torch.tensor([[1.0, 0.0], [0.2, 0.7], [0.3, 0.3]])
    half = 1 / math.sqrt(2)
    assert group_relative_advantages(rewards).flatten().tolist() == pytest.approx(
        [half, -half, -half, half, 0, 0], rel=1e-3
    )
    assert VARIANTS["dr_grpo"].advantages(rewards).flatten().tolist() == pytest.approx(
        [0.5, -0.5, -0.25, 0.25, 0, 0]
    )
    assert leave_one_out_advantages(rewards).flatten().tolist() == pytest.approx([1, -1, -0.5, 0.5, 0, 0])


@pytest.mark.parametrize("name", VARIANTS)
def test_advantages_of_a_group_sum_to_zero(name):
    rewards = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    rewards[3] = 0.1  # 6 · 0.1 / 6 is not 0.1 in floating point
    advantages = VARIANTS[name].advantages(rewards)
    assert advantages.sum(dim=1).abs().max() < 1e-5
    assert (advantages[3] == 0).all()


def test_a_group_of_one_is_refused():
    for variant in VARIANTS.values():
        with pytest.raises(ValueError, match="a group has 1 member"):
            variant.advantages(torch.ones(3, 1))


# --- ratios ---


def test_ratios_by_hand():
    """Tokens whose probabilities became 2, 1/2 and 4 times as large; what stands after the end is void."""
    log_ratio = torch.tensor([[[2.0, 9.0, 9.0], [2.0, 0.5, 4.0]]]).log()
    mask = MASK[:1]
    assert token_ratio(log_ratio, mask)[mask].tolist() == pytest.approx([2, 2, 0.5, 4])
    assert sequence_ratio(log_ratio, mask).flatten().tolist() == pytest.approx([2, 4 ** (1 / 3)])
    assert output_ratio(log_ratio, mask).flatten().tolist() == pytest.approx([2, 4])
    assert sequence_ratio(log_ratio, mask).shape == output_ratio(log_ratio, mask).shape == (1, 2, 1)


def test_ratios_agree_where_an_output_has_one_token():
    log_ratio = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    mask[..., 0] = True
    first = token_ratio(log_ratio, mask)[..., :1]
    torch.testing.assert_close(sequence_ratio(log_ratio, mask), first)
    torch.testing.assert_close(output_ratio(log_ratio, mask), first)


def test_the_ratio_of_an_output_is_that_of_a_sequence_to_its_length():
    generator = torch.Generator().manual_seed(0)
    mask = random_mask(generator)
    log_ratio = 0.1 * torch.randn(mask.shape, generator=generator)
    lengths = mask.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(output_ratio(log_ratio, mask), sequence_ratio(log_ratio, mask) ** lengths)


@pytest.mark.parametrize("ratio", [token_ratio, sequence_ratio, output_ratio])
def test_at_the_policy_that_sampled_every_ratio_is_one(ratio):
    assert (ratio(torch.zeros(2, 2, 3), MASK) == 1).all()


def test_the_gradient_of_a_sequence_ratio_is_the_same_for_each_of_its_tokens():
    """GSPO weighs the tokens of an output alike, GRPO each by its own ratio: GSPO paper, section 4.2."""
    log_ratio = torch.tensor([[[0.1, 0.0, 0.0], [0.3, -0.2, 0.5]]], requires_grad=True)
    sequence_ratio(log_ratio, MASK[:1]).sum().backward()
    one = math.exp(0.2) / 3
    assert log_ratio.grad.flatten().tolist() == pytest.approx([math.exp(0.1), 0, 0, one, one, one])
    log_ratio.grad = None
    (token_ratio(log_ratio, MASK[:1]) * MASK[:1]).sum().backward()
    expected = [math.exp(x) for x in (0.1, 0.3, -0.2, 0.5)]
    assert log_ratio.grad[MASK[:1]].tolist() == pytest.approx(expected)


# --- surrogates ---


def test_asymmetric_clip_by_hand():
    """ε = 0.2 below and 0.28 above. The minimum keeps the clip only where it makes the objective smaller."""
    ratio = torch.tensor([0.7, 0.9, 1.25, 1.3])
    assert asymmetric_clip(ratio, torch.tensor(2.0), 0.2).tolist() == pytest.approx([1.4, 1.8, 2.5, 2.56])
    assert asymmetric_clip(ratio, torch.tensor(-2.0), 0.2).tolist() == pytest.approx([-1.6, -1.8, -2.5, -2.6])
    with pytest.raises(ValueError, match=r"clip is 0 and clip_high 0\.28; both must be greater than 0"):
        asymmetric_clip(ratio, torch.tensor(1.0), 0)


def test_asymmetric_clip_is_ppos_when_both_sides_are_equal():
    generator = torch.Generator().manual_seed(0)
    ratio, advantages = (
        (0.4 * torch.randn(200, generator=generator)).exp(),
        torch.randn(200, generator=generator),
    )
    ours = asymmetric_clip(ratio, advantages, 0.2, clip_high=0.2)
    assert torch.equal(ours, clipped_surrogate(ratio, advantages, 0.2))
    wider = asymmetric_clip(ratio, advantages, 0.2)
    assert (wider >= ours).all()
    differs = wider > ours
    assert differs.any()
    assert ((ratio > 1.2) & (advantages > 0))[differs].all()  # only what grows gets more room


# --- weights ---


def test_weights_by_hand():
    """Lengths 1, 3, 3, 2: nine tokens, four outputs, room for five tokens in each."""
    third = 1 / 12
    assert per_output_mean(MASK, 5)[MASK].tolist() == pytest.approx([1 / 4, *[third] * 6, 1 / 8, 1 / 8])
    assert per_token_mean(MASK, 5)[MASK].tolist() == pytest.approx([1 / 9] * 9)
    assert per_budget(MASK, 5)[MASK].tolist() == pytest.approx([1 / 20] * 9)
    for weights in (per_output_mean, per_token_mean, per_budget):
        assert (weights(MASK, 5)[~MASK] == 0).all()


def test_what_weights_sum_to():
    generator = torch.Generator().manual_seed(0)
    mask = random_mask(generator)
    assert per_output_mean(mask, 7).sum().item() == pytest.approx(1)
    assert per_output_mean(mask, 7).sum(-1).flatten().tolist() == pytest.approx(
        [1 / 12] * 12
    )  # each output alike
    assert per_token_mean(mask, 7).sum().item() == pytest.approx(1)
    filled = mask.float().mean().item()
    assert per_budget(mask, 7).sum().item() == pytest.approx(filled)  # how much of the budget was used


def test_weights_agree_where_lengths_are_equal():
    mask = torch.arange(6).expand(3, 4, 6) < 4
    torch.testing.assert_close(per_token_mean(mask, 6), per_output_mean(mask, 6))
    torch.testing.assert_close(per_budget(mask, 6), per_output_mean(mask, 6) * 4 / 6)
    full = torch.ones_like(mask)
    torch.testing.assert_close(per_budget(full, 6), per_output_mean(full, 6))


def test_the_token_mean_of_one_prompt_is_dapos_equation():
    """Eq. 12 of DAPO divides by the tokens of one prompt's outputs: a batch of one prompt has it so."""
    mask = MASK[:1]
    assert per_token_mean(mask, 3)[mask].tolist() == pytest.approx([1 / (1 + 3)] * 4)


# --- rewards and groups ---


def test_overlong_penalty_by_hand():
    """At most 10 tokens, the last 4 of them the margin: no penalty up to 6, −1 at 10."""
    lengths = torch.tensor([[1, 6, 7], [8, 9, 10]])
    mask = torch.arange(10) < lengths[..., None]
    shaped = overlong_penalty(torch.ones(2, 3), mask, 10, margin=0.4)
    assert shaped.flatten().tolist() == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0])


def test_overlong_penalty_with_the_papers_numbers():
    """Eq. 13 with L_max = 20,480 and L_cache = 4,096 tokens, at lengths around both."""
    lengths = torch.tensor([[16_384, 16_385, 18_432, 20_479, 20_480]])
    mask = torch.arange(20_480) < lengths[..., None]
    expected = [0, -1 / 4096, -0.5, -4095 / 4096, -1]
    assert overlong_penalty(torch.zeros(1, 5), mask, 20_480)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 7, 10, 24, 39, 100])
def test_dapo_punishes_no_output_within_the_tasks_limit(longest):
    """The room beyond the limit of a task is the margin; who fills it has the whole penalty."""
    limit = math.ceil(VARIANTS["dapo"].room * longest)
    lengths = torch.tensor([[1, longest, limit]])
    mask = torch.arange(limit) < lengths[..., None]
    assert overlong_penalty(torch.zeros(1, 3), mask, limit)[0].tolist() == pytest.approx([0, 0, -1], abs=1e-7)
    assert limit > longest


@pytest.mark.parametrize("margin", [0, 1.5, math.nan])
def test_a_margin_that_is_no_share_is_refused(margin):
    with pytest.raises(ValueError, match=r"margin is .*; it must be a share in \(0, 1\]"):
        overlong_penalty(torch.ones(2, 2), MASK, 3, margin)


def test_informative_groups():
    rewards = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.3, 0.3, 0.31]])
    assert informative_groups(rewards).tolist() == [False, False, True, True]
    assert (informative_groups(rewards) == group_relative_advantages(rewards).ne(0).any(dim=1)).all()


# --- recipes ---


def test_what_each_variant_changes():
    """The recipes are those of the papers, and nothing else differs from GRPO."""
    changed = {
        name: {
            field.name
            for field in dataclasses.fields(Variant)
            if getattr(variant, field.name) != getattr(Variant(), field.name)
        }
        for name, variant in VARIANTS.items()
    }
    assert changed == {
        "grpo": set(),
        "dr_grpo": {"advantages", "weights"},
        "dapo": {"surrogate", "weights", "shape_rewards", "sampling_rounds", "room"},
        "rloo": {"advantages", "ratio", "kl_in_reward"},
        "gspo": {"ratio", "clip"},
    }


def test_a_variant_names_its_parts():
    """So that the checkpoint of one recipe is not taken up by another."""
    text = str(VARIANTS["dr_grpo"])
    assert "advantages=group_relative_advantages{'divide_by_std': False}" in text
    assert "weights=per_budget" in text
    assert "clip=0.2" in text
    wider = dataclasses.replace(VARIANTS["dapo"], surrogate=partial(asymmetric_clip, clip_high=0.3))
    assert len({*map(str, VARIANTS.values()), str(wider)}) == 6
