"""Networks and the agents made of them.

An agent answers ``predict(obs, deterministic=True) -> (action, None)``, as an agent of Stable-Baselines3
does, so code that evaluates the one runs with the other.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import VectorEnv
from torch import Generator, Tensor, nn

from policyopt.distributions import Categorical, DiagonalGaussian

__all__ = ["Actor", "ActorCritic", "Agent", "mlp"]


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.Tanh,
    output_gain: float = 1.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """A multi-layer perceptron with orthogonal weights and zero biases.

    Book: implementation details. Hidden layers have gain √2, the last one ``output_gain`` (Saxe et al.,
    2014; the gains are those of OpenAI's baselines).

    Args:
        sizes: the width of each layer from input to output, e.g. ``[4, 64, 64, 2]``.
        activation: the class of the non-linearity between layers.
        output_gain: the scale of the last layer; 0.01 makes a policy that starts near uniform.
        generator: where the random weights come from.

    Returns:
        A network from ``[..., sizes[0]]`` to ``[..., sizes[-1]]``.
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ValueError(
            f"sizes is {list(sizes)}; it must name at least an input and an output width, each ≥ 1"
        )
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        with torch.random.fork_rng(devices=[]):  # it draws weights of its own, which are replaced
            layer = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(layer.weight, output_gain if last else 2**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, activation()]
    return Perceptron(*layers)


class Perceptron(nn.Sequential):
    """Layers one after the other. Their hooks are not called: for small networks that is half of the time."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            x = layer.forward(x)
        return x


class ObservationEncoder(nn.Module):
    """Turns a batch of observations into the vector a network reads: a Box is flattened, a Discrete
    becomes one-hot.

    Raises:
        ValueError: a space of another kind, or images, which are nothing for perceptrons.
    """

    def __init__(self, space: gym.Space):
        super().__init__()
        if isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3:
            raise ValueError(
                f"observation space {space} holds images, for which there is no suitable network here; "
                "make a vector of features of them (gymnasium.wrappers.TransformObservation)"
            )
        if isinstance(space, Box):
            self.width = int(np.prod(space.shape))
        elif isinstance(space, Discrete):
            self.width = int(space.n)
        else:
            raise ValueError(
                f"observation space {space} is not supported; it must be Box or Discrete "
                "(gymnasium.wrappers.FlattenObservation turns many others into a Box)"
            )
        self.space = space

    def forward(self, obs: Tensor) -> Tensor:
        if isinstance(self.space, Discrete):
            return nn.functional.one_hot(obs.long() - int(self.space.start), self.width).float()  # [..., S]
        dims = len(self.space.shape)
        if dims != 1:
            obs = obs.flatten(-dims) if dims else obs.unsqueeze(-1)
        return obs.float()  # [..., O]


class Agent(nn.Module):
    """What agents made of networks have in common: spaces, an encoder of observations, ``predict``.

    A class derived from it says in ``act`` what is done.

    Args:
        obs_space: Box (flattened) or Discrete (one-hot).
        action_space: what the derived class allows.
        hidden: widths of the hidden layers of each network.

    Raises:
        ValueError: an observation space that is not supported, named with what is.
    """

    def __init__(self, obs_space: gym.Space, action_space: gym.Space, hidden: Sequence[int]):
        super().__init__()
        self.obs_space, self.action_space, self.hidden = obs_space, action_space, tuple(hidden)
        self.encoder = ObservationEncoder(obs_space)

    @classmethod
    def for_env(cls, env: gym.Env, hidden: Sequence[int], seed: int) -> Self:
        """An agent with the spaces of an environment and the random weights of ``seed``."""
        return cls(env.observation_space, env.action_space, hidden, Generator().manual_seed(seed))

    def act(self, obs: Tensor, deterministic: bool, generator: Generator | None) -> np.ndarray:
        """What the environment is given for observations ``[..., *O]``."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(
        self,
        obs: np.ndarray,
        deterministic: bool = True,
        *,
        generator: Generator | None = None,
        state: None = None,
        episode_start: np.ndarray | None = None,
    ) -> tuple[np.ndarray, None]:
        """The action for one observation, or for a batch of them.

        Args:
            obs: one observation of the observation space's shape, or a batch with one more leading dimension.
            deterministic: the likeliest action; otherwise one drawn from the policy.
            generator: where a drawn action comes from; torch's global one when None.
            state: ignored. Tools of Stable-Baselines3 pass it, for agents with a memory.
            episode_start: ignored, for the same reason.

        Returns:
            The action (or the batch) as a NumPy array the environment accepts, and None (no recurrent state).

        Raises:
            ValueError: an observation of another shape.
        """
        array = np.asarray(obs)
        shape = self.obs_space.shape
        if array.shape[array.ndim - len(shape) :] != shape or array.ndim > len(shape) + 1:
            raise ValueError(f"obs has shape {array.shape}; it must be {shape}, or a batch of such")
        return self.act(torch.as_tensor(array), deterministic, generator), None


class Actor(Agent):
    """A stochastic policy π_θ(a|s): a perceptron that gives a distribution over actions.

    A Discrete action space gets a categorical policy, a Box a Gaussian whose standard deviation does not
    depend on the state.

    Args:
        obs_space: Box (flattened) or Discrete (one-hot).
        action_space: Discrete or a one-dimensional Box.
        hidden: widths of the hidden layers of each network.
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
        if isinstance(action_space, Discrete):
            outputs = int(action_space.n)
        elif isinstance(action_space, Box) and len(action_space.shape) == 1:
            outputs = action_space.shape[0]
            self.log_std = nn.Parameter(torch.zeros(outputs))
            self.register_buffer("action_low", torch.as_tensor(action_space.low), persistent=False)
            self.register_buffer("action_high", torch.as_tensor(action_space.high), persistent=False)
        else:
            raise ValueError(
                f"action space {action_space} is not supported; it must be Discrete or a Box of one dimension"
            )
        self.policy_net = mlp([self.encoder.width, *hidden, outputs], output_gain=0.01, generator=generator)

    @classmethod
    def for_envs(cls, envs: VectorEnv, hidden: Sequence[int], seed: int) -> Self:
        """An agent with the spaces of vectorised environments and the random weights of ``seed``."""
        generator = Generator().manual_seed(seed)
        return cls(envs.single_observation_space, envs.single_action_space, hidden, generator)

    @property
    def policy_parameters(self) -> list[nn.Parameter]:
        """θ, the parameters of the policy alone."""
        return [*([] if self.discrete else [self.log_std]), *self.policy_net.parameters()]

    @property
    def discrete(self) -> bool:
        """Whether actions are numbers of a finite set."""
        return isinstance(self.action_space, Discrete)

    def policy(self, obs: Tensor) -> Categorical | DiagonalGaussian:
        """π_θ(·|s) for observations ``[..., *O]``."""
        output = self.policy_net(self.encoder(obs))
        return Categorical(output) if self.discrete else DiagonalGaussian(output, self.log_std)

    def to_env(self, actions: Tensor) -> np.ndarray:
        """What the environment is given for sampled actions: a Gaussian's are clipped to the Box, a
        Discrete's shifted to its start.
        """
        if self.discrete:
            return actions.numpy() + int(self.action_space.start)
        return actions.clamp(self.action_low, self.action_high).numpy()

    def act(self, obs: Tensor, deterministic: bool, generator: Generator | None) -> np.ndarray:
        """The likeliest actions, or actions drawn from the policy, as the environment takes them."""
        dist = self.policy(obs)
        return self.to_env(dist.mode if deterministic else dist.sample(generator))


class ActorCritic(Actor):
    """A policy π_θ(a|s) and a value function V_φ(s), two separate perceptrons of the same shape.

    Arguments and errors are those of ``Actor``.
    """

    def __init__(
        self,
        obs_space: gym.Space,
        action_space: gym.Space,
        hidden: Sequence[int] = (64, 64),
        generator: Generator | None = None,
    ):
        super().__init__(obs_space, action_space, hidden, generator)
        self.value_net = mlp([self.encoder.width, *hidden, 1], generator=generator)

    @property
    def value_parameters(self) -> list[nn.Parameter]:
        """φ, the parameters of the value function alone."""
        return list(self.value_net.parameters())

    def value(self, obs: Tensor) -> Tensor:
        """V_φ(s) for observations ``[..., *O]``, shape ``[...]``."""
        return self.value_net(self.encoder(obs)).squeeze(-1)
