"""What every training loop needs: schedules, gradient steps, the numbers of its updates, progress."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from policyopt.files import Checkpoint
from policyopt.history import History
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch

__all__ = [
    "apply_gradients",
    "due_gradient_step",
    "fit_values",
    "flatten_parameters",
    "gradient_step",
    "linear_schedule",
    "make_adam",
    "mean_metrics",
    "polyak_update",
    "progress_bar",
    "set_learning_rate",
    "single_thread",
    "steps_of_updates",
    "updates",
    "updates_within",
    "zero_gradients",
]


def linear_schedule(start: float, end: float | None, progress: float) -> float:
    """A value that moves from ``start`` to ``end`` in a straight line as ``progress`` goes from 0 to 1;
    constant when ``end`` is None.
    """
    return start if end is None else start + (end - start) * progress


def gradient_step(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    max_grad_norm: float = math.inf,
    inputs: Iterable[Tensor] | None = None,
) -> Tensor:
    """Minimise ``loss`` by one step, the gradient's norm clipped to ``max_grad_norm``.

    Args:
        optimizer: of the parameters to be moved.
        loss: a scalar.
        max_grad_norm: the norm at most; there is no limit when it is infinite.
        inputs: the parameters with regard to which the gradient is taken, where the loss depends on others,
            too, that are to be left alone; all when None.

    Returns:
        The norm before clipping, a scalar.

    Raises:
        FloatingPointError: the gradient is not finite; the parameters are left as they were.
    """
    zero_gradients(optimizer)
    loss.backward(inputs=None if inputs is None else list(inputs))
    return apply_gradients(optimizer, loss, max_grad_norm)


def zero_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Forget the gradients of the step before; they stay where they are, for some are views of others."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.zero_()


def apply_gradients(optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float) -> Tensor:
    """The second half of ``gradient_step``, once the gradients of ``loss`` are there."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"the gradient's norm is {norm.item()} (loss {loss.item():.6g}): training has diverged; "
            "a smaller learning_rate or max_grad_norm usually helps"
        )
    # As torch.nn.utils.clip_grad_norm_ has it, without its overhead, a tenth of a step with small networks.
    if norm > max_grad_norm:
        for gradient in gradients:
            gradient.mul_(max_grad_norm / (norm + 1e-6))
    optimizer.step()
    return norm


def fit_values(
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    epochs: int,
    minibatch_size: int,
    generator: torch.Generator,
) -> float:
    """Fit V_φ(s) to the targets of a batch by least squares, in several epochs of minibatch steps.

    Book: eq-value-loss.

    Returns:
        The mean loss over the steps.
    """
    rows = []
    for _ in range(epochs):
        for part in batch.minibatches(minibatch_size, generator):
            loss = (agent.value(part.obs) - part.value_targets).square().mean()
            gradient_step(optimizer, loss, math.inf)
            rows.append({"value_loss": loss.detach()})
    return mean_metrics(rows)["value_loss"]


def flatten_parameters(parameters: Iterable[nn.Parameter]) -> nn.Parameter:
    """Move parameters into one vector; they and their gradients become views of it.

    An optimiser given the vector does in one operation what it would else do for each small tensor in turn;
    the arithmetic is the same. Call it once, before the optimiser is made, and never reset the gradients to
    None.

    Returns:
        The vector, ``[P]``.
    """
    parameters = list(parameters)
    flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    parts = zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True)
    for parameter, values, gradient in parts:
        parameter.data, parameter.grad = values.view_as(parameter), gradient.view_as(parameter)
    return flat


@torch.no_grad()
def polyak_update(target: Tensor, online: Tensor, tau: float) -> None:
    """Move parameters of a target network towards those that are trained, θ' ← τ θ + (1 − τ) θ'.

    Book: eq-polyak. Lillicrap et al. (2016), arXiv:1509.02971, algorithm 1.

    Args:
        target: θ', changed in place; a vector of ``flatten_parameters``, for one.
        online: θ, of the same shape.
        tau: τ; 1 copies θ.
    """
    target.lerp_(online, tau)


def make_adam(parameters: nn.Parameter | Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam over one vector of ``flatten_parameters``, or over parameters that are moved into one; ε = 1e-5,
    as in OpenAI's baselines.
    """
    vector = parameters if isinstance(parameters, nn.Parameter) else flatten_parameters(parameters)
    return torch.optim.Adam([vector], learning_rate, eps=1e-5, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def mean_metrics(rows: list[dict[str, Tensor]]) -> dict[str, float]:
    """The mean of each metric over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: torch.stack([row[name] for row in rows if name in row]).mean().item() for name in names}


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: networks this small lose more to hand-overs than they
    gain.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def updates(
    total: int,
    history: History,
    checkpoint: "Checkpoint",
    progress: bool = False,
    shown: str = "episode_return",
) -> Iterator[int]:
    """The numbers 0 … total − 1 of a run's updates, with checkpoints and a progress bar when asked for.

    With a checkpoint the numbers start where its file left off, and the file is written after every
    ``checkpoint.every`` updates and after the last. The bar shows the newest value of the column ``shown`` of
    ``history``.
    """
    start = checkpoint.restore()
    with progress_bar(progress, total, start, "update", history, shown) as advance_to:
        for update in range(start, total):
            yield update
            checkpoint.after(update + 1, last=update + 1 == total)
            advance_to(update + 1)


def updates_within(
    total_steps: int, history: History, checkpoint: "Checkpoint", progress: bool = False
) -> Iterator[int]:
    """The numbers 0, 1, … of a run's updates while the newest ``step`` of ``history`` is below
    ``total_steps``: for updates that differ in how many steps they take. Otherwise like ``updates``.
    """
    start = checkpoint.restore()
    with progress_bar(progress, total_steps, history.last.get("step", 0), "step", history) as advance_to:
        for update in itertools.count(start):
            if history.last.get("step", 0) >= total_steps:
                return
            yield update
            checkpoint.after(update + 1, last=history.last["step"] >= total_steps)
            advance_to(history.last["step"])


def steps_of_updates(
    total_steps: int, log_steps: int, history: History, checkpoint: "Checkpoint", progress: bool = False
) -> Iterator[range]:
    """The numbers of the environment steps of each update, 0 … total_steps − 1 in all: for algorithms that
    play single steps and learn between them. An update has ``log_steps`` of them, the last one what is left.
    Otherwise like ``updates``.
    """
    for update in updates(math.ceil(total_steps / log_steps), history, checkpoint, progress):
        yield range(update * log_steps, min((update + 1) * log_steps, total_steps))


def due_gradient_step(steps_taken: int, learning_starts: int, train_every: int) -> int:
    """The number of the gradient step that is due after so many environment steps, counted from 1; 0 when
    none is: one is due after ``learning_starts`` steps, and after every ``train_every`` more.
    """
    since = steps_taken - learning_starts
    return 0 if since < 0 or since % train_every else since // train_every + 1


@contextlib.contextmanager
def progress_bar(
    show: bool, total: int, start: int, unit: str, history: History, shown: str = "episode_return"
) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal or in the notebook, or nothing; gives the function that moves it to a number.

    It shows the newest value of the column ``shown`` of ``history``.
    """
    label = shown.removeprefix("episode_").replace("_", " ")
    if not show:
        yield lambda done: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=start, unit=unit, dynamic_ncols=True) as bar:

        def advance_to(done: int) -> None:
            value = history.last.get(shown, math.nan)
            bar.set_postfix_str(f"{label} {value:.3g}", refresh=False)
            bar.update(done - bar.n)

        yield advance_to
