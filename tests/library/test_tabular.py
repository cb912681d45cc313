"""Tables: values worked by hand and known from the literature, identities, gradients, what is refused."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Tuple

from policyopt.envs import ConstantProbe, GridWorld
from policyopt.evaluation import RandomAgent, evaluate
from policyopt.tabular import (
    TabularAgent,
    TabularModel,
    action_values,
    exact_policy_gradient,
    greedy_policy,
    policy_evaluation,
    state_visits,
    tabular_model,
    value_iteration,
)

TAXI = next(name for name in ("Taxi-v4", "Taxi-v3") if name in gym.registry)
CLIFF = next(name for name in ("CliffWalking-v1", "CliffWalking-v0") if name in gym.registry)


def chain_model():
    """Three states in a row. Action 0 waits for nothing; action 1 moves on, out of the last state for 1."""
    transitions, rewards = np.zeros((3, 2, 3)), np.zeros((3, 2))
    transitions[[0, 1, 2], 0, [0, 1, 2]] = 1
    transitions[[0, 1], 1, [1, 2]] = 1
    rewards[2, 1] = 1
    return TabularModel(transitions, rewards, np.array([1.0, 0, 0]))


def random_model(seed, size=6, num_actions=3, ending=0.1):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(size, num_actions, size, generator=generator, dtype=torch.float64)
    rewards = torch.randn(size, num_actions, generator=generator, dtype=torch.float64)
    start = torch.rand(size, generator=generator, dtype=torch.float64)
    return TabularModel((1 - ending) * rows / rows.sum(-1, keepdim=True), rewards, start / start.sum())


def random_logits(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(model.rewards.shape, generator=generator, dtype=torch.float64)


def model_of(env_id, **kwargs):
    env = gym.make(env_id, **kwargs)
    env.close()
    return tabular_model(env)


def uniform(model):
    return torch.full_like(model.rewards, 1 / model.rewards.shape[1])


def assert_close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float64), atol=atol, rtol=0)


# --- planning, by hand ---


def test_value_iteration_on_a_chain():
    values, q = value_iteration(chain_model(), gamma=0.5)
    assert_close(values, [0.25, 0.5, 1.0])
    assert_close(q, [[0.125, 0.25], [0.25, 0.5], [0.5, 1.0]])
    assert greedy_policy(q).tolist() == [[0, 1]] * 3


def test_policy_evaluation_on_a_chain():
    """Uniform: V₂ = ½ γ V₂ + ½, and Vᵢ = ½ γ Vᵢ + ½ γ Vᵢ₊₁. With γ = ½ each is a third of the next."""
    model = chain_model()
    values = policy_evaluation(model, uniform(model), gamma=0.5)
    assert_close(values, [2 / 27, 2 / 9, 2 / 3])
    # The right action after that: Q = γ V of the next state, and 1 at the end.
    assert_close(action_values(model, values, 0.5)[:, 1], [1 / 9, 1 / 3, 1])
    # Each state is left with probability ½ a step, so it is seen Σ 4⁻ᵗ = 4/3 times as often as entered.
    assert_close(state_visits(model, uniform(model), 0.5), [4 / 3, 4 / 9, 4 / 27])


def test_without_a_discount_the_chain_pays_one():
    model = chain_model()
    assert_close(policy_evaluation(model, uniform(model), gamma=1.0), [1.0, 1.0, 1.0])
    assert state_visits(model, uniform(model), 1.0).sum().item() == pytest.approx(6)  # two tries a state


def test_of_equal_actions_the_first_is_greedy():
    assert greedy_policy(torch.tensor([[1.0, 1.0], [0.0, 2.0]])).tolist() == [[1, 0], [0, 1]]


def test_the_gradient_of_a_choice_by_hand():
    """One state, two actions that end with rewards 1 and 0: J = π₀, so ∂J/∂θ₀ = π₀ (1 − π₀) = −∂J/∂θ₁."""
    model = TabularModel(np.zeros((1, 2, 1)), np.array([[1.0, 0.0]]), np.ones(1))
    gradient = exact_policy_gradient(model, torch.tensor([[3.0, 1.0]]).log(), gamma=0.9)
    assert_close(gradient, [[3 / 16, -3 / 16]], atol=1e-7)


# --- planning, known answers ---


def test_the_default_grid():
    env = GridWorld()
    model = tabular_model(env)
    values, _ = value_iteration(model, gamma=0.9)
    assert values[0].item() == pytest.approx(0.9**3)  # four steps, the fourth pays
    assert torch.equal(model.transitions, torch.from_numpy(env.transitions))
    assert model.rewards[6, 1] == 1  # from left of the goal into it
    assert model.rewards[10, 1] == -1  # from left of the pit into it
    assert not model.rewards[[3, 5, 7, 11]].any()  # walls, the goal, the pit


def test_frozen_lake_slippery_is_survived_14_times_of_17():
    model = model_of("FrozenLake-v1")
    values, _ = value_iteration(model, gamma=1.0)
    assert values[0].item() == pytest.approx(14 / 17, abs=1e-7)
    assert not model.transitions[[5, 7, 11, 12, 15]].any()  # holes and the goal
    assert (model.transitions.sum(-1) <= 1 + 1e-12).all()


def test_frozen_lake_without_slipping_takes_six_steps():
    values, _ = value_iteration(model_of("FrozenLake-v1", is_slippery=False), gamma=0.9)
    assert values[0].item() == pytest.approx(0.9**5)


def test_cliff_walking_takes_thirteen_steps():
    values, q = value_iteration(model_of(CLIFF), gamma=1.0)
    assert values[36].item() == -13
    assert q[36, 1] == -113  # over the edge, back to the start, and then thirteen steps


def test_taxi_ends_by_transition_not_by_state():
    """Dropping the passenger at the goal ends the episode; driving about there does not."""
    env = gym.make(TAXI).unwrapped
    model = tabular_model(env)
    arrived = env.encode(0, 0, 4, 0)  # at the red stand, the passenger inside and bound for it
    assert model.transitions[arrived, 5].sum() == 0
    assert model.rewards[arrived, 5] == 20
    assert (model.transitions[arrived, :5].sum(-1) == 1).all()
    delivered = env.encode(0, 0, 0, 0)  # what that step led to: a state in which P goes on
    assert (model.transitions[delivered].sum(-1) == 1).all()


def test_taxi_played_earns_its_value():
    """Nothing is left to chance, so with γ = 1 the value of a start is the return from it."""
    env = gym.make(TAXI)
    values, q = value_iteration(tabular_model(env), gamma=1.0)
    agent = TabularAgent(env.observation_space, env.action_space)
    agent.q.copy_(q)
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        expected, total, ended = values[obs].item(), 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(agent.predict(obs)[0])
            total, ended = total + reward, terminated or truncated
        assert total == pytest.approx(expected)


def test_evaluation_agrees_with_playing():
    """A uniform policy in a slippery grid: the mean return of many episodes lies at the exact value."""
    grid = GridWorld(("S..", ".#G", "..X"), slip=0.3, step_reward=-0.1, max_steps=None)
    model = tabular_model(grid)
    exact = (model.start_distribution @ policy_evaluation(model, uniform(model), 1.0)).item()
    returns = evaluate(
        RandomAgent(Discrete(4), seed=1),
        lambda: GridWorld(grid.layout, slip=0.3, step_reward=-0.1, max_steps=None),
        episodes=500,
    )
    assert abs(returns.mean() - exact) < 3 * returns.std() / np.sqrt(len(returns))


# --- planning, identities ---


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_optimal_values_are_those_of_the_greedy_policy(seed, gamma):
    model = random_model(seed)
    values, q = value_iteration(model, gamma)
    assert_close(values, q.amax(dim=-1))
    assert_close(q, action_values(model, values, gamma))
    assert_close(policy_evaluation(model, greedy_policy(q), gamma), values, atol=1e-8)
    for other in range(5):
        policy = random_logits(model, other).softmax(-1)
        assert (policy_evaluation(model, policy, gamma) <= values + 1e-9).all()


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_values_and_visits_count_the_same_rewards(gamma):
    """J = Σ_s P(s₀ = s) V(s) = Σ_s d(s) Σ_a π(a|s) r(s, a)."""
    model = random_model(3)
    policy = random_logits(model).softmax(-1)
    from_values = model.start_distribution @ policy_evaluation(model, policy, gamma)
    from_visits = state_visits(model, policy, gamma) @ (policy * model.rewards).sum(-1)
    assert_close(from_values, from_visits)
    # An episode that ends with probability 1/10 a step, γ counted in: Σ (0.9 γ)ᵗ steps.
    assert state_visits(model, policy, gamma).sum().item() == pytest.approx(1 / (1 - 0.9 * gamma))


@pytest.mark.parametrize(
    ("model", "gamma"),
    [
        (chain_model(), 0.5),
        *((random_model(0), gamma) for gamma in (0.0, 0.9, 1.0)),
        *((tabular_model(GridWorld(slip=0.2, step_reward=-0.1)), gamma) for gamma in (0.9, 1.0)),
    ],
)
def test_gradient_by_finite_differences_and_autograd(model, gamma):
    def performance(logits):
        return model.start_distribution @ policy_evaluation(model, logits.softmax(-1), gamma)

    logits = random_logits(model)
    gradient = exact_policy_gradient(model, logits, gamma)
    assert gradient.abs().max() > 1e-2
    differences = torch.zeros_like(gradient)
    for index in np.ndindex(*logits.shape):
        step = torch.zeros_like(logits)
        step[index] = 1e-5
        differences[index] = (performance(logits + step) - performance(logits - step)) / 2e-5
    assert_close(gradient, differences, atol=1e-7)

    logits.requires_grad_()
    performance(logits).backward()
    assert_close(gradient, logits.grad)
    assert_close(gradient.sum(-1), torch.zeros(len(gradient)))  # adding a number to a row changes no policy


# --- planning, errors ---


def test_a_policy_that_never_ends_has_no_undiscounted_value():
    model = chain_model()
    waits_in_the_middle = np.array([[0.0, 1], [1, 0], [0, 1]])
    for function in (policy_evaluation, state_visits):
        with pytest.raises(ValueError, match=r"from state 0 this policy never ends .* gamma below 1"):
            function(model, waits_in_the_middle, 1.0)
    assert_close(policy_evaluation(model, waits_in_the_middle, 0.5), [0.0, 0.0, 1.0])
    # Rounded probabilities must not pass for a way out.
    sixths = TabularModel(np.full((6, 1, 6), 1 / 6), np.ones((6, 1)), np.full(6, 1 / 6))
    assert sixths.transitions.sum(-1).max() < 1
    with pytest.raises(ValueError, match="never ends"):
        policy_evaluation(sixths, torch.ones(6, 1) * (1 - 1e-7), 1.0)


def test_values_that_do_not_settle_are_an_error():
    model = TabularModel(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones(1))
    assert value_iteration(model, 0.5)[0].item() == pytest.approx(2)
    with pytest.raises(
        ValueError, match=r"not settled .* max_sweeps = 50; allow more, or choose a gamma below 1"
    ):
        value_iteration(model, 1.0, max_sweeps=50)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
def test_a_discount_out_of_range_is_named(gamma):
    model = chain_model()
    for call in (
        lambda: value_iteration(model, gamma),
        lambda: action_values(model, torch.zeros(3), gamma),
        lambda: policy_evaluation(model, uniform(model), gamma),
        lambda: exact_policy_gradient(model, torch.zeros(3, 2), gamma),
    ):
        with pytest.raises(ValueError, match=r"gamma is .*; it must be a number in \[0, 1\]"):
            call()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.ones((2, 3)) / 3, r"policy has shape \(2, 3\); it must be \(3, 2\)"),
        (np.ones((3, 2)), "policy must be probabilities"),
        (np.array([[1.5, -0.5]] * 3), "policy must be probabilities"),
        (np.full((3, 2), np.nan), "policy must be probabilities"),
    ],
)
def test_what_is_no_policy_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        policy_evaluation(chain_model(), policy, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transitions": np.zeros((3, 2, 2))}, r"transitions have shape \(3, 2, 2\) and rewards \(3, 2\)"),
        ({"rewards": np.zeros(3)}, r"they must be \[S, A, S\] and \[S, A\]"),
        ({"transitions": np.full((3, 2, 3), 0.4)}, "each row's sum at most 1"),
        ({"transitions": np.full((3, 2, 3), -0.1)}, "none below 0"),
        ({"transitions": np.full((3, 2, 3), np.nan)}, "transitions must be probabilities"),
        ({"rewards": np.full((3, 2), np.inf)}, "rewards must be finite"),
        ({"start_distribution": np.ones(2) / 2}, r"start_distribution has shape \(2,\); it must be \(3,\)"),
        ({"start_distribution": np.zeros(3)}, "start_distribution must be probabilities"),
    ],
)
def test_what_is_no_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(chain_model(), **changes)


def test_environments_without_a_model_are_named():
    for env in (gym.make("CartPole-v1"), gym.make("Blackjack-v1"), ConstantProbe()):
        with pytest.raises(ValueError, match=rf"{type(env.unwrapped).__name__} shows no model .*GridWorld"):
            tabular_model(env)
    with pytest.raises(ValueError, match=r"a taxi with fickle_passenger=True does more than its P says"):
        tabular_model(gym.make(TAXI, fickle_passenger=True))


# --- the agent ---


@pytest.fixture
def agent():
    """Three observations 5, 6, 7 and two actions −1, 0; the best are 0, −1 and, of two equal ones, −1."""
    agent = TabularAgent(Discrete(3, start=5), Discrete(2, start=-1))
    agent.q.copy_(torch.tensor([[0.0, 1.0], [2.0, 1.0], [3.0, 3.0]]))
    return agent


def test_an_agent_answers_one_observation_or_many(agent):
    assert agent.predict(np.array([5, 6, 7, 5]))[0].tolist() == [0, -1, -1, 0]
    assert agent.predict(np.array([], dtype=int))[0].shape == (0,)
    for obs in (5, np.int64(5), np.array(5)):
        action, state = agent.predict(obs)
        assert action == 0
        assert action.shape == ()
        assert state is None
        assert agent.action_space.contains(action)
    obs = np.array([5, 6, 7])
    drawn, _ = agent.predict(obs, deterministic=False, generator=torch.Generator(), episode_start=None)
    assert drawn.tolist() == agent.predict(obs)[0].tolist()


def test_the_first_values_are_the_initial_value():
    agent = TabularAgent(Discrete(3), Discrete(2), initial_value=1.5)
    assert agent.q.dtype == torch.float64
    assert agent.q.tolist() == [[1.5, 1.5]] * 3


def test_observations_it_cannot_answer_are_named(agent):
    with pytest.raises(ValueError, match=r"obs has shape \(2, 1\); it must be \(\), or a batch of such"):
        agent.predict(np.array([[5], [6]]))
    for obs in (4, 8, [5, 8], 5.0, np.array([5.5]), True):
        with pytest.raises(ValueError, match=r"obs is .*; it must be in Discrete\(3, start=5\)"):
            agent.predict(obs)


def test_spaces_without_a_table_are_named():
    with pytest.raises(ValueError, match=r"observation space Box.* is not supported: .* must be Discrete"):
        TabularAgent(Box(-1, 1, (2,)), Discrete(2))
    with pytest.raises(ValueError, match=r"action space Tuple.* is not supported: .* must be Discrete"):
        TabularAgent(Discrete(2), Tuple([Discrete(2)]))


def test_an_agent_with_the_optimal_table_earns_the_optimal_value():
    model = model_of("FrozenLake-v1", is_slippery=False)
    agent = TabularAgent(Discrete(16), Discrete(4))
    agent.q.copy_(value_iteration(model, 0.9)[1])
    returns = evaluate(agent, lambda: gym.make("FrozenLake-v1", is_slippery=False), episodes=3)
    assert returns.tolist() == [1, 1, 1]
