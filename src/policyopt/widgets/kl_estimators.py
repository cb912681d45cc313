"""*KL estimators*: k1, k2 and k3 on samples from one Gaussian, and the exact divergence to another."""

from policyopt.widgets.base import Figure, figure_module
from policyopt.widgets.checks import Checked, check_choice, check_integer, check_number, check_seed

RANGES = {"shift": (0.0, 3.0), "spread": (0.5, 2.0)}
MAX_SAMPLES = 2000
VIEWS = ("value", "gradient")


class KLEstimators(Figure):
    """Three estimators of KL(p ‖ q) from samples of p: right or wrong on average, quiet or noisy.

    The policy p = π_θ is a normal distribution with mean μ = 0 and standard deviation 1, the reference
    q = π_ref another one that the reader moves and widens. Each sample x from p gives k1 = −log(q/p),
    k2 = ½ (log q/p)² and k3 = q/p − 1 − log(q/p), as in ``policyopt.losses``: Schulman (2020), "Approximating
    KL divergence", joschu.net/blog/kl-approx.html. Beside their values stand the exact KL in nats, and each
    estimator's exact bias and standard deviation; that of k3 is infinite from a ``spread`` of √2 on. The view
    "gradient" shows −∂k/∂μ for samples held fixed instead: how a loss with k in it would push the mean of p.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``draw(count)``, ``fresh()`` (as many samples by the next seed), ``clear()`` and
    ``set({shift, spread, view})``.

    Args:
        shift: the mean of q, from 0 to 3; that of p is 0.
        spread: the standard deviation of q, from 0.5 to 2; that of p is 1.
        samples: how many samples are drawn at first, from 0 to 2000.
        seed: of the samples, an integer from 0. The page draws them with a small generator of its own.
        view: "value" or "gradient", what is shown first. All five may also be assigned later.

    Raises:
        ValueError: an argument is not as said here, named.
    """

    kind = "kl_estimators"
    title = "KL estimators"
    summary = (
        "Two normal distributions and samples from one of them. Three estimators of the KL divergence are "
        "compared with its exact value: the first is right on average but often negative, the second is "
        "biased, the third is right on average and never negative, but can be very noisy when the two "
        "distributions are far apart."
    )
    _esm = figure_module(kind)

    shift = Checked(check_number, *RANGES["shift"]).tag(sync=True, page=True)
    spread = Checked(check_number, *RANGES["spread"]).tag(sync=True, page=True)
    samples = Checked(check_integer, 0, MAX_SAMPLES).tag(sync=True, page=True)
    seed = Checked(check_seed).tag(sync=True, page=True)
    view = Checked(check_choice, VIEWS).tag(sync=True, page=True)

    def __init__(self, shift=1.0, spread=1.0, samples=100, seed=0, view="value", **kwargs):
        super().__init__(shift=shift, spread=spread, samples=samples, seed=seed, view=view, **kwargs)

    def __repr__(self) -> str:
        return (
            f"KLEstimators(shift={self.shift:g}, spread={self.spread:g}, samples={self.samples}, "
            f"seed={self.seed}, view={self.view!r})"
        )
