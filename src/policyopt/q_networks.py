"""Networks that judge actions, and the agents of the algorithms that learn from replayed steps."""

from collections.abc import Sequence
from itertools import pairwise

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor, nn

from policyopt.distributions import SquashedGaussian
from policyopt.networks import Agent, Perceptron

__all__ = [
    "DeterministicActorCritic",
    "QNetwork",
    "SquashedActorCritic",
    "TwinDeterministicActorCritic",
    "TwinQ",
]

OUTPUT_RANGE = 3e-3  # of a policy's last layer at first, so that its actions are near the middle
LOG_STD_RANGE = (-20.0, 2.0)  # of SAC's policy, as in its authors' code


def relu_mlp(
    sizes: Sequence[int], generator: Generator | None, output_range: float | None = None
) -> Perceptron:
    """A perceptron with ReLUs between its layers, whose weights and biases are uniform in ±1/√(inputs of the
    layer). Lillicrap et al. (2016), section 7.

    With biases of 0, as in ``policyopt.mlp``, it would at first rank actions by the direction of an
    observation alone, whatever its size; DQN learned CartPole far less often from such weights.

    Args:
        sizes: the width of each layer from input to output.
        generator: where the random weights come from.
        output_range: the last layer is uniform in ± this, when given.

    Returns:
        A network from ``[..., sizes[0]]`` to ``[..., sizes[-1]]``.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        with torch.random.fork_rng(devices=[]):  # it draws weights of its own, which are replaced
            layer = nn.Linear(fan_in, fan_out)
        last = len(layers) == 2 * len(sizes) - 4
        bound = output_range if last and output_range is not None else fan_in**-0.5
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [layer] if last else [layer, nn.ReLU()]
    return Perceptron(*layers)


class QNetwork(Agent):
    """Q_θ(s, a) of a finite number of actions: a perceptron with one output for each. It acts greedily.

    Args:
        obs_space: Box (flattened) or Discrete (one-hot).
        action_space: Discrete.
        hidden: widths of the hidden layers.
        generator: where the random weights come from.

    Raises:
        ValueError: a space that is not supported, named with what is.
    """

    def __init__(
        self,
        obs_space: gym.Space,
        action_space: gym.Space,
        hidden: Sequence[int] = (64, 64),
        generator: Generator | None = None,
    ):
        super().__init__(obs_space, action_space, hidden)
        if not isinstance(action_space, Discrete):
            raise ValueError(
                f"DQN needs a Discrete action space, whose actions can all be compared; this is "
                f"{action_space}. For a Box there are ddpg, td3, sac, reinforce, a2c, a3c, ppo, ppo_penalty, "
                "trpo and grpo"
            )
        sizes = [self.encoder.width, *hidden, int(action_space.n)]
        self.q_net = relu_mlp(sizes, generator)

    def q_values(self, obs: Tensor) -> Tensor:
        """Q_θ(s, ·) for observations ``[..., *O]``, shape ``[..., A]``."""
        return self.q_net(self.encoder(obs))

    def act(self, obs: Tensor, deterministic: bool, generator: Generator | None) -> np.ndarray:
        """The best actions; there is nothing random in them."""
        return self.q_values(obs).argmax(dim=-1).numpy() + int(self.action_space.start)


class TwinQ(nn.Module):
    """Q_φ(s, a) of several critics, two unless another number is given, in one pass: each is a perceptron
    that reads observation and action.

    Args:
        inputs: width of an encoded observation and an action together.
        hidden: widths of the hidden layers of each critic.
        generator: where the random weights come from, which differ between the critics.
        count: how many critics, C.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], generator: Generator | None = None, count: int = 2
    ):
        super().__init__()
        critics = [relu_mlp([inputs, *hidden, 1], generator)[::2] for _ in range(count)]
        for number, same in enumerate(zip(*critics, strict=True)):  # the layers of one depth
            weight = torch.stack([layer.weight.detach().T for layer in same])  # [C, in, out]
            bias = torch.stack([layer.bias.detach()[None] for layer in same])  # [C, 1, out]
            self.register_parameter(f"weight_{number}", nn.Parameter(weight.contiguous()))
            self.register_parameter(f"bias_{number}", nn.Parameter(bias))

    def forward(self, obs: Tensor, actions: Tensor, count: int | None = None) -> Tensor:
        """Q_1(s, a), …, Q_C(s, a) for encoded observations ``[B, O]`` and actions ``[B, D]``, shape
        ``[C, B]``; those of the first ``count`` critics when it is given.
        """
        # Straight from the dictionary: a ParameterList would take as long as the products of small matrices.
        tensors = list(self._parameters.values())
        if count is not None:
            tensors = [tensor[:count] for tensor in tensors]
        x = torch.cat([obs, actions], dim=-1).expand(len(tensors[0]), -1, -1)  # [C, B, O + D]
        for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
            x = torch.baddbmm(bias, x, weight).relu()
        return torch.baddbmm(tensors[-1], x, tensors[-2]).squeeze(-1)


class BoundedAgent(Agent):
    """An agent whose actions lie in [−1, 1] inside, and are stretched over the action space by ``to_env``.

    Args:
        obs_space: Box (flattened) or Discrete (one-hot).
        action_space: a one-dimensional Box with finite bounds.
        hidden: widths of the hidden layers of each network.

    Attributes:
        inner_space: the Box of the actions inside.

    Raises:
        ValueError: a space that is not supported, named with what is.
    """

    def __init__(self, obs_space: gym.Space, action_space: gym.Space, hidden: Sequence[int]):
        super().__init__(obs_space, action_space, hidden)
        if isinstance(action_space, Discrete):
            raise ValueError(
                f"DDPG, TD3 and SAC need a Box of actions, numbers that can be moved a little; this is "
                f"{action_space}. For a Discrete space there are dqn, reinforce, a2c, a3c, ppo, ppo_penalty, "
                "trpo and grpo"
            )
        if not (isinstance(action_space, Box) and len(action_space.shape) == 1 and action_space.is_bounded()):
            raise ValueError(
                f"action space {action_space} is not supported; it must be a Box of one dimension with "
                "finite bounds"
            )
        self.inner_space = Box(-1.0, 1.0, action_space.shape, np.float32)

    @property
    def inputs(self) -> int:
        """The width of an encoded observation and an action together, which a critic reads."""
        return self.encoder.width + self.inner_space.shape[0]

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """What the environment is given for actions ``[..., D]`` in [−1, 1]."""
        space = self.action_space
        stretched = space.low + (actions + 1) / 2 * (space.high - space.low)
        return stretched.clip(space.low, space.high).astype(space.dtype)  # rounding may lead just outside


class DeterministicActorCritic(BoundedAgent):
    """A policy μ_θ(s) that gives one action for a state, and a critic Q_φ(s, a) that judges it.

    Args:
        obs_space: Box (flattened) or Discrete (one-hot).
        action_space: a one-dimensional Box with finite bounds.
        hidden: widths of the hidden layers of each network.
        generator: where the random weights come from.

    Raises:
        ValueError: a space that is not supported, named with what is.
    """

    num_critics = 1

    def __init__(
        self,
        obs_space: gym.Space,
        action_space: gym.Space,
        hidden: Sequence[int] = (64, 64),
        generator: Generator | None = None,
    ):
        super().__init__(obs_space, action_space, hidden)
        sizes = [self.encoder.width, *hidden, action_space.shape[0]]
        self.policy_net = relu_mlp(sizes, generator, OUTPUT_RANGE)
        self.critics = TwinQ(self.inputs, hidden, generator, self.num_critics)

    def policy(self, obs: Tensor) -> Tensor:
        """μ_θ(s) for observations ``[..., *O]``, shape ``[..., D]``, in [−1, 1]."""
        return self.policy_net(self.encoder(obs)).tanh()

    def q_values(self, obs: Tensor, actions: Tensor, count: int | None = None) -> Tensor:
        """Q_φ(s, a) of each critic for ``[B, *O]`` and actions ``[B, D]`` in [−1, 1], shape ``[C, B]``."""
        return self.critics(self.encoder(obs), actions, count)

    def act(self, obs: Tensor, deterministic: bool, generator: Generator | None) -> np.ndarray:
        """The policy's actions; there is nothing random in them."""
        return self.to_env(self.policy(obs).numpy())


class TwinDeterministicActorCritic(DeterministicActorCritic):
    """The same with two critics, as in TD3."""

    num_critics = 2


class SquashedActorCritic(BoundedAgent):
    """A policy π_θ(a|s), a squashed Gaussian whose mean and standard deviation depend on the state, and two
    critics Q_φ(s, a). Haarnoja et al. (2018), arXiv:1812.05905.

    Arguments and errors are those of ``DeterministicActorCritic``, and actions lie in (−1, 1) likewise.

    Attributes:
        log_temperature: log α, the price of an action's log-probability, trained beside the networks.
    """

    def __init__(
        self,
        obs_space: gym.Space,
        action_space: gym.Space,
        hidden: Sequence[int] = (64, 64),
        generator: Generator | None = None,
    ):
        super().__init__(obs_space, action_space, hidden)
        sizes = [self.encoder.width, *hidden, 2 * action_space.shape[0]]
        self.policy_net = relu_mlp(sizes, generator, OUTPUT_RANGE)
        self.critics = TwinQ(self.inputs, hidden, generator)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def policy(self, obs: Tensor) -> SquashedGaussian:
        """π_θ(·|s) for observations ``[..., *O]``."""
        mean, log_std = self.policy_net(self.encoder(obs)).chunk(2, dim=-1)  # [..., D] each
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE))

    def q_values(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Q_φ(s, a) of both critics for ``[B, *O]`` and actions ``[B, D]`` in (−1, 1), shape ``[2, B]``."""
        return self.critics(self.encoder(obs), actions)

    def act(self, obs: Tensor, deterministic: bool, generator: Generator | None) -> np.ndarray:
        """The squashed means, or actions drawn from the policy, as the environment takes them."""
        dist = self.policy(obs)
        return self.to_env((dist.mode if deterministic else dist.sample(generator)).numpy())
