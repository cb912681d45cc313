"""Noise that is added to the actions of a deterministic policy, so that it tries others."""

import numpy as np
import torch

from policyopt.q_networks import DeterministicActorCritic
from policyopt.replay import ReplayCollector

__all__ = ["OrnsteinUhlenbeck", "noisy_action"]


class OrnsteinUhlenbeck:
    r"""Noise that drifts back to 0, :math:`x \leftarrow (1-\theta)\,x + \sigma\,\mathcal N(0, 1)`.

    Uhlenbeck & Ornstein (1930); Lillicrap et al. (2016), arXiv:1509.02971, section 7. With θ = 1 each step's
    noise is independent of the last one's, N(0, σ²); with a small θ it keeps its sign for about 1/θ steps,
    and its standard deviation grows to σ / √(θ (2 − θ)).

    Args:
        dims: D, of an action.
        std: σ.
        theta: θ in (0, 1], per step.
    """

    def __init__(self, dims: int, std: float, theta: float):
        self.std, self.theta = std, theta
        self.value = np.zeros(dims, dtype=np.float32)

    def reset(self) -> None:
        """Begin an episode: at 0."""
        self.value = np.zeros_like(self.value)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """The next step's noise, ``[D]`` float32."""
        drawn = rng.standard_normal(len(self.value), dtype=np.float32)
        self.value = (1 - self.theta) * self.value + self.std * drawn
        return self.value

    def state_dict(self) -> dict:
        """Where it is."""
        return {"value": self.value.tolist()}

    def load_state_dict(self, state: dict) -> None:
        """Return to a saved state."""
        self.value = np.array(state["value"], dtype=np.float32)


@torch.no_grad()
def noisy_action(
    agent: DeterministicActorCritic,
    collector: ReplayCollector,
    noise: OrnsteinUhlenbeck,
    learning_starts: int,
) -> np.ndarray:
    """The next action in [−1, 1], ``[D]``: a random one in the first ``learning_starts`` steps, then μ_θ(s)
    and noise, which begins anew with each episode. Lillicrap et al. (2016), eq. 7.
    """
    if collector.episode_over:
        noise.reset()
    if collector.steps_taken < learning_starts:
        return collector.uniform_action(agent.inner_space)
    mean = agent.policy(torch.as_tensor(collector.obs)).numpy()
    return (mean + noise.sample(collector.rng)).clip(-1, 1)
