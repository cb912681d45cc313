"""REINFORCE: its mean gradient is the exact policy gradient with every baseline; they only take variance."""

import dataclasses
import functools
import itertools

import pytest
import torch
from gymnasium.spaces import Box, Discrete

from policyopt.algorithms import reinforce
from policyopt.algorithms.reinforce import ReinforceConfig, reinforce_batch, reinforce_loss
from policyopt.envs import GridWorld
from policyopt.networks import Actor, ActorCritic
from policyopt.rollout import EpisodeCollector, Rollout
from policyopt.tabular import exact_policy_gradient, policy_evaluation, tabular_model

GAMMA = 0.9
# All rewards are positive, so that without a baseline every action is raised.
ENV = functools.partial(
    GridWorld, ("XS..G",), goal_reward=6.0, pit_reward=1.0, step_reward=0.5, slip=0.2, max_steps=None
)


def test_batch_by_hand():
    """One episode of three steps with the rewards 1, 2, 4 and γ = 1/2, beside a shorter one."""
    flags = torch.zeros(3, 2, dtype=torch.bool)
    terminated, truncated = flags.clone(), flags.clone()
    terminated[2, 0] = truncated[1, 1] = True
    episodes = Rollout(
        all_obs=torch.arange(8.0).reshape(4, 2, 1),
        actions=torch.zeros(3, 2, dtype=torch.int64),
        log_probs=torch.zeros(3, 2),
        rewards=torch.tensor([[1.0, 8.0], [2.0, 8.0], [4.0, 99.0]]),
        terminated=terminated,
        truncated=truncated,
        valid=torch.tensor([[True, True], [True, True], [True, False]]),
    )
    agent = ActorCritic(Box(-9, 9, (1,)), Discrete(2), ())
    with torch.no_grad():
        agent.value_net[0].weight.fill_(1.0)  # V(s) = s

    def weights(**settings):
        config = ReinforceConfig(gamma=0.5, **settings)
        return reinforce_batch(episodes, agent, config, mean_return=10.0)

    batch = weights(baseline="none")
    assert batch.obs.flatten().tolist() == [0, 1, 2, 3, 4]  # time goes first, the waiting row is left out
    assert batch.value_targets.tolist() == [3, 12, 4, 8, 4]  # 1 + (2 + 4/2)/2, 8 + 8/2, …
    assert batch.advantages.tolist() == [3, 12, 4, 8, 4]
    assert weights(baseline="none", discount_steps=True).advantages.tolist() == [3, 12, 2, 4, 1]
    assert weights(baseline="none", reward_to_go=False).advantages.tolist() == [3, 12, 3, 12, 3]
    assert weights(baseline="mean").advantages.tolist() == [-7, 2, -6, -2, -6]
    # The second episode was cut off in the state 5, whose value counts: 8 + 5/2, then 8 + 10.5/2.
    assert weights(baseline="value").advantages.tolist() == [3 - 0, 13.25 - 1, 4 - 2, 10.5 - 3, 4 - 4]


def test_loss_by_hand():
    agent = Actor(Box(-1, 1, (1,)), Discrete(2), ())
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.zero_()
    batch = dataclasses.replace(
        reinforce.Batch(*(torch.zeros(3) for _ in range(6))),
        obs=torch.zeros(3, 1),
        actions=torch.tensor([0, 1, 1]),
        advantages=torch.tensor([1.0, 2.0, 5.0]),
    )
    log2 = torch.tensor(2.0).log().item()
    config = ReinforceConfig(num_episodes=2, entropy_coef=0.1)
    loss, metrics = reinforce_loss(agent, batch, config)
    assert loss.item() == pytest.approx(8 * log2 / 2 - 0.1 * 3 * log2 / 2)
    assert metrics["entropy"].item() == pytest.approx(log2)
    reinforce_loss(agent, batch, ReinforceConfig(num_episodes=2))[0].backward()
    # ∂ log π(a)/∂ logit₀ = 1[a = 0] − 1/2: −(1/2 · 1 − 1/2 · 7) / 2
    assert agent.policy_net[0].bias.grad.tolist() == pytest.approx([1.5, -1.5])


# --- the gradient's mean and variance on a problem that can be solved exactly ---

VARIANTS = {
    "whole episode": {"baseline": "none", "reward_to_go": False},
    "reward-to-go": {"baseline": "none"},
    "mean baseline": {"baseline": "mean"},
    "whole episode, mean baseline": {"baseline": "mean", "reward_to_go": False},
    "learned value": {"baseline": "value"},
    "γ^t left out": {"baseline": "none", "discount_steps": False},
}


@pytest.fixture(scope="module")
def gradients():
    """For each variant the gradients of 300 batches of 20 episodes, all of the same episodes, and the exact
    one; a policy that is a table, far from uniform.
    """
    num_episodes = 20
    collector = EpisodeCollector(ENV, num_episodes, seed=0)
    agent = ActorCritic.for_envs(collector.envs, (), seed=0)
    model = tabular_model(ENV())
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(model.rewards.shape, generator=generator)  # [S, A]
    values = policy_evaluation(model, logits.double().softmax(dim=-1), GAMMA)
    mean_return = float((model.start_distribution * values).sum())
    with torch.no_grad():
        agent.policy_net[0].weight.copy_(logits.T)
        agent.value_net[0].weight.copy_(values[None] + 0.1)  # a critic that is good, not perfect
    found = {name: [] for name in VARIANTS}
    for _ in range(300):
        episodes = collector.collect(agent)
        for name, settings in VARIANTS.items():
            config = ReinforceConfig(
                num_episodes=num_episodes, gamma=GAMMA, **{"discount_steps": True, **settings}
            )
            batch = reinforce_batch(episodes, agent, config, mean_return)
            loss, _ = reinforce_loss(agent, batch, config)
            (gradient,) = torch.autograd.grad(-loss, [agent.policy_net[0].weight])
            found[name].append(gradient.T.double())
    collector.close()
    return {name: torch.stack(rows) for name, rows in found.items()}, exact_policy_gradient(
        model, logits, GAMMA
    )


def deviations(samples, exact):
    """How many standard errors the mean is off, for each logit that matters."""
    error = samples.std(dim=0) / len(samples) ** 0.5
    matters = exact.abs() > 1e-12
    assert matters.sum() == 12  # three states, four actions
    assert (samples[:, ~matters] == 0).all()
    return ((samples.mean(dim=0) - exact) / error)[matters]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "γ^t left out"])
def test_the_mean_gradient_is_the_policy_gradient(name, gradients):
    samples, exact = gradients
    assert deviations(samples[name], exact).abs().max() < 3


def test_without_the_discount_of_steps_it_is_another_gradient(gradients):
    """What nearly everybody leaves out is a bias towards later steps; it is large enough to be seen here."""
    samples, exact = gradients
    assert deviations(samples["γ^t left out"], exact).abs().max() > 5


def test_each_refinement_takes_variance(gradients):
    samples, _ = gradients
    variance = {name: rows.var(dim=0).sum().item() for name, rows in samples.items()}
    order = ["whole episode", "reward-to-go", "mean baseline", "learned value"]
    for more, less in itertools.pairwise(order):
        assert variance[less] < 0.95 * variance[more], (variance, more, less)
    assert variance["whole episode, mean baseline"] < variance["whole episode"]


# --- the loop ---

TINY = ReinforceConfig(total_steps=1_500, num_episodes=4, hidden=(8,), value_epochs=2)


@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_the_agent_has_a_critic_only_if_the_baseline_is_one(baseline):
    agent, history = reinforce.train("CartPole-v1", dataclasses.replace(TINY, baseline=baseline), seed=0)
    assert isinstance(agent, ActorCritic) == (baseline == "value")
    assert ("value_loss" in history.columns) == (baseline == "value")
    assert history["step"][-1] <= TINY.total_steps


def test_the_running_mean_follows_the_returns(monkeypatch):
    seen = []

    def remember(episodes, agent, config, mean_return):
        batch = reinforce_batch(episodes, agent, config, mean_return)
        seen.append((mean_return, batch.value_targets.mean().item()))
        return batch

    monkeypatch.setattr(reinforce, "reinforce_batch", remember)
    reinforce.train("CartPole-v1", dataclasses.replace(TINY, baseline="mean", mean_decay=0.75), seed=0)
    assert seen[0][0] == 0
    assert len(seen) > 5
    for (before, returns), (after, _) in itertools.pairwise(seen):
        assert after == pytest.approx(0.75 * before + 0.25 * returns)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("baseline", "average", "one of 'none', 'mean', 'value'"), ("mean_decay", 1.5, r"\[0, 1\]")],
)
def test_settings_out_of_range_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=rf"ReinforceConfig\.{field} is .*{allowed}"):
        ReinforceConfig(**{field: value})
