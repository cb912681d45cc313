"""DQN, DDPG, TD3 and SAC on numbers worked by hand, on identities, and against Stable-Baselines3: one
update of each from the same weights, batch and noise.
"""

import copy
import dataclasses
import math

import numpy as np
import pytest
import stable_baselines3 as peers
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from policyopt.algorithms import ddpg, dqn, sac, td3
from policyopt.distributions import SquashedGaussian
from policyopt.losses import td_targets
from policyopt.noise import OrnsteinUhlenbeck
from policyopt.q_networks import (
    DeterministicActorCritic,
    QNetwork,
    SquashedActorCritic,
    TwinDeterministicActorCritic,
    TwinQ,
    relu_mlp,
)
from policyopt.replay import Transitions
from policyopt.training import flatten_parameters, gradient_step, make_adam, polyak_update

POINT, PUSH = Box(-1, 1, (3,), np.float32), Box(-2, 2, (2,), np.float32)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def transitions(size=32, action_space=PUSH, seed=0):
    """Random steps, a quarter of them the last of their episode, another quarter cut off there."""
    draw = generator(seed)
    obs, next_obs = torch.randn(2, size, 3, generator=draw)
    actions = 2 * torch.rand(size, 2, generator=draw) - 1
    if isinstance(action_space, Discrete):
        actions = torch.randint(int(action_space.n), (size,), generator=draw)
    ends = torch.randint(4, (size,), generator=draw)
    return Transitions(obs, actions, torch.randn(size, generator=draw), next_obs, ends == 0, ends == 1)


# --- by hand ---


def test_targets_by_hand():
    """An end has no future; a cut has, and the rest, too."""
    rewards, next_values = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([10.0, 10.0, 4.0])
    targets = td_targets(rewards, next_values, torch.tensor([False, True, False]), 0.9)
    torch.testing.assert_close(targets, torch.tensor([10.0, 1.0, 1.6]))  # 1 + 9; 1; −2 + 3.6


def test_an_unknown_value_after_the_end_does_no_harm():
    targets = td_targets(torch.ones(1), torch.tensor([math.nan]), torch.tensor([True]), 0.9)
    assert targets.tolist() == [1]


class Table(nn.Module):
    """Q-values by state, as a network would give them; an observation is the state's number."""

    def __init__(self, rows):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(rows))

    def q_values(self, obs):
        return self.table[obs.long()]


def test_double_dqn_lets_one_choose_and_the_other_judge():
    trained, target = Table([[1.0, 2.0, 0.0]]), Table([[5.0, 3.0, 4.0]])
    obs = torch.zeros(1)
    assert dqn.best_next_values(trained, target, obs, double=False).tolist() == [5]  # the target's best
    assert dqn.best_next_values(trained, target, obs, double=True).tolist() == [3]  # of the trained one's


@pytest.mark.parametrize(
    ("clip_error", "loss", "slopes"),
    [(False, (9 + 0.25) / 2, (-3, 0.5)), (True, (2.5 + 0.125) / 2, (-0.5, 0.25))],
)
def test_dqn_loss_by_hand(clip_error, loss, slopes):
    """γ = ½. From state 0 action 1 earns 2 and leads to state 1, worth 4 to the target: 4 against Q = 1,
    an error of −3. In state 1 action 0 earns 1 and ends it: 1 against Q = 1.5, an error of ½.

    Squares are 9 and ¼, with slopes −6 and 1; Huber's losses 3 − ½ and ½ · ¼, with slopes −1 and ½; then
    means.
    """
    agent, target = Table([[0.0, 1.0], [1.5, 0.0]]), Table([[9.0, 9.0], [4.0, 3.0]])
    batch = Transitions(
        torch.tensor([0.0, 1.0]),
        torch.tensor([1, 0]),
        torch.tensor([2.0, 1.0]),
        torch.tensor([1.0, 0.0]),
        torch.tensor([False, True]),
        torch.tensor([False, False]),
    )
    value, metrics = dqn.dqn_loss(agent, target, batch, dqn.DQNConfig(gamma=0.5, clip_error=clip_error))
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert metrics["q_value"].item() == pytest.approx(1.25)
    assert agent.table.grad.tolist() == [[0, slopes[0]], [slopes[1], 0]]
    assert target.table.grad is None


def test_epsilon_greedy():
    agent = QNetwork(POINT, Discrete(3), (4,), generator())
    obs, rng = np.float32([0.1, -0.4, 0.3]), np.random.default_rng(0)
    best = int(agent.predict(obs)[0])
    assert {dqn.epsilon_greedy(agent, obs, 0.0, rng) for _ in range(20)} == {best}
    actions = [dqn.epsilon_greedy(agent, obs, 0.3, rng) for _ in range(3_000)]
    # P(best) = 0.7 + 0.3 / 3 = 0.8; three standard errors are 0.022.
    assert np.mean(np.array(actions) == best) == pytest.approx(0.8, abs=0.022)
    assert set(actions) == {0, 1, 2}


def test_the_bias_of_the_maximum_and_its_mending():
    """Two states: the first leads to the second, which has ten actions, all worth 0 on average, ±1 in truth.

    Estimates of the ten are means of four rewards each, two sets of them. The maximum over one set is on
    average what the largest of ten such means is, far above 0; the second set's estimate for the first set's
    favourite is 0 on average.
    """
    runs = 4_000
    draws = 2.0 * torch.randint(2, (2, runs, 10, 4), generator=generator()) - 1
    estimates = draws.mean(dim=-1)  # [2, runs, 10]
    agent, target = Table(estimates[0].tolist()), Table(estimates[1].tolist())
    states = torch.arange(runs)
    plain = dqn.best_next_values(agent, target, states, double=False)
    double = dqn.best_next_values(agent, target, states, double=True)
    # A mean of four is 1 with probability 1/16, ≥ ½ with 5/16: P(max = 1) = 1 − (15/16)¹⁰, and so on down.
    at_most = np.cumsum(np.array([1, 4, 6, 4, 1]) / 16) ** 10  # P(max ≤ −1, −½, 0, ½, 1)
    expected = float(np.diff(at_most, prepend=0) @ np.array([-1, -0.5, 0, 0.5, 1]))
    assert expected == pytest.approx(0.72, abs=0.01)
    assert plain.mean().item() == pytest.approx(expected, abs=4 * plain.std().item() / math.sqrt(runs))
    assert double.mean().item() == pytest.approx(0, abs=4 * double.std().item() / math.sqrt(runs))


def test_polyak_by_hand():
    target, online = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 10.0])
    polyak_update(target, online, 0.1)
    torch.testing.assert_close(target, torch.tensor([1.2, 1.0]))  # 0.9 · 1 + 0.1 · 3; 0.1 · 10
    polyak_update(target, online, 1.0)
    assert torch.equal(target, online)


def test_polyak_reaches_the_network_through_its_vector():
    network = nn.Linear(2, 1)
    vector = flatten_parameters(network.parameters())
    polyak_update(vector, torch.full_like(vector, 7.0), 1.0)
    assert {value for parameter in network.parameters() for value in parameter.flatten().tolist()} == {7.0}


def make_twin(agent_class=TwinDeterministicActorCritic, seed=0, hidden=(16,)):
    agent = agent_class(POINT, PUSH, hidden, generator(seed))
    with torch.no_grad():  # else all actions are near 0
        agent.policy_net[-1].weight.mul_(100)
    return agent


def test_critics_together_are_critics_apart():
    twin = TwinQ(5, (8, 6), generator())
    obs, actions = torch.randn(4, 3, generator=generator(1)), torch.randn(4, 2, generator=generator(2))
    tensors = list(twin.parameters())
    for number, values in enumerate(twin(obs, actions)):
        x = torch.cat([obs, actions], dim=-1)
        for layer in range(3):
            x = x @ tensors[2 * layer][number] + tensors[2 * layer + 1][number]
            x = x.relu() if layer < 2 else x
        torch.testing.assert_close(values, x.squeeze(-1))
    torch.testing.assert_close(twin(obs, actions, 1), twin(obs, actions)[:1])
    assert not torch.allclose(*twin(obs, actions))  # they start out different
    assert TwinQ(5, (), generator())(obs, actions).shape == (2, 4)


def test_first_weights_have_the_papers_ranges():
    layers = [layer for layer in relu_mlp([16, 400, 3], generator(), 0.01) if isinstance(layer, nn.Linear)]
    for layer, bound in zip(layers, (1 / 4, 0.01), strict=True):
        for parameter in layer.parameters():
            assert 0.6 * bound < parameter.abs().max() <= bound
    again = relu_mlp([16, 400, 3], generator(), 0.01)
    assert torch.equal(again[0].weight, layers[0].weight)


def test_td3_believes_the_lower_critic():
    """γ = ½: the targets are r + ½ min(Q₁, Q₂) in the target's action, worked out apart."""
    agent, target, batch = make_twin(), make_twin(seed=1), transitions()
    config = td3.TD3Config(gamma=0.5, smoothing_std=0.0)
    loss, metrics = td3.critic_loss(agent, target, batch, config, generator())
    with torch.no_grad():
        actions = target.policy(batch.next_obs)
        both = target.q_values(batch.next_obs, actions)
        assert (both[0] < both[1]).any()
        assert (both[0] > both[1]).any()
        expected = 0.0
        for values in agent.q_values(batch.obs, batch.actions):
            for i, value in enumerate(values):
                future = 0.0 if batch.terminated[i] else 0.5 * min(both[0][i], both[1][i])
                expected += (value - batch.rewards[i] - future) ** 2 / len(values)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["critic_loss"].item() == loss.item()


@torch.no_grad()
def test_smoothing_is_cut_off_and_stays_in_range():
    target = make_twin()
    obs = torch.randn(5_000, 3, generator=generator(3))
    plain = target.policy(obs)
    noise = td3.smoothed_actions(target, obs, 0.2, 0.3, generator()) - plain
    inside = plain.abs() < 0.7  # where the range of the actions cuts nothing
    assert noise[inside].abs().max().item() == pytest.approx(0.3, abs=1e-6)
    reference = 0.2 * torch.randn(200_000, generator=generator(5))
    assert noise[inside].std().item() == pytest.approx(reference.clamp(-0.3, 0.3).std().item(), rel=0.03)
    assert td3.smoothed_actions(target, obs, 5.0, 5.0, generator()).abs().max() == 1
    assert torch.equal(td3.smoothed_actions(target, obs, 0.0, 0.3, generator()), plain)


def test_the_policy_climbs_its_critic():
    """The gradient for the policy by finite differences, and none for the critic."""
    for module, agent_class in ((ddpg, DeterministicActorCritic), (td3, TwinDeterministicActorCritic)):
        agent, obs = make_twin(agent_class).double(), transitions().obs.double()
        agent.encoder.forward = lambda obs: obs  # it makes single precision of what it reads
        weights = list(agent.policy_net.parameters())
        module.actor_loss(agent, obs).backward(inputs=weights)
        assert all(parameter.grad is None for parameter in agent.critics.parameters())
        for parameter in weights:
            flat, slopes = parameter.data.view(-1), parameter.grad.view(-1)
            for i in (0, len(flat) - 1):
                sides = []
                for step in (1e-6, -2e-6):
                    flat[i] += step
                    sides.append(module.actor_loss(agent, obs).item())
                flat[i] += 1e-6
                assert slopes[i].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-3, abs=1e-8)
        before = copy.deepcopy(agent.critics.state_dict())
        optimizer = make_adam(agent.policy_net.parameters(), 1e-3)
        gradient_step(optimizer, module.actor_loss(agent, obs), inputs=weights)
        assert all(torch.equal(before[name], now) for name, now in agent.critics.state_dict().items())


def test_td3_without_its_three_changes_is_ddpg():
    """To the bit: the same weights, rows and draws."""
    shared = {
        "total_steps": 900,
        "buffer_size": 900,
        "learning_starts": 200,
        "batch_size": 32,
        "hidden": (16,),
    }
    off = {"twin_critics": False, "policy_delay": 1, "smoothing_std": 0.0}
    theirs, their_history = ddpg.train("Pendulum-v1", ddpg.DDPGConfig(**shared), seed=1)
    ours, history = td3.train("Pendulum-v1", td3.TD3Config(**shared, **off), seed=1)
    assert history.rows == their_history.rows
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    for change in off:  # and each change changes something
        switches = {name: value for name, value in off.items() if name != change}
        _, changed = td3.train("Pendulum-v1", td3.TD3Config(**shared, **switches), seed=1)
        assert changed.last["critic_loss"] != history.last["critic_loss"], change


def test_temperature_by_hand():
    """α = 2, H̄ = −1, log-probabilities 0 and 3: −2 · (0 − 1) and −2 · (3 − 1), on average −1, which is the
    slope in log α, too. The entropy, −1.5, is below H̄: a step down the slope raises α.
    """
    log_alpha = torch.tensor(math.log(2.0), requires_grad=True)
    loss = sac.temperature_loss(log_alpha, torch.tensor([0.0, 3.0]), -1.0)
    loss.backward()
    assert loss.item() == pytest.approx(-1)
    assert log_alpha.grad.item() == pytest.approx(-1)
    log_alpha.grad = None
    sac.temperature_loss(log_alpha, torch.tensor([-3.0, 0.0]), -1.0).backward()
    assert log_alpha.grad.item() > 0  # an entropy of 1.5 is more than −1: α falls


def make_soft(seed=0, hidden=(16,)):
    agent = SquashedActorCritic(POINT, PUSH, hidden, generator(seed))
    with torch.no_grad():
        agent.policy_net[-1].weight.mul_(100)
        agent.log_temperature.fill_(math.log(0.5))
    return agent


def test_sac_s_losses_worked_out_apart():
    agent, target, batch = make_soft(), make_soft(seed=1), transitions()
    loss, _ = sac.critic_loss(agent, target, batch, 0.9, generator(7))
    with torch.no_grad():
        actions, log_probs = agent.policy(batch.next_obs).sample_with_log_prob(generator(7))
        both = target.q_values(batch.next_obs, actions)
        future = torch.minimum(both[0], both[1]) - 0.5 * log_probs
        targets = batch.rewards + 0.9 * torch.where(batch.terminated, 0.0, future)
        errors = agent.q_values(batch.obs, batch.actions) - targets
    assert loss.item() == pytest.approx(0.5 * errors.square().mean(dim=1).sum().item(), rel=1e-5)

    loss, returned = sac.actor_loss(agent, batch.obs, generator(8))
    with torch.no_grad():
        actions, log_probs = agent.policy(batch.obs).sample_with_log_prob(generator(8))
        lower = agent.q_values(batch.obs, actions).amin(dim=0)
    assert loss.item() == pytest.approx((0.5 * log_probs - lower).mean().item(), rel=1e-5)
    torch.testing.assert_close(returned, log_probs)


# --- the squashed Gaussian ---


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -0.7), (-3.0, 0.5), (0.2, -3.0)])
def test_its_density_integrates_to_1(mean, log_std):
    """By numerical integration over (−1, 1), as are its mean and its entropy; in the variable u = atanh a,
    where no peak at ±1 spoils the rule.
    """
    parameters = (torch.tensor([value], dtype=torch.float64) for value in (mean, log_std))
    dist = SquashedGaussian(*parameters)
    std = math.exp(log_std)
    reach = min(8 * std, 16 - abs(mean))
    unsquashed = torch.linspace(mean - reach, mean + reach, 20_001, dtype=torch.float64)
    actions, slope = unsquashed.tanh(), 1 - unsquashed.tanh().square()
    density = dist.log_prob(actions.unsqueeze(-1)).exp()
    assert torch.trapezoid(density * slope, unsquashed).item() == pytest.approx(1, abs=1e-6)
    mean_action = torch.trapezoid(density * actions * slope, unsquashed).item()
    entropy = torch.trapezoid(-density * density.log() * slope, unsquashed).item()
    samples, log_probs = SquashedGaussian(
        torch.full((200_000, 1), mean), torch.tensor([log_std])
    ).sample_with_log_prob(generator())
    assert samples.mean().item() == pytest.approx(mean_action, abs=5 * samples.std().item() / 447)
    assert -log_probs.mean().item() == pytest.approx(entropy, abs=5 * log_probs.std().item() / 447)


def test_two_components_are_independent():
    mean, log_std = torch.tensor([0.3, -1.0]), torch.tensor([-0.5, 0.2])
    both = SquashedGaussian(mean, log_std)
    actions = both.sample(generator())
    apart = [SquashedGaussian(mean[[i]], log_std[[i]]).log_prob(actions[[i]]) for i in range(2)]
    assert both.log_prob(actions).item() == pytest.approx(sum(apart).item(), rel=1e-5)
    torch.testing.assert_close(both.mode, mean.tanh())
    again, log_probs = both.sample_with_log_prob(generator())
    assert torch.equal(actions, again)
    assert log_probs.item() == pytest.approx(both.log_prob(actions).item(), abs=1e-4)


def test_it_equals_torch_s_transformed_distribution():
    mean, log_std = torch.randn(2, 50, 3, generator=generator(), dtype=torch.float64)
    base = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    theirs = torch.distributions.TransformedDistribution(
        base, torch.distributions.TanhTransform(cache_size=1)
    )
    unsquashed = mean + log_std.exp() * torch.randn(50, 3, generator=generator(1), dtype=torch.float64)
    actions = unsquashed.clamp(-4, 4).tanh()
    ours = SquashedGaussian(mean, log_std).log_prob(actions)
    torch.testing.assert_close(ours, theirs.log_prob(actions), rtol=1e-6, atol=1e-6)


def test_the_density_is_finite_where_tanh_is_rounded_to_1():
    dist = SquashedGaussian(torch.full((100, 1), 20.0, requires_grad=True), torch.zeros(1))
    actions, log_probs = dist.sample_with_log_prob(generator())
    assert (actions == 1).any()
    assert torch.isfinite(log_probs).all()
    log_probs.sum().backward()
    assert torch.isfinite(dist.gaussian.mean.grad).all()
    # log N(u) + 2u − 2 log 2 for large u: the slope of tanh is 4 e^{−2u}.
    expected = -0.5 * math.log(2 * math.pi * math.e) + 2 * 20 - 2 * math.log(2)
    assert log_probs.mean().item() == pytest.approx(expected, abs=0.6)


# --- the noise ---


def test_ornstein_uhlenbeck_by_hand():
    noise, rng = OrnsteinUhlenbeck(1, std=0.2, theta=0.25), np.random.default_rng(3)
    drawn = np.random.default_rng(3).standard_normal(2, dtype=np.float32)
    first, second = noise.sample(rng).copy(), noise.sample(rng).copy()
    assert first == pytest.approx(0.2 * drawn[0])
    assert second == pytest.approx(0.75 * first + 0.2 * drawn[1])
    noise.reset()
    assert noise.value.tolist() == [0]


def test_its_spread_and_memory():
    rng, noise = np.random.default_rng(0), OrnsteinUhlenbeck(400, std=0.3, theta=0.1)
    values = np.array([noise.sample(rng).copy() for _ in range(600)])[100:]
    assert values.std() == pytest.approx(0.3 / math.sqrt(0.1 * 1.9), rel=0.03)
    assert np.mean(values[1:] * values[:-1]) / values.var() == pytest.approx(0.9, abs=0.01)
    independent = OrnsteinUhlenbeck(400, std=0.3, theta=1.0)
    values = np.array([independent.sample(rng).copy() for _ in range(200)])
    assert values.std() == pytest.approx(0.3, rel=0.03)
    assert np.mean(values[1:] * values[:-1]) / values.var() == pytest.approx(0, abs=0.02)


# --- one update of Stable-Baselines3 ---


class Fixed:
    """A replay buffer of theirs that gives one batch."""

    def __init__(self, batch):
        self.batch = ReplayBufferSamples(
            batch.obs,
            batch.actions.unsqueeze(-1) if batch.actions.ndim == 1 else batch.actions,
            batch.next_obs,
            batch.terminated.float().unsqueeze(-1),
            batch.rewards.unsqueeze(-1),
        )

    def sample(self, size, env=None):
        assert size == len(self.batch.rewards)
        return self.batch


def make_peer(peer, action_space, batch, **settings):
    import gymnasium as gym

    class Spaces(gym.Env):
        observation_space = POINT

        def __init__(self):
            self.action_space = action_space

    kwargs = {"net_arch": [16, 16], "optimizer_kwargs": {"eps": 1e-5}}
    model = peer("MlpPolicy", Spaces(), device="cpu", policy_kwargs=kwargs, **settings)
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.replay_buffer = Fixed(batch)
    return model


def linears(*networks):
    return [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Linear)]


def copy_perceptron(theirs, ours):
    for their_layer, our_layer in zip(theirs, linears(ours), strict=True):
        their_layer.load_state_dict(our_layer.state_dict())


def copy_critics(theirs, ours):
    tensors = list(ours.parameters())
    with torch.no_grad():
        for number, network in enumerate(theirs.q_networks):
            for depth, layer in enumerate(linears(network)):
                layer.weight.copy_(tensors[2 * depth][number].T)
                layer.bias.copy_(tensors[2 * depth + 1][number, 0])


def assert_perceptron(theirs, ours, **tolerance):
    for their_layer, our_layer in zip(theirs, linears(ours), strict=True):
        torch.testing.assert_close(our_layer.weight, their_layer.weight, rtol=0, **tolerance)
        torch.testing.assert_close(our_layer.bias, their_layer.bias, rtol=0, **tolerance)


def assert_critics(theirs, ours, **tolerance):
    tensors = list(ours.parameters())
    for number, network in enumerate(theirs.q_networks):
        for depth, layer in enumerate(linears(network)):
            torch.testing.assert_close(tensors[2 * depth][number].T, layer.weight, rtol=0, **tolerance)
            torch.testing.assert_close(tensors[2 * depth + 1][number, 0], layer.bias, rtol=0, **tolerance)


def moved(before, network):
    """How far the weights went, the farthest of them."""
    return max((before[name] - now).abs().max().item() for name, now in network.state_dict().items())


@pytest.mark.parametrize("max_grad_norm", [10.0, 0.05])
def test_one_update_of_dqn(max_grad_norm):
    batch = transitions(action_space=Discrete(4))
    agent, target = (QNetwork(POINT, Discrete(4), (16, 16), generator(seed)) for seed in (0, 1))
    model = make_peer(
        peers.DQN, Discrete(4), batch, learning_rate=1e-3, gamma=0.9, max_grad_norm=max_grad_norm
    )
    copy_perceptron(linears(model.q_net), agent.q_net)
    copy_perceptron(linears(model.q_net_target), target.q_net)
    before = copy.deepcopy(agent.state_dict())
    model.train(gradient_steps=3, batch_size=32)
    optimizer = make_adam(agent.parameters(), 1e-3)
    config = dqn.DQNConfig(gamma=0.9, clip_error=True)
    for _ in range(3):
        loss, _ = dqn.dqn_loss(agent, target, batch, config)
        gradient_step(optimizer, loss, max_grad_norm)
    assert moved(before, agent) > 1e-3
    assert_perceptron(linears(model.q_net), agent.q_net, atol=2e-6)


def test_two_updates_of_td3(monkeypatch):
    """The second of them moves the policy and the targets, too."""
    batch = transitions()
    agent, target = make_twin(hidden=(16, 16)), make_twin(seed=1, hidden=(16, 16))
    settings = {"learning_rate": 1e-3, "gamma": 0.9, "tau": 0.1, "target_policy_noise": 0.3}
    model = make_peer(peers.TD3, PUSH, batch, **settings)
    for theirs, ours in ((model.actor, agent), (model.actor_target, target)):
        copy_perceptron(linears(theirs), ours.policy_net)
    for theirs, ours in ((model.critic, agent), (model.critic_target, target)):
        copy_critics(theirs, ours.critics)
    before, before_target = copy.deepcopy(agent.state_dict()), copy.deepcopy(target.state_dict())

    draws, ours_draw = generator(5), generator(5)
    monkeypatch.setattr(
        torch.Tensor,
        "normal_",
        lambda self, mean, std: self.copy_(std * torch.randn(self.shape, generator=draws)),
    )
    model.train(gradient_steps=2, batch_size=32)
    config = td3.TD3Config(gamma=0.9, smoothing_std=0.3)
    critic, actor, target_critic, target_actor = (
        flatten_parameters(network.parameters())
        for network in (agent.critics, agent.policy_net, target.critics, target.policy_net)
    )
    optimizer, actor_optimizer = make_adam(critic, 1e-3), make_adam(actor, 1e-3)
    for _ in range(2):
        gradient_step(optimizer, td3.critic_loss(agent, target, batch, config, ours_draw)[0])
    gradient_step(actor_optimizer, td3.actor_loss(agent, batch.obs), inputs=agent.policy_net.parameters())
    polyak_update(target_critic, critic, 0.1)
    polyak_update(target_actor, actor, 0.1)

    assert min(moved(before, agent), moved(before_target, target)) > 5e-4
    for theirs, ours in ((model.actor, agent), (model.actor_target, target)):
        assert_perceptron(linears(theirs), ours.policy_net, atol=2e-6)
    for theirs, ours in ((model.critic, agent), (model.critic_target, target)):
        assert_critics(theirs, ours.critics, atol=2e-6)


def test_one_update_of_sac(monkeypatch):
    batch = transitions()
    agent, target = make_soft(hidden=(16, 16)), make_soft(seed=1, hidden=(16, 16))
    agent.log_temperature.data.zero_()
    model = make_peer(peers.SAC, PUSH, batch, learning_rate=1e-3, gamma=0.9, tau=0.1)
    model.actor.action_dist.epsilon = 0.0  # their guard against log 0, which ours does without
    # Theirs has a layer each for the mean and the logarithm of the standard deviation.
    heads = linears(model.actor.mu, model.actor.log_std)
    *_, last = linears(agent.policy_net)
    shared = list(zip(linears(model.actor.latent_pi), linears(agent.policy_net)[:-1], strict=True))
    for their_layer, our_layer in shared:
        their_layer.load_state_dict(our_layer.state_dict())
    with torch.no_grad():
        for number, head in enumerate(heads):
            head.weight.copy_(last.weight.chunk(2)[number])
            head.bias.copy_(last.bias.chunk(2)[number])
    for theirs, ours in ((model.critic, agent), (model.critic_target, target)):
        copy_critics(theirs, ours.critics)

    noise = torch.randn(2, 32, 2, generator=generator(6))  # of the next actions, and of this state's
    theirs_next = iter([noise[1], noise[0]])  # they draw the latter first
    monkeypatch.setattr(
        torch.distributions.Normal, "rsample", lambda self: self.mean + self.stddev * next(theirs_next)
    )
    before = copy.deepcopy(agent.state_dict())
    for group in model.ent_coef_optimizer.param_groups:
        group["eps"] = 1e-5
    model.train(gradient_steps=1, batch_size=32)

    draw = generator(6)
    critics, target_critics = (flatten_parameters(net.critics.parameters()) for net in (agent, target))
    optimizer = make_adam(critics, 1e-3)
    actor_optimizer = make_adam(agent.policy_net.parameters(), 1e-3)
    temperature_optimizer = make_adam([agent.log_temperature], 1e-3)
    gradient_step(optimizer, sac.critic_loss(agent, target, batch, 0.9, draw)[0])
    loss, log_probs = sac.actor_loss(agent, batch.obs, draw)
    gradient_step(actor_optimizer, loss, inputs=agent.policy_net.parameters())
    gradient_step(temperature_optimizer, sac.temperature_loss(agent.log_temperature, log_probs, -2.0))
    polyak_update(target_critics, critics, 0.1)

    assert moved(before, agent) > 5e-4
    for theirs, ours in ((model.critic, agent), (model.critic_target, target)):
        assert_critics(theirs, ours.critics, atol=5e-6)
    for their_layer, our_layer in shared:
        torch.testing.assert_close(our_layer.weight, their_layer.weight, rtol=0, atol=5e-6)
        torch.testing.assert_close(our_layer.bias, their_layer.bias, rtol=0, atol=5e-6)
    torch.testing.assert_close(last.weight, torch.cat([head.weight for head in heads]), rtol=0, atol=5e-6)
    torch.testing.assert_close(last.bias, torch.cat([head.bias for head in heads]), rtol=0, atol=5e-6)
    torch.testing.assert_close(agent.log_temperature, model.log_ent_coef[0], rtol=0, atol=1e-6)
    assert agent.log_temperature != 0


def test_the_config_of_each_is_frozen():
    for config in (dqn.DQNConfig(), ddpg.DDPGConfig(), td3.TD3Config(), sac.SACConfig()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.gamma = 0.5
