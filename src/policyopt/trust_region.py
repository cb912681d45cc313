"""What a trust-region step is made of: products with the Fisher matrix, conjugate gradient, a line search."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LineSearch", "conjugate_gradient", "fisher_vector_product", "line_search"]


def fisher_vector_product(
    kl: Tensor, parameters: Sequence[Tensor], damping: float = 0.0
) -> Callable[[Tensor], Tensor]:
    r"""The function :math:`v \mapsto (F + \text{damping} \cdot I)\, v`, without ever forming F.

    Book: eq-fisher-vector-product. Pearlmutter (1994); Schulman et al. (2015), arXiv:1502.05477, appendix C.
    F is the Hessian at θ = θ_old of the mean of KL(π_old ‖ π_θ), which is the Fisher matrix there. A product
    is the gradient of (∇ KL · v): two backward passes.

    Args:
        kl: the mean of KL(π_old ‖ π_θ), a scalar with a graph back to the parameters.
        parameters: θ, P numbers in all.
        damping: added to the diagonal.

    Returns:
        A function from ``[P]`` to ``[P]``.
    """
    gradients = torch.autograd.grad(kl, parameters, create_graph=True)
    gradient = torch.cat([part.flatten() for part in gradients])

    def product(vector: Tensor) -> Tensor:
        parts = torch.autograd.grad(gradient, parameters, vector, retain_graph=True)
        return torch.cat([part.flatten() for part in parts]) + damping * vector

    return product


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, max_steps: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """Solve A x = b for a symmetric positive definite A that is known only by its products.

    Book: eq-conjugate-gradient. Hestenes & Stiefel (1952). In exact arithmetic n steps solve a system of n
    unknowns; a few give a good direction.

    Args:
        product: the function v ↦ A v, from ``[P]`` to ``[P]``.
        b: the right-hand side, ``[P]``.
        max_steps: products at most.
        tolerance: stop once the squared norm of b − A x is below it.

    Returns:
        x, ``[P]``; the best so far if a direction is met in which A is not positive.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    squared = residual @ residual
    for _ in range(max_steps):
        if not squared > tolerance:
            break
        image = product(direction)
        curvature = direction @ image
        if not curvature > 0:
            break
        step = squared / curvature
        x += step * direction
        residual -= step * image
        before, squared = squared, residual @ residual
        direction = residual + squared / before * direction
    return x


class LineSearch(NamedTuple):
    """What a line search found."""

    accepted: bool
    kl: float  # mean KL(π_old ‖ π_θ) of the parameters it left; 0 when none was accepted
    improvement: float  # of the objective; 0 when none was accepted
    tries: int


@torch.no_grad()
def line_search(
    parameters: Tensor,
    full_step: Tensor,
    evaluate: Callable[[], tuple[Tensor, Tensor]],
    start: float,
    max_kl: float,
    shrink: float = 0.8,
    max_tries: int = 10,
) -> LineSearch:
    """Take the longest of the steps full, shrink · full, shrink² · full, … that keeps the constraint and
    improves.

    Book: eq-line-search. Schulman et al. (2015), appendix C.

    Args:
        parameters: θ, ``[P]``; changed in place, and left as it was to the bit when no step is accepted.
        full_step: the longest step, ``[P]``.
        evaluate: gives the objective and the mean KL(π_old ‖ π_θ) of the present parameters.
        start: the objective before the step.
        max_kl: δ, which an accepted step does not exceed.
        shrink: the factor between two tries, in (0, 1).
        max_tries: how many.
    """
    before = parameters.clone()
    for tried in range(max_tries):
        parameters.copy_(before + shrink**tried * full_step)
        objective, kl = evaluate()
        if kl <= max_kl and objective > start:  # false for NaN, too
            return LineSearch(True, kl.item(), objective.item() - start, tried + 1)
    parameters.copy_(before)
    return LineSearch(False, 0.0, 0.0, max_tries)
