"""Measurements for studies: against numbers worked by hand, identities, problems with known answers."""

import dataclasses
import functools
import io
import itertools

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TimeLimit

from policyopt.algorithms import ppo
from policyopt.algorithms.grpo import GroupBatch
from policyopt.envs import (
    ActionProbe,
    ConstantProbe,
    ContinuousActionProbe,
    DelayedProbe,
    GridWorld,
    ObservationProbe,
)
from policyopt.experiments import measures
from policyopt.experiments.measures import (
    GradientErrorConfig,
    GroupConfig,
    RandomConfig,
    SameShapeConfig,
    VarianceConfig,
    gradient_error,
    gradient_variance,
    group_advantage,
    grpo_is_ppo,
    random_policy,
)
from policyopt.experiments.study import Study, run_cell
from policyopt.networks import Actor, ActorCritic
from policyopt.rollout import EpisodeCollector, Rollout
from policyopt.settings import spawn_seeds

WEIGHTINGS = ["whole_return", "to_go", "mean_baseline", "value_baseline", "gae"]


# --- in the harness ---

TINY = {
    "random_policy": ("CartPole-v1", RandomConfig(episodes=5)),
    "gradient_variance": (
        "CartPole-v1",
        VarianceConfig(
            train_steps=(0, 64),
            fit_episodes=4,
            episodes=4,
            num_envs=2,
            horizon=32,
            value_steps=10,
            value_rounds=2,
        ),
    ),
    "gradient_error": (
        "FrozenLake-v1",
        GradientErrorConfig(batches=30, episodes=40, least_batches=5, logit_scale=0.0),
    ),
    "group_advantage": ("CartPole-v1", GroupConfig(groups=3, group_size=3)),
    "grpo_is_ppo": ("CartPole-v1", SameShapeConfig(group_size=3, gradient_steps=2)),
}


@pytest.mark.parametrize("name", TINY)
def test_a_study_can_run_it(name):
    environment, config = TINY[name]
    run = {"it": (f"policyopt.experiments.measures:{name}", config)}
    cells = Study("measures", run, [environment], [3, 4], eval_episodes=2).cells()

    def history(cell):
        with np.load(io.BytesIO(run_cell(cell))) as file:
            assert len(file["returns"]) == 2
            return {key: file[key].tolist() for key in file if key.startswith("history.")}

    first, again, other = history(cells[0]), history(cells[0]), history(cells[1])
    assert {"history.step"} < set(first)
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("config", "field", "value", "allowed"),
    [
        (RandomConfig, "episodes", 0, r"\[1, inf\)"),
        (VarianceConfig, "gamma", 1.5, r"\[0, 1\]"),
        (VarianceConfig, "episodes", 1, r"\[2, inf\)"),
        (VarianceConfig, "value_rounds", 0, r"\[1, inf\)"),
        (VarianceConfig, "train_steps", (), "a tuple of rising"),
        (VarianceConfig, "train_steps", [0, 2_000], "a tuple of rising"),
        (VarianceConfig, "train_steps", (0, 1_023), "at least num_envs · horizon = 1024"),
        (VarianceConfig, "train_steps", (2_000, 0), "a tuple of rising"),
        (GradientErrorConfig, "batches", 20, r"\[30, inf\)"),
        (GradientErrorConfig, "logit_scale", -1.0, r"\[0, 100\]"),
        (GroupConfig, "kind", "both", "one of 'separate', 'shared'"),
        (GroupConfig, "group_size", 1, r"\[2, inf\)"),
        (GroupConfig, "hidden", (0,), "whole numbers ≥ 1"),
        (SameShapeConfig, "gradient_steps", 0, r"\[1, inf\)"),
        (SameShapeConfig, "clip", 0.0, r"\(0, inf\)"),
    ],
)
def test_settings_out_of_range_are_named(config, field, value, allowed):
    with pytest.raises(ValueError, match=rf"{config.__name__}\.{field} is .*{allowed}"):
        config(**{field: value})


# --- chance ---


def test_chance_on_probes():
    assert random_policy(ConstantProbe)[1].rows == [{"step": 0, "episode_return": 1.0}]
    earned = random_policy(ActionProbe, RandomConfig(episodes=1_000))[1].last["episode_return"]
    assert 0 < abs(earned) < 0.1  # ±1, each with probability 1/2: a standard error of 0.03


# --- variance ---


def linear_critic():
    """V(s) = s, and two actions of probability 1/2."""
    agent = ActorCritic(Box(-9, 9, (1,)), Discrete(2), ())
    with torch.no_grad():
        agent.value_net[0].weight.fill_(1.0)
        agent.policy_net[0].weight.zero_()
    return agent


def two_episodes():
    """Three steps with the rewards 1, 2, 4; and two with 8 and 8, then cut off in the state 5."""
    flags = torch.zeros(3, 2, dtype=torch.bool)
    terminated, truncated = flags.clone(), flags.clone()
    terminated[2, 0] = truncated[1, 1] = True
    return Rollout(
        all_obs=torch.arange(8.0).reshape(4, 2, 1),
        actions=torch.tensor([[0, 1], [1, 1], [1, 0]]),
        log_probs=torch.zeros(3, 2),
        rewards=torch.tensor([[1.0, 8.0], [2.0, 8.0], [4.0, 99.0]]),
        terminated=terminated,
        truncated=truncated,
        valid=torch.tensor([[True, True], [True, True], [True, False]]),
    )


def test_weightings_by_hand():
    """γ = 1/2, λ = 1/2; the second episode's last reward becomes 8 + 5/2."""
    config, critic = VarianceConfig(gamma=0.5, gae_lambda=0.5), linear_critic()
    episodes = measures.complete(two_episodes(), critic, 0.5)
    weights = measures.weightings(episodes, critic, 10.0, config)
    by_episode = {name: [*grid[:, 0].tolist(), *grid[:2, 1].tolist()] for name, grid in weights.items()}
    assert by_episode == {
        "whole_return": [3, 3, 3, 13.25, 13.25],
        "to_go": [3, 4, 4, 13.25, 10.5],
        "mean_baseline": [-7, -6, -6, 3.25, 0.5],
        "value_baseline": [3, 2, 0, 12.25, 7.5],
        # δ is 1 + 2/2 − 0, 2 + 4/2 − 2, 4 − 4; then 8 + 3/2 − 1, 10.5 − 3; each with a quarter of the next.
        "gae": [2.5, 2, 0, 10.375, 7.5],
    }
    assert all(grid[2, 1] == 0 for grid in weights.values())
    config = dataclasses.replace(config, discount_steps=True)
    discounted = measures.weightings(episodes, critic, 10.0, config)
    assert torch.equal(discounted["whole_return"], weights["whole_return"])
    for name in WEIGHTINGS[1:]:
        assert torch.equal(discounted[name], weights[name] * torch.tensor([[1.0], [0.5], [0.25]]))


def test_gradients_by_hand():
    """A linear policy with probabilities 1/2: ∂ log π(a) / ∂ logits is (1/2, −1/2) or its negative."""
    weights = {"ones": torch.ones(3, 2), "later": torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 7.0]])}
    gradients = measures.episode_gradients(linear_critic(), two_episodes(), weights)
    # Actions 0, 1, 1 in the states 0, 2, 4; and 1, 1 in 1, 3. Of the weights first, then of the biases.
    assert gradients["ones"].tolist() == [[-3, 3, -0.5, 0.5], [-2, 2, -1, 1]]
    assert gradients["later"].tolist() == [[-6, 6, -1.5, 1.5], [-3, 3, -1, 1]]


def test_gradients_are_those_of_each_episode():
    agent = ActorCritic(Box(-9, 9, (1,)), Discrete(2), (5,), torch.Generator().manual_seed(0))
    episodes = two_episodes()
    weights = {"random": torch.randn(3, 2, generator=torch.Generator().manual_seed(1))}
    found = measures.episode_gradients(agent, episodes, weights)["random"]
    for i, length in enumerate((3, 2)):
        agent.zero_grad()
        for t in range(length):
            log_prob = agent.policy(episodes.obs[t, i]).log_prob(episodes.actions[t, i])
            (weights["random"][t, i] * log_prob).backward()
        expected = torch.cat([parameter.grad.flatten() for parameter in agent.policy_parameters])
        torch.testing.assert_close(found[i], expected.double(), rtol=1e-5, atol=1e-6)


def test_description_by_hand():
    gradients = {
        "value_baseline": torch.tensor([[1.0, 0.0], [3.0, 0.0]]),
        "gae": torch.tensor([[0.0, 1.0], [4.0, 1.0]]),
    }
    assert measures.describe_gradients(gradients) == pytest.approx(
        {
            "variance_value_baseline": 2.0,
            "variance_gae": 8.0,
            "gradient_norm_value_baseline": 2.0,
            "gradient_norm_gae": 5**0.5,
            "bias_gae": 0.5,  # the means (2, 0) and (2, 1)
            "bias_gae_noise": 0.5,  # differences (−1, 1) and (1, 1): variance 2, of the mean 1
        }
    )


def test_variance_of_a_constant_reward():
    """One step, reward 1, π = (1/2, 1/2): the gradient is ±(1/2, −1/2), and with a baseline nothing."""
    config = VarianceConfig(train_steps=(0,), hidden=(), episodes=50, fit_episodes=5)
    row = gradient_variance(ConstantProbe, config, seed=0)[1].last
    signs = 2 * row["gradient_norm_to_go"] ** 2  # the square of the mean of ±1
    assert 0 < signs < 0.25
    assert row["variance_to_go"] == pytest.approx(0.5 * (1 - signs) * 50 / 49, rel=1e-4)
    assert row["variance_whole_return"] == row["variance_to_go"]
    assert row["variance_mean_baseline"] == 0
    assert row["variance_value_baseline"] == row["variance_gae"] < 1e-6
    assert row["episode_return"] == 1


def test_variance_where_the_reward_is_the_sign():
    """Reward ±1 for the action: every episode has the gradient (−1/2, 1/2), so a baseline can only harm."""
    config = VarianceConfig(train_steps=(0,), hidden=(), episodes=50, fit_episodes=5)
    row = gradient_variance(ActionProbe, config, seed=0)[1].last
    assert row["gradient_norm_to_go"] == pytest.approx(0.5**0.5, rel=1e-3)
    assert row["variance_to_go"] < 1e-4
    assert row["variance_mean_baseline"] > 0.01


@pytest.mark.parametrize(
    ("env", "states", "values"),
    [
        (ConstantProbe, [0.0], [1.0]),
        (ObservationProbe, [-1.0, 1.0], [-1.0, 1.0]),
        (DelayedProbe, [0.0, 1.0], [0.5, 1.0]),
    ],
)
def test_the_critic_of_probes(env, states, values):
    critic, mean_return = fitted(env)
    assert critic.value(torch.tensor(states)[:, None]).tolist() == pytest.approx(values, abs=0.01)
    if env is DelayedProbe:
        assert mean_return == pytest.approx(0.75)


def test_the_critic_looks_beyond_a_time_limit():
    """Reward 1 for ever is worth 1 / (1 − 1/2); of twenty steps seen, 1.9 on average."""

    class Endless(ConstantProbe):
        length = 10**9

    critic, mean_return = fitted(lambda: TimeLimit(Endless(), 20))
    assert critic.value(torch.zeros(1, 1)).item() == pytest.approx(2.0, abs=0.01)
    assert mean_return == pytest.approx(2.0, abs=0.01)


def fitted(env):
    config = VarianceConfig(gamma=0.5, value_steps=300, minibatch_size=64, hidden=(16,))
    collector = EpisodeCollector(env, 32, seed=0)
    critic = ActorCritic.for_envs(collector.envs, (16,), seed=0)
    episodes = collector.collect(critic)
    collector.close()
    return critic, measures.fit_critic(critic, episodes, config, torch.Generator().manual_seed(0))


def test_each_refinement_takes_variance():
    config = VarianceConfig(train_steps=(0, 5_000), value_steps=200, learning_rate=4e-3)
    agent, history = gradient_variance("CartPole-v1", config, seed=0)
    for row in history.rows:
        for more, less in itertools.pairwise(WEIGHTINGS):
            assert row[f"variance_{less}"] < 0.95 * row[f"variance_{more}"], (less, row)
        assert row["explained_variance"] > 0.1
        assert row["bias_gae"] < 0.5
    assert history["stage"].tolist() == [0, 1]
    assert history["step"].tolist() == [0, 4_096]
    assert history["episode_return"][1] > history["episode_return"][0]
    trained, _ = ppo.train("CartPole-v1", config.ppo_config(5_000), spawn_seeds(0, 9)[0])
    for ours, theirs in zip(agent.parameters(), trained.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_with_lambda_1_gae_is_the_value_baseline():
    config = VarianceConfig(train_steps=(0,), fit_episodes=8, episodes=32, value_steps=20, gae_lambda=1.0)
    same = gradient_variance("CartPole-v1", config, seed=0)[1].last
    assert same["variance_gae"] == pytest.approx(same["variance_value_baseline"], rel=1e-4)
    assert same["bias_gae"] < 1e-4
    other = gradient_variance("CartPole-v1", dataclasses.replace(config, gae_lambda=0.5), seed=0)[1].last
    assert other["variance_value_baseline"] == same["variance_value_baseline"]
    assert other["bias_gae"] > 0.05


def test_the_first_stage_is_where_training_begins():
    config = VarianceConfig(learning_rate=1e-30, hidden=(8,))
    begun, step = measures._trained("CartPole-v1", config, 0, seed=5)
    trained, steps = measures._trained("CartPole-v1", config, 1_024, seed=5)
    assert (step, steps) == (0, 1_024)
    for one, other in zip(begun.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-20)


def test_continuous_actions_have_a_variance_too():
    config = VarianceConfig(train_steps=(0,), fit_episodes=16, episodes=16, value_steps=20, hidden=(8,))
    row = gradient_variance(ContinuousActionProbe, config, seed=0)[1].last
    assert row["variance_to_go"] > 0


# --- bias ---

GRID = functools.partial(
    GridWorld, ("XS..G",), goal_reward=6.0, pit_reward=1.0, step_reward=0.5, slip=0.2, max_steps=None
)


def test_the_mean_gradient_is_the_exact_one():
    agent, history = gradient_error(GRID, GradientErrorConfig(batches=200, episodes=20), seed=5)
    row = history.last
    assert row["judged"] == 12  # three states, four actions
    assert row["largest_deviation"] < 3.5
    assert row["mean_square_deviation"] < 2.5
    assert row["relative_error"] < 0.1
    assert row["largest_deviation_without_discount"] > 5
    assert row["mean_square_deviation_without_discount"] > 5
    assert row["relative_error_without_discount"] > 2 * row["relative_error"]
    assert isinstance(agent, Actor)


def test_error_by_hand():
    samples = torch.tensor([[[1.0, 0.0]], [[3.0, 8.0]]], dtype=torch.float64)  # means 2 and 4
    exact = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    described = measures.describe_error(samples, exact, torch.tensor([[True, False]]))
    assert described == pytest.approx(
        {"largest_deviation": 1.0, "mean_square_deviation": 1.0, "relative_error": 17**0.5}
    )
    described = measures.describe_error(samples, exact, torch.tensor([[True, True]]))
    assert described["largest_deviation"] == pytest.approx(1.0)  # 4 / 4
    described = measures.describe_error(samples, exact - 1, torch.tensor([[True, True]]))
    assert described["largest_deviation"] == pytest.approx(2.0)
    assert described["mean_square_deviation"] == pytest.approx((4 + 1.25**2) / 2)


def test_what_has_no_model_or_says_nothing_is_refused():
    with pytest.raises(ValueError, match="shows no model"):
        gradient_error("CartPole-v1")
    with pytest.raises(ValueError, match="say something about any one"):
        gradient_error("FrozenLake-v1", GradientErrorConfig(batches=3, episodes=1, least_batches=3))


# --- groups ---


@pytest.mark.parametrize("group_size", [2, 8])
def test_separate_outputs_do_as_they_are_told(group_size):
    config = GroupConfig(kind="separate", groups=60, group_size=group_size)
    _, history = group_advantage("CartPole-v1", config, seed=0)
    assert history["step"].tolist() == list(range(60))
    for column in ("better_rose", "worse_fell", "all_agree", "weighted_sum_rose", "smaller_step_agrees"):
        assert (history[column] == 1).all(), column


def test_shared_weights_drag_outputs_along():
    _, history = group_advantage("CartPole-v1", GroupConfig(groups=25), seed=0)
    assert (history["weighted_sum_rose"] == 1).all()
    assert (history["smaller_step_agrees"] == 1).all()
    assert 0.5 < history["better_rose"].mean() < 1
    assert 0.5 < history["worse_fell"].mean() < 1
    assert ((history["better_rose"] == 1) & (history["worse_fell"] == 1)).tolist() == (
        history["all_agree"] == 1
    ).tolist()


def test_groups_of_equal_returns_are_skipped():
    """One state, two actions, pairs: half of the groups say nothing; in the others both move as told."""
    _, history = group_advantage(ActionProbe, GroupConfig(groups=20, group_size=2), seed=0)
    assert len(history) == 20
    assert (history["all_agree"] == 1).all()
    with pytest.raises(ValueError, match="all returns were equal in 1,000 groups of 2"):
        group_advantage(ConstantProbe, GroupConfig(group_size=2), seed=0)


def test_a_better_output_can_become_less_likely():
    """As in ``test_grpo``: π = (0.9, 0.05, 0.05), advantages (1, 0.2, −1.2), one state for all."""
    agent = Actor(Discrete(1), Discrete(3), ())
    bias = agent.policy_net[0].bias
    with torch.no_grad():
        agent.policy_net[0].weight.zero_()
        bias.copy_(torch.tensor([0.9, 0.05, 0.05]).log())
    before, outputs = bias.detach().clone(), torch.arange(3)
    log_probs = agent.policy(torch.zeros(3)).log_prob(outputs).detach()
    advantages = torch.tensor([1.0, 0.2, -1.2])
    batch = GroupBatch(torch.zeros(3), outputs, log_probs, advantages, log_probs, torch.ones(3))
    changes = measures.output_changes(agent, batch, outputs, [bias], 1e-2)
    shared = 0.9 * 1 + 0.05 * 0.2 - 0.05 * 1.2
    assert changes.tolist() == pytest.approx([(a - shared) / 3 * 1e-2 for a in (1.0, 0.2, -1.2)], rel=0.02)
    assert torch.equal(bias, before)
    assert measures.describe_changes(advantages, changes) == {
        "better_rose": 0.5,
        "worse_fell": 1.0,
        "all_agree": 0,
        "weighted_sum_rose": 1,
    }
    assert measures.describe_changes(-advantages, changes)["weighted_sum_rose"] == 0


def test_changes_are_those_of_whole_outputs():
    """Two outputs of two and one steps, a table: each change is the mean over the output's own steps."""
    agent = Actor(Discrete(3), Discrete(2), ())
    table, outputs = agent.policy_net[0].weight, torch.tensor([0, 0, 1])
    with torch.no_grad():
        table.zero_()
    log_probs = torch.full((3,), 0.5).log()
    advantages, weights = torch.tensor([2.0, 2.0, -2.0]), torch.tensor([0.75, 0.75, 1.5])
    batch = GroupBatch(
        torch.arange(3), torch.zeros(3, dtype=torch.int64), log_probs, advantages, log_probs, weights
    )
    changes = measures.output_changes(agent, batch, outputs, [table], 1e-2)
    # ∂ log π(a) / ∂ logits = ±1/2, squared and summed 1/2: 0.01 · weight · A / 3 · 1/2 at every step.
    assert changes.tolist() == pytest.approx([0.01 * 0.75 * 2 / 6, -0.01 * 1.5 * 2 / 6], rel=0.01)
    assert measures.of_outputs(advantages, outputs).tolist() == [2, -2]


@pytest.mark.parametrize("seed", range(3))
def test_grpo_has_ppos_gradient(seed):
    row = grpo_is_ppo("CartPole-v1", SameShapeConfig(), seed)[1].last
    assert row["largest_gradient_difference"] < 1e-6
    assert row["clip_fraction"] > 0.05
    assert row["largest_gradient_difference_per_output_mean"] > 0.05


def test_episodes_of_one_length_leave_no_difference():
    row = grpo_is_ppo(ContinuousActionProbe, SameShapeConfig(), seed=0)[1].last
    assert row["clip_fraction"] > 0.05
    assert row["largest_gradient_difference_per_output_mean"] < 1e-6


def test_another_advantage_would_be_noticed(monkeypatch):
    batch_of = measures.group_batch

    def divided(episodes, reference, config):
        return batch_of(episodes, reference, dataclasses.replace(config, divide_by_std=True))

    monkeypatch.setattr(measures, "group_batch", divided)
    row = grpo_is_ppo("CartPole-v1", SameShapeConfig(), seed=0)[1].last
    assert row["largest_gradient_difference"] > 0.1


def test_rewards_at_the_end_by_hand():
    """Returns 7 and 16: the advantages are ∓4.5 at every step, and V is 11.5."""
    agent = linear_critic()
    batch, mean_return = measures.end_rewarded_batch(two_episodes(), agent)
    assert mean_return == 11.5
    assert batch.advantages.tolist() == [-4.5, 4.5, -4.5, 4.5, -4.5]
    assert batch.values.tolist() == [11.5] * 5
