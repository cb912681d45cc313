import pytest
import torch

from policyopt.returns import discounted_returns, gae, group_relative_advantages, td_errors


def column(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)[:, None]


def random_rollout(steps=40, envs=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rewards, values, next_values = torch.randn(3, steps, envs, generator=generator, dtype=torch.float64)
    ends = torch.rand(steps, envs, generator=generator)
    return rewards, values, next_values, ends < 0.1, (ends > 0.85)


def test_discounted_returns_by_hand():
    # γ = 1/2. Row 2 terminates; rows 3-4 belong to the next episode, cut by the array's end, V(s_5) = 16.
    rewards = column(1.0, 2.0, 4.0, 8.0, 2.0)
    next_values = column(100.0, 100.0, 100.0, 100.0, 16.0)
    terminated = column(False, False, True, False, False, dtype=torch.bool)
    truncated = torch.zeros_like(terminated)
    returns = discounted_returns(rewards, next_values, terminated, truncated, gamma=0.5)
    # G_2 = 4; G_1 = 2 + 4/2 = 4; G_0 = 1 + 4/2 = 3; G_4 = 2 + 16/2 = 10; G_3 = 8 + 10/2 = 13
    assert returns.squeeze().tolist() == [3.0, 4.0, 4.0, 13.0, 10.0]


def test_discounted_returns_bootstrap_at_a_truncation():
    rewards = column(1.0, 1.0, 1.0)
    next_values = column(50.0, 6.0, 50.0)
    terminated = column(False, False, True, dtype=torch.bool)
    truncated = column(False, True, False, dtype=torch.bool)
    returns = discounted_returns(rewards, next_values, terminated, truncated, gamma=0.5)
    # G_1 = 1 + 6/2 = 4 (what follows belongs to another episode); G_0 = 1 + 4/2 = 3; G_2 = 1
    assert returns.squeeze().tolist() == [3.0, 4.0, 1.0]


def test_both_flags_at_once_count_as_a_termination():
    one, yes = column(1.0), column(True, dtype=torch.bool)
    assert discounted_returns(one, 10 * one, yes, yes, gamma=0.9).item() == 1.0
    assert gae(one, 3 * one, 10 * one, yes, yes, gamma=0.9, gae_lambda=0.5).item() == -2.0


def test_gae_by_hand():
    # γ = λ = 1/2, γλ = 1/4. δ_0 = 1 + 4/2 − 2 = 1, δ_1 = 2 + 6/2 − 4 = 1, δ_2 = 3 + 0 − 6 = −3 (terminated).
    rewards, values, next_values = column(1.0, 2.0, 3.0), column(2.0, 4.0, 6.0), column(4.0, 6.0, 99.0)
    terminated = column(False, False, True, dtype=torch.bool)
    truncated = torch.zeros_like(terminated)
    assert td_errors(rewards, values, next_values, terminated, 0.5).squeeze().tolist() == [1.0, 1.0, -3.0]
    # Â_2 = −3, Â_1 = 1 − 3/4 = 1/4, Â_0 = 1 + 1/16
    advantages = gae(rewards, values, next_values, terminated, truncated, 0.5, 0.5)
    assert advantages.squeeze().tolist() == [1.0625, 0.25, -3.0]


def test_gae_keeps_the_value_behind_a_truncation_but_not_the_next_episode():
    rewards, values, next_values = column(1.0, 1.0), column(2.0, 5.0), column(8.0, 7.0)
    truncated = column(True, False, dtype=torch.bool)
    terminated = torch.zeros_like(truncated)
    advantages = gae(rewards, values, next_values, terminated, truncated, 0.5, 1.0)
    assert advantages.squeeze().tolist() == [1 + 4 - 2, 1 + 3.5 - 5]


def test_gae_with_lambda_0_is_the_td_error():
    rewards, values, next_values, terminated, truncated = random_rollout()
    expected = td_errors(rewards, values, next_values, terminated, 0.97)
    torch.testing.assert_close(
        gae(rewards, values, next_values, terminated, truncated, 0.97, 0.0), expected, rtol=0, atol=0
    )


def test_gae_with_lambda_1_plus_value_is_the_return():
    rewards, values, _, terminated, truncated = random_rollout()
    # The identity needs one value function: within an episode V(s_{t+1}) of row t is V(s_t) of row t+1.
    next_values = torch.cat([values[1:], torch.randn_like(values[:1])])
    advantages = gae(rewards, values, next_values, terminated, truncated, 0.97, 1.0)
    returns = discounted_returns(rewards, next_values, terminated, truncated, 0.97)
    torch.testing.assert_close(advantages + values, returns)


def test_gae_equals_the_explicit_sum():
    rewards, values, next_values, terminated, truncated = random_rollout(steps=12, envs=1, seed=3)
    gamma, gae_lambda = 0.9, 0.8
    deltas = td_errors(rewards, values, next_values, terminated, gamma).squeeze().tolist()
    ends = (terminated | truncated).squeeze().tolist()
    expected = []
    for t in range(12):
        total, weight = 0.0, 1.0
        for k in range(t, 12):
            total += weight * deltas[k]
            weight *= gamma * gae_lambda
            if ends[k]:
                break
        expected.append(total)
    actual = gae(rewards, values, next_values, terminated, truncated, gamma, gae_lambda)
    torch.testing.assert_close(actual.squeeze(), torch.tensor(expected, dtype=torch.float64))


def test_what_is_behind_a_termination_may_be_anything():
    rewards, values, next_values, terminated, truncated = random_rollout()
    poisoned = torch.where(terminated, torch.nan, next_values)
    for estimate in (
        lambda v: gae(rewards, values, v, terminated, truncated, 0.9, 0.9),
        lambda v: discounted_returns(rewards, v, terminated, truncated, 0.9),
    ):
        assert torch.equal(estimate(poisoned), estimate(next_values))


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), float("inf")])
def test_gamma_out_of_range(gamma):
    with pytest.raises(ValueError, match=r"gamma is .*must be a number in \[0, 1\]"):
        gae(*random_rollout(), gamma, 0.5)
    with pytest.raises(ValueError, match="gae_lambda is"):
        gae(*random_rollout(), 0.5, gamma)


def test_shapes_and_dtypes_are_checked():
    rewards, values, next_values, terminated, truncated = random_rollout()
    with pytest.raises(ValueError, match=r"values has shape \(39, 5\), but rewards have \(40, 5\)"):
        gae(rewards, values[1:], next_values, terminated, truncated, 0.9, 0.9)
    with pytest.raises(ValueError, match=r"terminated has dtype torch.int64; it must be torch.bool"):
        gae(rewards, values, next_values, terminated.long(), truncated, 0.9, 0.9)


def test_gae_equals_stable_baselines3():
    """Their buffer knows only dones; at a truncation their rollout first adds γ V(s_{t+1}) to the reward."""
    import numpy as np
    from gymnasium.spaces import Box, Discrete
    from stable_baselines3.common.buffers import RolloutBuffer

    steps, envs, gamma, gae_lambda = 40, 5, 0.97, 0.9
    rewards, values, _, terminated, truncated = (
        tensor.float() if tensor.is_floating_point() else tensor for tensor in random_rollout(steps, envs)
    )
    truncated &= ~terminated
    last_values = torch.randn(envs, generator=torch.Generator().manual_seed(1))
    ends = terminated | truncated
    final_values = torch.randn(steps, envs, generator=torch.Generator().manual_seed(2))  # V of the last obs
    next_values = torch.where(ends, final_values, torch.cat([values[1:], last_values[None]]))

    buffer = RolloutBuffer(steps, Box(-1, 1, (1,)), Discrete(2), "cpu", gae_lambda, gamma, envs)
    starts = np.ones(envs)
    blank = np.zeros((envs, 1))
    for t in range(steps):
        their_rewards = rewards[t] + gamma * final_values[t] * truncated[t]
        buffer.add(
            blank,
            blank,
            their_rewards.numpy(),
            starts,
            values[t],
            torch.zeros(envs),
        )
        starts = ends[t].numpy().astype(float)
    buffer.compute_returns_and_advantage(last_values=last_values, dones=starts)

    ours = gae(rewards, values, next_values, terminated, truncated, gamma, gae_lambda)
    np.testing.assert_allclose(ours.numpy(), buffer.advantages, atol=1e-5)
    np.testing.assert_allclose((ours + values).numpy(), buffer.returns, atol=1e-5)


def test_group_relative_advantages_by_hand():
    returns = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    assert group_relative_advantages(returns, divide_by_std=False).tolist() == [[-1, 1], [0, 0]]
    half = 1 / (2**0.5 + 1e-4)  # the standard deviation of 1 and 3, with Bessel's correction, is √2
    assert group_relative_advantages(returns).flatten().tolist() == pytest.approx([-half, half, 0, 0])


def test_a_group_of_equal_returns_gives_zero():
    """The mean of seven times 0.1 is not 0.1 in single precision; the last bit must not be blown up."""
    for value in (0.1, 0.3, -1e7, 500.0, 0.0):
        advantages = group_relative_advantages(torch.full((3, 7), value), epsilon=1e-12)
        assert torch.equal(advantages, torch.zeros(3, 7))


@pytest.mark.parametrize("seed", range(20))
def test_group_relative_advantages_compare_within_the_group(seed):
    """They sum to 0, keep the order, and know nothing of a group's level and (divided) of its scale."""
    generator = torch.Generator().manual_seed(seed)
    returns = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    advantages = group_relative_advantages(returns)
    torch.testing.assert_close(advantages.sum(dim=-1), torch.zeros(6).double(), atol=1e-12, rtol=0)
    assert torch.equal(advantages.argsort(dim=-1), returns.argsort(dim=-1))
    moved = 100 * returns + torch.arange(6.0).double()[:, None]
    torch.testing.assert_close(group_relative_advantages(moved), advantages, rtol=1e-3, atol=0)
    single = torch.stack([group_relative_advantages(row) for row in returns])
    torch.testing.assert_close(single, advantages)


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="a group has 1 member; it must have at least 2"):
        group_relative_advantages(torch.zeros(4, 1))
