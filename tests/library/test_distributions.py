import pytest
import torch
from torch import distributions as theirs

from policyopt.distributions import Categorical, DiagonalGaussian


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(kind):
    """Our distribution and torch's, with the same parameters."""
    if kind == "categorical":
        logits = 3 * torch.randn(4, 5, 6, generator=generator())
        return Categorical(logits), theirs.Categorical(logits=logits)
    mean, log_std = torch.randn(4, 5, 3, generator=generator()), torch.tensor([-1.0, 0.0, 0.5])
    return DiagonalGaussian(mean, log_std), theirs.Independent(theirs.Normal(mean, log_std.exp()), 1)


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_equal_to_torch(kind):
    ours, reference = pair(kind)
    actions = ours.sample(generator())
    assert actions.shape == reference.sample().shape
    torch.testing.assert_close(ours.log_prob(actions), reference.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), reference.entropy())
    torch.testing.assert_close(ours.mode, reference.mode)


def test_categorical_samples_have_the_right_frequencies():
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1]))
    counts = Categorical(logits.expand(20_000, 3)).sample(generator()).bincount() / 20_000
    # Three standard errors of the largest share: 3 √(0.7 · 0.3 / 20000) ≈ 0.0097.
    torch.testing.assert_close(counts, torch.tensor([0.7, 0.2, 0.1]), atol=0.01, rtol=0)


def test_gaussian_samples_have_the_right_moments():
    samples = DiagonalGaussian(torch.full((20_000, 1), 2.0), torch.tensor([-1.0])).sample(generator())
    assert samples.mean().item() == pytest.approx(
        2.0, abs=0.01
    )  # three standard errors: 3 e^−1 / √20000 ≈ 0.008
    assert samples.std().item() == pytest.approx(0.3679, abs=0.006)


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_the_generator_alone_decides(kind):
    ours, _ = pair(kind)
    before = torch.random.get_rng_state()
    assert torch.equal(ours.sample(generator(1)), ours.sample(generator(1)))
    assert not torch.equal(ours.sample(generator(1)), ours.sample(generator(2)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_observation_without_a_batch():
    assert Categorical(torch.zeros(3)).sample(generator()).shape == ()
    assert DiagonalGaussian(torch.zeros(2), torch.zeros(2)).sample(generator()).shape == (2,)


def test_an_impossible_action_has_no_entropy_and_no_nan():
    dist = Categorical(torch.tensor([0.0, -torch.inf]))
    assert dist.entropy().item() == 0.0
    assert dist.sample(generator()).item() == 0


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_log_prob_gradient_by_finite_differences(kind):
    if kind == "categorical":
        actions = torch.tensor([0, 2, 1])
        logits = torch.randn(3, 4, generator=generator(), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: Categorical(x).log_prob(actions), logits)
        assert torch.autograd.gradcheck(lambda x: Categorical(x).entropy(), logits)
    else:
        actions = torch.randn(3, 2, generator=generator(), dtype=torch.float64)
        mean = torch.randn(3, 2, generator=generator(1), dtype=torch.float64, requires_grad=True)
        log_std = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda m, s: DiagonalGaussian(m, s).log_prob(actions), (mean, log_std)
        )


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_kl_equals_torch(kind):
    if kind == "categorical":
        logits = torch.randn(2, 4, 5, 6, generator=generator())
        ours, reference = map(Categorical, logits), (theirs.Categorical(logits=part) for part in logits)
    else:
        means, log_stds = (
            torch.randn(2, 4, 3, generator=generator()),
            torch.tensor([[-1, 0, 0.5], [0.2, 0, -1]]),
        )
        ours = map(DiagonalGaussian, means, log_stds)
        reference = (
            theirs.Independent(theirs.Normal(mean, log_std.exp()), 1)
            for mean, log_std in zip(means, log_stds, strict=True)
        )
    p, q = ours
    torch.testing.assert_close(p.kl(q), theirs.kl_divergence(*reference))
    torch.testing.assert_close(p.kl(p), torch.zeros_like(p.kl(p)), atol=1e-6, rtol=0)
    assert (p.kl(q) != q.kl(p)).any()


def test_kl_where_a_probability_is_0():
    sure, even = Categorical(torch.tensor([0.0, -torch.inf])), Categorical(torch.zeros(2))
    assert sure.kl(even).item() == pytest.approx(torch.tensor(2.0).log().item())
    assert even.kl(sure).item() == torch.inf
    assert sure.kl(sure).item() == 0.0


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_rows_give_the_same_distribution(kind):
    ours, _ = pair(kind)
    again = type(ours).from_rows(ours.rows())
    actions = ours.sample(generator())
    assert torch.equal(again.log_prob(actions), ours.log_prob(actions)) or kind == "categorical"
    torch.testing.assert_close(again.log_prob(actions), ours.log_prob(actions))
    assert ours.rows().shape[:-1] == ours.entropy().shape
