"""The distributions a policy here can have over actions.

They exist beside ``torch.distributions`` for two reasons: a generator can be passed to ``sample``, so that
no global random state is involved, and a training step with them takes fewer small operations. Tests hold
them equal to torch's.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

__all__ = ["Categorical", "DiagonalGaussian", "SquashedGaussian"]

LOG_2PI = math.log(2 * math.pi)
LOG_2 = math.log(2)


class Categorical:
    """A choice among A actions, given by logits ``[..., A]`` (unnormalised log-probabilities)."""

    def __init__(self, logits: Tensor):
        self.all_log_probs = logits.log_softmax(dim=-1)  # [..., A]

    @property
    def probs(self) -> Tensor:
        """π(a|s) for every action, ``[..., A]``."""
        return self.all_log_probs.exp()

    @property
    def mode(self) -> Tensor:
        """The likeliest action, ``[...]`` int64."""
        return self.all_log_probs.argmax(dim=-1)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """One action for each row, ``[...]`` int64."""
        # The race of torch.multinomial, with the same numbers and without its checks, two thirds of its time:
        # of exponential waiting times with the rates π(a|s), that of a is the first with probability π(a|s).
        waiting = torch.empty_like(self.all_log_probs).exponential_(generator=generator)
        return (self.probs / waiting).argmax(dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """log π(a|s) of the given actions ``[...]``."""
        return self.all_log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def kl(self, other: "Categorical") -> Tensor:
        """KL(self ‖ other) = Σ_a p(a) (log p(a) − log q(a)) in nats, ``[...]``."""
        probs = self.probs
        log_ratio = torch.where(probs > 0, self.all_log_probs - other.all_log_probs, 0.0)
        return (probs * log_ratio).sum(dim=-1)

    def rows(self) -> Tensor:
        """The distributions as one tensor ``[..., A]``, which ``from_rows`` reads."""
        return self.all_log_probs

    @classmethod
    def from_rows(cls, rows: Tensor) -> "Categorical":
        """The distributions that ``rows`` gave."""
        return cls(rows)

    def entropy(self) -> Tensor:
        """−Σ_a π(a|s) log π(a|s) in nats, ``[...]``."""
        # Clamped so that an action of probability 0 contributes 0 · (−large) = 0 and not 0 · (−inf) = NaN.
        finite = self.all_log_probs.clamp(min=torch.finfo(self.all_log_probs.dtype).min)
        return -(self.probs * finite).sum(dim=-1)


class DiagonalGaussian:
    """Independent normal distributions for D action components.

    Args:
        mean: μ(s), ``[..., D]``.
        log_std: log σ, ``[D]`` or ``[..., D]``.
    """

    def __init__(self, mean: Tensor, log_std: Tensor):
        self.mean = mean
        self.log_std = log_std
        self.std = log_std.exp()

    @property
    def mode(self) -> Tensor:
        """The likeliest action, which is the mean, ``[..., D]``."""
        return self.mean

    def sample(self, generator: Generator | None = None) -> Tensor:
        """One action for each row, ``[..., D]``."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.std * noise

    def log_prob(self, actions: Tensor) -> Tensor:
        """log density of the given actions ``[..., D]``, summed over components, ``[...]``."""
        z = (actions - self.mean) / self.std
        return (-0.5 * z.square() - self.log_std - 0.5 * LOG_2PI).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, summed over components, ``[...]``."""
        return (0.5 + 0.5 * LOG_2PI + self.log_std).expand(self.mean.shape).sum(dim=-1)

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        """KL(self ‖ other) in nats, summed over components, ``[...]``."""
        scaled = (self.std / other.std).square() + ((self.mean - other.mean) / other.std).square()
        return (other.log_std - self.log_std + 0.5 * (scaled - 1)).sum(dim=-1)

    def rows(self) -> Tensor:
        """The distributions as one tensor ``[..., 2 D]``, which ``from_rows`` reads."""
        return torch.cat([self.mean, self.log_std.expand(self.mean.shape)], dim=-1)

    @classmethod
    def from_rows(cls, rows: Tensor) -> "DiagonalGaussian":
        """The distributions that ``rows`` gave."""
        return cls(*rows.chunk(2, dim=-1))


class SquashedGaussian:
    r"""Independent normal distributions for D components, squashed into (−1, 1): :math:`a = \tanh u` with
    :math:`u \sim \mathcal N(\mu, \sigma^2)`. Haarnoja et al. (2018), arXiv:1801.01290, appendix C.

    Args:
        mean: μ(s), ``[..., D]``.
        log_std: log σ(s), ``[D]`` or ``[..., D]``.
    """

    def __init__(self, mean: Tensor, log_std: Tensor):
        self.gaussian = DiagonalGaussian(mean, log_std)

    @property
    def mode(self) -> Tensor:
        """The squashed mean, the median of each component, ``[..., D]``."""
        return self.gaussian.mean.tanh()

    def sample(self, generator: Generator | None = None) -> Tensor:
        """One action for each row, ``[..., D]``."""
        return self.gaussian.sample(generator).tanh()

    def sample_with_log_prob(self, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """One action for each row, ``[..., D]``, and its log density, ``[...]``.

        Both are differentiable functions of the parameters for the noise that was drawn, and the density is
        exact however close to ±1 an action is.
        """
        unsquashed = self.gaussian.sample(generator)
        return unsquashed.tanh(), self._log_prob(unsquashed)

    def log_prob(self, actions: Tensor) -> Tensor:
        """log density of the given actions ``[..., D]`` in (−1, 1), summed over components, ``[...]``.

        Book: eq-squashed-gaussian. Haarnoja et al. (2018), eq. 21.
        """
        return self._log_prob(actions.atanh())

    def _log_prob(self, unsquashed: Tensor) -> Tensor:
        # log(1 − tanh²u), whose plain form gives −inf once tanh u is rounded to 1.
        log_slope = 2 * (LOG_2 - unsquashed - softplus(-2 * unsquashed))
        return self.gaussian.log_prob(unsquashed) - log_slope.sum(dim=-1)
