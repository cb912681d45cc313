"""*Group advantages*: the rewards of a group of outputs, and the advantages made of them."""

from typing import Any

from policyopt.widgets.base import Figure, figure_module
from policyopt.widgets.checks import Checked, check_choice, is_number, not_allowed

SIZES = (2, 16)
LOWEST, HIGHEST = -0.5, 1.5
FORMS = ("grpo", "dr_grpo", "rloo")
TWO_OF_EIGHT = (1, 0, 0, 1, 0, 0, 0, 0)


def _check_rewards(name: str, rewards: Any) -> list[float]:
    """The rewards as floats, if they are what the figure can show."""
    try:
        values = list(rewards)
    except TypeError:
        values = []
    fitting = all(is_number(value) and LOWEST <= value <= HIGHEST for value in values)
    if not SIZES[0] <= len(values) <= SIZES[1] or not fitting:
        allowed = f"{SIZES[0]} to {SIZES[1]} numbers, each in [{LOWEST:g}, {HIGHEST:g}]"
        raise not_allowed(name, rewards, allowed)
    return [float(value) for value in values]


class GroupAdvantages(Figure):
    r"""One prompt's group of outputs :math:`o_1, \dots, o_G`: set each reward, and see every advantage.

    With the group's mean :math:`\bar R` and its standard deviation :math:`\sigma_R` (with Bessel's
    correction, as in ``policyopt.returns.group_relative_advantages``), :math:`\hat A_i` is :math:`(R_i - \bar
    R) / (\sigma_R + 10^{-4})` for GRPO (Shao et al., 2024, arXiv:2402.03300, section 4.1.2), :math:`R_i -
    \bar R` for Dr. GRPO (Liu et al., 2025, arXiv:2503.20783), and :math:`R_i` minus the mean of the *other*
    rewards for RLOO (Ahmadian et al., 2024, arXiv:2402.14740, section 2.3). Where all rewards are equal each
    is exactly 0. Curves show the mean of :math:`\hat A_i^2` for every number of right outputs.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``set(rewards)``, ``reward(i, value)`` and ``toggle(i)``, with i from 0, ``size(G)``, ``preset(name)``
    with "two_of_eight", "one_right", "one_wrong", "equal" or "graded", ``form(name)``, ``shift(amount)`` and
    ``scale(factor)``.

    Args:
        rewards: those of the group, 2 to 16 numbers from −0.5 to 1.5. A right output's is 1, a wrong one's 0.
        form: whose advantages the bars show first: "grpo", "dr_grpo" or "rloo". Both may be assigned later.

    Raises:
        ValueError: an argument is not as said here, named.
    """

    kind = "group_advantages"
    title = "Group advantages"
    summary = (
        "Set the rewards of a group of outputs. An output's advantage is its reward minus the group's mean; "
        "GRPO divides by the standard deviation, Dr. GRPO does not, and RLOO compares with the others' mean. "
        "Where all rewards are equal, every advantage is 0."
    )
    _esm = figure_module(kind)

    rewards = Checked(_check_rewards).tag(sync=True, page=True)
    form = Checked(check_choice, FORMS).tag(sync=True, page=True)

    def __init__(self, rewards=TWO_OF_EIGHT, form="grpo", **kwargs):
        super().__init__(rewards=rewards, form=form, **kwargs)

    def __repr__(self) -> str:
        rewards = ", ".join(f"{reward:g}" for reward in self.rewards)
        return f"GroupAdvantages(rewards=({rewards}), form={self.form!r})"
