"""*Clip explorer*: PPO's clipped surrogate of one sample, its gradient, and where the clip ends it."""

from policyopt.widgets.base import Figure, figure_module
from policyopt.widgets.checks import Checked, check_number

RANGES = {"clip": (0.05, 0.5), "advantage": (-2.0, 2.0), "ratio": (0.0, 2.0)}


class ClipExplorer(Figure):
    r"""The clipped surrogate :math:`\min(\rho \hat A, \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon) \hat A)`.

    The reader moves the ratio ρ, the advantage Â and the clip range ε of one sample, and sees both terms,
    the objective and its gradient with respect to ρ, all over ρ from 0 to 2, and in words which of the cases
    it is. *Follow the gradient* takes steps ρ ← ρ + 0.03 · gradient until the gradient is 0. What the page
    computes is ``policyopt.losses.clipped_surrogate``, with PyTorch's gradient also at the border of the clip
    range: there it is that of the unclipped term. Schulman et al. (2017), arXiv:1707.06347, eq. 7, figure 1.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``set({clip, advantage, ratio})``, ``choose(case)`` with "good" or "bad", a hyphen and "low", "inside" or
    "high", ``step(count)``, ``follow()``, ``pause()`` and ``restart()``, back to ρ = 1.

    Args:
        clip: ε, from 0.05 to 0.5.
        advantage: Â, from −2 to 2.
        ratio: ρ, from 0 to 2. All three may also be assigned later.

    Raises:
        ValueError: a number out of its range, or no number.
    """

    kind = "clip_explorer"
    title = "Clip explorer"
    summary = (
        "The objective of PPO for one sample, over the ratio of its action's new to its old probability. "
        "Move the ratio, the advantage and the clip range to see where the gradient pushes that "
        "probability and where the clip takes the push away."
    )
    _esm = figure_module(kind)

    clip = Checked(check_number, *RANGES["clip"]).tag(sync=True, page=True)
    advantage = Checked(check_number, *RANGES["advantage"]).tag(sync=True, page=True)
    ratio = Checked(check_number, *RANGES["ratio"]).tag(sync=True, page=True)

    def __init__(self, clip=0.2, advantage=1.0, ratio=1.0, **kwargs):
        super().__init__(clip=clip, advantage=advantage, ratio=ratio, **kwargs)

    def __repr__(self) -> str:
        return f"ClipExplorer(clip={self.clip:g}, advantage={self.advantage:g}, ratio={self.ratio:g})"
