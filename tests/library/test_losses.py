import math

import pytest
import torch

from policyopt.distributions import Categorical, DiagonalGaussian
from policyopt.losses import (
    actor_critic_loss,
    clip_fraction,
    clipped_surrogate,
    explained_variance,
    kl_k1,
    kl_k2,
    kl_k3,
    masked_mean,
    normalize,
    policy_gradient,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 3.0, 3.0),
        (1.1, 2.0, 2.2),  # inside the range nothing is clipped
        (1.5, 2.0, 2.4),  # a good action that is already likelier: no more than 1.2 · 2
        (0.5, 2.0, 1.0),  # a good action made less likely: the full loss counts
        (1.5, -2.0, -3.0),  # a bad action made likelier: the full loss counts
        (0.5, -2.0, -1.6),  # a bad action already less likely: no less than 0.8 · −2
        (0.0, -1.0, -0.8),
        (2.0, 0.0, 0.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, expected):
    value = clipped_surrogate(torch.tensor(ratio), torch.tensor(advantage), 0.2)
    assert value.item() == pytest.approx(expected)


def test_clipped_surrogate_gradient_by_finite_differences():
    generator = torch.Generator().manual_seed(0)
    ratio = torch.empty(200, dtype=torch.float64).uniform_(0.5, 1.5, generator=generator)
    ratio = ratio[((ratio - 1).abs() - 0.2).abs() > 1e-3].requires_grad_()  # away from the two kinks
    advantages = torch.randn(len(ratio), generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: clipped_surrogate(r, advantages, 0.2), ratio)
    clipped_surrogate(ratio, advantages, 0.2).sum().backward()
    blocked = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
    assert 20 < blocked.sum() < len(ratio) - 20
    assert torch.equal(ratio.grad, torch.where(blocked, 0.0, advantages))


def test_an_infinite_clip_does_not_clip():
    ratio, advantages = torch.tensor([0.1, 5.0, 80.0]), torch.tensor([-1.0, 2.0, 3.0])
    assert torch.equal(clipped_surrogate(ratio, advantages, math.inf), ratio * advantages)


@pytest.mark.parametrize("clip", [0.0, -0.2, float("nan")])
def test_clip_must_be_positive(clip):
    with pytest.raises(ValueError, match=r"clip is .*must be greater than 0"):
        clipped_surrogate(torch.ones(2), torch.ones(2), clip)


def test_kl_estimators_by_hand():
    log_ratio = torch.tensor([0.0, math.log(2.0), -math.log(2.0)])
    assert kl_k1(log_ratio).tolist() == pytest.approx([0, -math.log(2), math.log(2)])
    assert kl_k2(log_ratio).tolist() == pytest.approx([0, math.log(2) ** 2 / 2, math.log(2) ** 2 / 2])
    assert kl_k3(log_ratio).tolist() == pytest.approx([0, 1 - math.log(2), math.log(2) - 0.5])


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    q = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    log_ratio = (q / p).log()
    # The expectation over p is a finite sum here, so unbiased means equal.
    torch.testing.assert_close((p * kl_k1(log_ratio)).sum(), exact)
    torch.testing.assert_close((p * kl_k3(log_ratio)).sum(), exact)
    assert (kl_k3(torch.linspace(-5, 5, 101)) >= 0).all()


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_kl_estimators_against_the_exact_kl(kind):
    """100,000 draws: k1 and k3 within three standard errors, k2 off by its bias, k3 the steadier."""
    generator = torch.Generator().manual_seed(0)
    if kind == "categorical":
        p, q = (Categorical(torch.tensor(x).expand(100_000, 3)) for x in ([0.5, 0.0, -1.0], [0.0, 0.3, -0.4]))
    else:
        mean, log_std = torch.zeros(100_000, 2), torch.zeros(2)
        p, q = DiagonalGaussian(mean, log_std), DiagonalGaussian(mean + 0.1, log_std - 0.1)
    samples = p.sample(generator)
    log_ratio = q.log_prob(samples) - p.log_prob(samples)
    exact = p.kl(q)[0]
    errors = {}
    for estimator in (kl_k1, kl_k2, kl_k3):
        estimate = estimator(log_ratio)
        error = estimate.std() / len(samples) ** 0.5
        errors[estimator] = error
        if estimator is not kl_k2:
            assert abs(estimate.mean() - exact) < 3 * error
    assert errors[kl_k3] < errors[kl_k1]
    # k2 estimates ½ E_p (log q/p)², which is near a small KL and not equal to it.
    bias = kl_k2(log_ratio).mean() - exact
    assert 3 * errors[kl_k2] < abs(bias) < 0.5 * exact


def test_policy_gradient_by_hand():
    log_probs = torch.tensor([-1.0, -2.0], requires_grad=True)
    advantages = torch.tensor([3.0, -0.5], requires_grad=True)
    objective = policy_gradient(log_probs, advantages)
    assert objective.tolist() == [-3.0, 1.0]
    objective.sum().backward()
    assert log_probs.grad.tolist() == [3.0, -0.5]
    assert advantages.grad is None  # the weight is no part of what is differentiated


def test_actor_critic_loss_by_hand():
    loss, metrics = actor_critic_loss(
        torch.tensor(3.0),
        torch.tensor([1.0, 2.0]),
        torch.tensor([0.0, 4.0]),
        torch.tensor([0.2, 0.6]),
        0.5,
        10,
    )
    assert loss.item() == pytest.approx(3 + 0.5 * (1 + 4) / 2 - 10 * 0.4)
    assert metrics["value_loss"].item() == pytest.approx(2.5)
    assert metrics["entropy"].item() == pytest.approx(0.4)


def test_clip_fraction_counts_both_sides():
    assert clip_fraction(torch.tensor([0.7, 0.85, 1.0, 1.15, 1.3]), 0.2).item() == pytest.approx(0.4)


def test_masked_mean_ignores_even_nan():
    values = torch.tensor([[1.0, 2.0, math.nan], [math.nan, math.nan, math.nan]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(values, mask).item() == 1.5
    assert masked_mean(values, mask, dim=1).tolist() == [1.5, 0.0]
    with pytest.raises(ValueError, match=r"mask has shape \(3,\)"):
        masked_mean(values, mask[0])


def test_normalize():
    assert normalize(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1.0, 0.0, 1.0])
    assert normalize(torch.tensor([5.0])).tolist() == [5.0]
    assert normalize(torch.full((4,), 7.0)).tolist() == [0.0] * 4


def test_explained_variance():
    targets = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance(torch.full((4,), 9.0), targets) == 0.0
    assert explained_variance(-targets, targets) == pytest.approx(1 - 4)
    assert math.isnan(explained_variance(targets, torch.ones(4)))


def test_k3_is_not_always_steadier_than_k1():
    """Where q is much the wider, the ratio q/p itself has heavy tails, and k3 contains it."""
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.zeros(100_000, 1).double(), torch.zeros(1).double()
    p, q = DiagonalGaussian(mean, log_std), DiagonalGaussian(mean, log_std + 0.3)
    samples = p.sample(generator)
    log_ratio = q.log_prob(samples) - p.log_prob(samples)
    assert kl_k3(log_ratio).std() > kl_k1(log_ratio).std()
