import pytest
import torch
from gymnasium.spaces import Box, Discrete
from numpy.polynomial.hermite_e import hermegauss

from policyopt.networks import Actor
from policyopt.trust_region import conjugate_gradient, fisher_vector_product, line_search


def small_actor(action_space):
    actor = Actor(Box(-1, 1, (3,)), action_space, (5,), torch.Generator().manual_seed(0)).double()
    actor.encoder.forward = lambda obs: obs  # the encoder casts to float32, too coarse here
    with torch.no_grad():
        for parameter in actor.policy_parameters:
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            )
    return actor, torch.randn(20, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def mean_kl(actor, obs):
    dist = actor.policy(obs)
    return type(dist).from_rows(dist.rows().detach()).kl(dist).mean()


def explicit_fisher(actor, obs):
    """E over states and actions of the outer product of ∇ log π, the definition; exact sums for both."""
    parameters = actor.policy_parameters
    size = sum(parameter.numel() for parameter in parameters)
    fisher = torch.zeros(size, size, dtype=torch.float64)
    for state in obs:
        if actor.discrete:
            weights = actor.policy(state).probs.detach()
            actions = torch.arange(len(weights))
        else:
            # Gauss-Hermite points integrate a Gaussian's polynomials exactly: ∇ log π is quadratic in a.
            nodes, weights = map(torch.from_numpy, hermegauss(8))
            weights = weights / weights.sum()
            dist = actor.policy(state)
            actions = (dist.mean + dist.std * nodes[:, None]).detach()
        for weight, action in zip(weights, actions, strict=True):
            gradients = torch.autograd.grad(actor.policy(state).log_prob(action), parameters)
            score = torch.cat([gradient.flatten() for gradient in gradients])
            fisher += weight * torch.outer(score, score)
    return fisher / len(obs)


@pytest.mark.parametrize("action_space", [Discrete(3), Box(-1, 1, (1,))], ids=["discrete", "continuous"])
def test_products_equal_the_explicit_fisher_matrix(action_space):
    actor, obs = small_actor(action_space)
    product = fisher_vector_product(mean_kl(actor, obs), actor.policy_parameters, damping=0.3)
    fisher = explicit_fisher(actor, obs)
    wanted = fisher + 0.3 * torch.eye(len(fisher), dtype=torch.float64)
    columns = torch.stack([product(unit) for unit in torch.eye(len(fisher), dtype=torch.float64)])
    torch.testing.assert_close(columns, wanted, atol=1e-10, rtol=0)
    assert fisher.abs().max() > 0.1


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_conjugate_gradient_equals_solve(size):
    generator = torch.Generator().manual_seed(size)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(size, dtype=torch.float64)
    b = torch.randn(size, generator=generator, dtype=torch.float64)
    x = conjugate_gradient(lambda v: matrix @ v, b, max_steps=2 * size, tolerance=1e-24)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), atol=1e-9, rtol=1e-9)


def test_conjugate_gradient_by_hand():
    """diag(1, 4) x = (1, 1): the first step goes along b with 2/5, the second arrives at (1, 1/4)."""
    matrix, b = torch.diag(torch.tensor([1.0, 4.0])), torch.ones(2)
    torch.testing.assert_close(conjugate_gradient(lambda v: matrix @ v, b, 1), torch.tensor([0.4, 0.4]))
    torch.testing.assert_close(conjugate_gradient(lambda v: matrix @ v, b, 2), torch.tensor([1.0, 0.25]))


def test_conjugate_gradient_stops():
    products = []

    def product(vector):
        products.append(vector)
        return 2 * vector

    assert torch.equal(conjugate_gradient(product, torch.zeros(3)), torch.zeros(3))
    assert not products
    torch.testing.assert_close(conjugate_gradient(product, torch.ones(3)), torch.full((3,), 0.5))
    assert len(products) == 1  # solved; the residual is 0
    assert torch.equal(conjugate_gradient(lambda v: -v, torch.ones(3)), torch.zeros(3))  # not positive


def search(objective, kl, full_step, **settings):
    theta = torch.tensor([1.0, 2.0])
    start = objective(theta).item()
    found = line_search(theta, full_step, lambda: (objective(theta), kl(theta)), start, 0.1, **settings)
    return theta, found


def test_line_search_by_hand():
    """Steps 1, 1/2, 1/4, …; KL = distance²: 1, 1/4, 1/16 ≤ 0.1."""
    start = torch.tensor([1.0, 2.0])
    kl = lambda theta: (theta - start).square().sum()  # noqa: E731
    theta, found = search(lambda theta: theta[0], kl, torch.tensor([1.0, 0.0]), shrink=0.5)
    assert theta.tolist() == [1.25, 2.0]
    assert found == (True, 0.0625, 0.25, 3)
    # A step that keeps the KL and does not improve is no good either.
    theta, found = search(lambda theta: -theta[0], kl, torch.tensor([1.0, 0.0]), shrink=0.5, max_tries=4)
    assert theta.tolist() == [1.0, 2.0]
    assert found == (False, 0.0, 0.0, 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_line_search_undoes_what_is_not_finite(bad):
    start = torch.tensor([1.0, 2.0])
    theta, found = search(
        lambda theta: theta.sum(), lambda theta: theta.sum(), torch.tensor([bad, 0.0]), max_tries=3
    )
    assert torch.equal(theta, start)
    assert not found.accepted
