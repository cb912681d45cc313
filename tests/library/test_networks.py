import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from policyopt.distributions import Categorical, DiagonalGaussian
from policyopt.networks import ActorCritic, mlp


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mlp_is_orthogonal_with_the_gains_asked_for():
    network = mlp([4, 64, 64, 2], output_gain=0.01, generator=generator())
    first, middle, last = (layer.weight for layer in network if isinstance(layer, torch.nn.Linear))
    torch.testing.assert_close(first.T @ first, 2 * torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(middle @ middle.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(last @ last.T, 1e-4 * torch.eye(2), atol=1e-8, rtol=0)
    assert all((layer.bias == 0).all() for layer in network if isinstance(layer, torch.nn.Linear))


def test_mlp_weights_follow_from_the_generator():
    before = torch.random.get_rng_state()
    first, again, other = (mlp([3, 5, 1], generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("sizes", [[4], [], [4, 0, 2]])
def test_mlp_refuses_impossible_sizes(sizes):
    with pytest.raises(ValueError, match="sizes is"):
        mlp(sizes)


def test_discrete_actions_get_a_categorical_and_boxes_a_gaussian():
    obs_space = Box(-1, 1, (3,))
    obs = torch.zeros(7, 5, 3)
    discrete = ActorCritic(obs_space, Discrete(4), generator=generator())
    assert isinstance(discrete.policy(obs), Categorical)
    assert discrete.policy(obs).probs.shape == (7, 5, 4)
    assert discrete.value(obs).shape == (7, 5)
    continuous = ActorCritic(obs_space, Box(-2, 2, (2,)), generator=generator())
    assert isinstance(continuous.policy(obs), DiagonalGaussian)
    assert continuous.policy(obs).mean.shape == (7, 5, 2)


def test_a_new_policy_is_nearly_uniform():
    agent = ActorCritic(Box(-1, 1, (3,)), Discrete(4), generator=generator())
    probs = agent.policy(torch.rand(50, 3, generator=generator())).probs
    assert (probs - 0.25).abs().max() < 0.01


def test_observations_are_encoded():
    one_hot = ActorCritic(Discrete(5, start=2), Discrete(2), generator=generator())
    assert one_hot.encoder(torch.tensor([2, 6])).tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    image = ActorCritic(Box(0, 255, (2, 3), np.uint8), Discrete(2), generator=generator())
    assert image.encoder(torch.ones(4, 2, 3, dtype=torch.uint8)).shape == (4, 6)
    number = ActorCritic(Box(-1, 1, ()), Discrete(2), generator=generator())
    assert number.value(torch.zeros(4)).shape == (4,)


def test_predict_takes_one_observation_or_a_batch():
    agent = ActorCritic(Box(-1, 1, (3,)), Discrete(4), generator=generator())
    obs = np.float32([[0.1, 0.2, 0.3], [-0.5, 0.5, 0.0]])
    batch, state = agent.predict(obs)
    assert state is None
    assert batch.shape == (2,)
    single, _ = agent.predict(obs[1])
    assert single.shape == ()
    assert single == batch[1]
    with pytest.raises(ValueError, match=r"obs has shape \(4,\); it must be \(3,\)"):
        agent.predict(np.zeros(4))


def test_predict_keeps_within_the_action_space():
    space = Box(np.float32([-1, 0]), np.float32([1, 0.5]))
    agent = ActorCritic(Box(-1, 1, (3,)), space, generator=generator())
    with torch.no_grad():
        agent.log_std.fill_(2.0)
    actions, _ = agent.predict(np.zeros((200, 3)), deterministic=False, generator=generator())
    assert all(space.contains(action) for action in actions)
    assert np.ptp(actions[:, 0]) == 2  # both bounds were met, so clipping was needed
    shifted = ActorCritic(Box(-1, 1, (3,)), Discrete(2, start=-1), generator=generator())
    actions, _ = shifted.predict(np.zeros((50, 3)), deterministic=False, generator=generator())
    assert set(actions) == {-1, 0}


def test_unsupported_spaces_are_named():
    with pytest.raises(ValueError, match=r"observation space Dict.* must be Box or Discrete"):
        ActorCritic(Dict({"a": Discrete(2)}), Discrete(2))
    with pytest.raises(
        ValueError, match=r"action space MultiBinary\(3\) is not supported; it must be Discrete"
    ):
        ActorCritic(Discrete(2), MultiBinary(3))
    with pytest.raises(ValueError, match="action space Box"):
        ActorCritic(Discrete(2), Box(-1, 1, (2, 2)))


def test_the_tools_of_stable_baselines3_take_it_for_one_of_theirs():
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    envs = make_vec_env("CartPole-v1", 2, seed=0)
    agent = ActorCritic(envs.observation_space, envs.action_space, generator=generator())
    returns, lengths = evaluate_policy(agent, envs, n_eval_episodes=4, return_episode_rewards=True)
    envs.close()
    assert returns == lengths
    assert min(returns) >= 8


def test_it_runs_where_an_agent_of_stable_baselines3_runs():
    """The test loop of the article, as printed, on our agent."""
    env = gym.make("CartPole-v1")
    model = ActorCritic(env.observation_space, env.action_space, generator=generator())
    obs, _ = env.reset(seed=0)
    episodes = 0
    for _step in range(100):
        action, _state = model.predict(obs, deterministic=True)
        obs, _reward, terminated, truncated, _info = env.step(action)
        if terminated or truncated:
            obs, _ = env.reset()
            episodes += 1
    env.close()
    assert episodes > 0
