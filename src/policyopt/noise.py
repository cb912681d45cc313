"""Noise that is added to the actions of a deterministic policy, so that it tries others."""

import numpy as np

__all__ = ["OrnsteinUhlenbeck"]


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
