"""One process or several: what the training loops ask of ``accelerate.Accelerator``.

Every process holds the whole model and all outputs of an update. It writes and judges its share of them and
computes its share of each gradient; accelerate averages the shares. Whatever is random is drawn alike by all,
so the update is that of one process with the joint batch. The first process alone writes checkpoints.

``accelerate launch --multi_gpu --num_processes 2 script.py`` starts a script in two processes; in it,
``train(..., accelerator=accelerate.Accelerator())`` is all that changes. On CPUs it is the same command, for
without ``--multi_gpu`` accelerate starts one process there, and ``Accelerator(cpu=True)``.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from os import PathLike
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from policyopt.files import Checkpoint
from policyopt.language.sampling import Samples

__all__ = [
    "Accelerator",
    "OneProcess",
    "SharedCheckpoint",
    "check_accelerator",
    "gather_samples",
    "score_outputs",
    "share",
]


class Accelerator(Protocol):
    """The part of ``accelerate.Accelerator`` that is used."""

    num_processes: int
    process_index: int
    device: torch.device  # this process's; asked for only where there are several

    def prepare(self, *parts: Any) -> Any:
        """The parts, ready for work in parallel; modules have moved to the device, in place."""

    def backward(self, loss: Tensor) -> None:
        """Gradients, averaged over the processes."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes, in their order."""


class OneProcess:
    """Stands in for an accelerator where there is only one process; the model stays where it is."""

    num_processes, process_index = 1, 0

    def prepare(self, *parts: Any) -> Any:
        """The parts as they are."""
        return parts if len(parts) > 1 else parts[0]

    def backward(self, loss: Tensor) -> None:
        """Gradients."""
        loss.backward()

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor as it is."""
        return tensor


def check_accelerator(accelerator: Accelerator | None, config: Any) -> Accelerator:
    """The accelerator, if training can be shared through it; ``OneProcess`` for None.

    Args:
        accelerator: of this process.
        config: ``num_prompts`` and ``minibatch_size``, the prompts that are shared out.

    Raises:
        ValueError: it knows only one of several processes; it scales gradients (``mixed_precision="fp16"``,
            ``gradient_accumulation_steps``), or cuts the model to pieces (FSDP, DeepSpeed, Megatron-LM), the
            message saying what to do instead; or the prompts of a batch or minibatch cannot be shared evenly.
    """
    if accelerator is None:
        return OneProcess()
    started = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes == 1 and started > 1:
        raise ValueError(
            f"{started} processes were started, but the accelerator knows of one and each would train alone; "
            "on CPUs it must be Accelerator(cpu=True)"
        )
    steps = getattr(accelerator, "gradient_accumulation_steps", 1)
    if steps != 1:
        raise ValueError(
            f"the accelerator's gradient_accumulation_steps is {steps}; it must be 1: "
            "micro_batch_size in the settings computes a gradient in parts"
        )
    if getattr(accelerator, "scaler", None) is not None:
        raise ValueError(
            "the accelerator's mixed_precision is 'fp16', whose gradients are scaled; "
            "it must be 'no' or 'bf16'"
        )
    kind = getattr(accelerator, "distributed_type", "NO")
    kind = getattr(kind, "value", kind)
    if kind != "NO" and not kind.startswith("MULTI_"):
        raise ValueError(
            f"the accelerator's distributed_type is {kind}; here every process holds the whole model "
            "(MULTI_CPU, MULTI_GPU); one that must be cut to pieces can be trained by TRL: "
            "policyopt.language.trl_bridge hands it the task"
        )
    share(config.num_prompts, accelerator, "num_prompts")
    share(min(config.minibatch_size, config.num_prompts), accelerator, "minibatch_size")
    return accelerator


def share(count: int, accelerator: Accelerator, what: str) -> slice:
    """Which of ``count`` rows are this process's.

    Raises:
        ValueError: the rows cannot be shared evenly; ``what`` says what is shared.
    """
    size, rest = divmod(count, accelerator.num_processes)
    if rest:
        raise ValueError(
            f"{what} is {count}; it must be a multiple of the {accelerator.num_processes} processes"
        )
    return slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)


def gather_samples(
    samples: Samples, prompts: Tensor, prompt_mask: Tensor, limit: int, accelerator: Accelerator
) -> Samples:
    """The outputs of all processes together.

    Args:
        samples: this process's, ``[Q/N, G, T]`` with T ≤ limit.
        prompts: of all processes, ``[Q, P]``.
        prompt_mask: of all processes, ``[Q, P]``.
        limit: the most tokens an output can have.
        accelerator: joins them.

    Returns:
        All outputs, ``[Q, G, T]`` with T the longest one's length.
    """
    if accelerator.num_processes == 1:
        return samples
    missing = limit - samples.tokens.shape[-1]
    columns = (samples.tokens, samples.mask, samples.log_probs)
    tokens, mask, log_probs = (
        accelerator.gather(nn.functional.pad(column, (0, missing)).contiguous()) for column in columns
    )
    longest = int(mask.sum(dim=-1).max())
    return Samples(prompts, prompt_mask, *(column[..., :longest] for column in (tokens, mask, log_probs)))


@torch.no_grad()
def score_outputs(
    scorer: Callable[[Samples], Tensor],
    samples: Samples,
    micro_batch_size: int | None,
    accelerator: Accelerator,
) -> Tensor:
    """What a model says of outputs, each process asking for its share of the prompts; without gradient.

    Args:
        scorer: from Q prompts with their outputs to ``[Q, ...]``, such as a ``TokenScorer``.
        samples: of all processes.
        micro_batch_size: prompts at a time; None: all.
        accelerator: joins the shares.

    Returns:
        That of all outputs, ``[Q, ...]``.
    """
    mine = samples[share(len(samples), accelerator, "the number of prompts")]
    size = micro_batch_size or len(mine)
    scores = [scorer(mine[start : start + size]) for start in range(0, len(mine), size)]
    return accelerator.gather(torch.cat(scores).contiguous())


def gather_numbers(value: float, accelerator: Accelerator) -> list[float]:
    """A number of each process, in their order; all have come here when it returns."""
    if accelerator.num_processes == 1:
        return [value]
    return accelerator.gather(torch.tensor([value], dtype=torch.double, device=accelerator.device)).tolist()


class SharedCheckpoint(Checkpoint):
    """A checkpoint of a run in several processes: the first one writes it, all read it.

    It does not say how many processes wrote it, so that a run can go on with another number of them.

    Args:
        path, every, run, parts: as for ``policyopt.files.Checkpoint``. What ``run`` says (task, settings,
            seed, fingerprints of models) must be what it says in the other processes.
        accelerator: of this process.

    Raises:
        ValueError: the processes are not about to make the same run; otherwise as for ``Checkpoint``.
        OSError: no file can be written there.
    """

    def __init__(
        self,
        path: str | PathLike | None,
        every: int,
        run: dict[str, Any],
        parts: dict[str, Any],
        accelerator: Accelerator,
    ):
        super().__init__(path, every, run, parts)
        self.accelerator = accelerator
        for key, value in run.items():
            number = value if isinstance(value, int | float) else zlib.crc32(repr(value).encode())
            numbers = gather_numbers(number, accelerator)
            for i, other in enumerate(numbers[1:], start=1):
                alike = math.isclose(other, numbers[0], rel_tol=1e-6)
                if not alike and not (math.isnan(other) and math.isnan(numbers[0])):
                    raise ValueError(
                        f"process {i} begins with another {key} than process 0 (this one's is {value!r}); "
                        "all must begin alike"
                    )

    def restore(self) -> int:
        """Load the file, if there is one; the number of updates it has behind it.

        Raises:
            ValueError: as for ``Checkpoint``, or not all processes see the same file.
        """
        starts = gather_numbers(super().restore(), self.accelerator)
        for i, start in enumerate(starts):
            if start != starts[0]:
                raise ValueError(
                    f"{self.path} has {start:.0f} updates behind it for process {i} and {starts[0]:.0f} for "
                    "process 0; it must be on a disk that all of them see"
                )
        return int(starts[0])

    def save(self, updates: int) -> None:
        """Write the file in the first process; the others go on when it is there.

        Raises:
            OSError: it could not be written; the first process says why.
        """
        if self.path is None:
            return
        failure = None
        if self.accelerator.process_index == 0:
            try:
                super().save(updates)
            except OSError as error:
                failure = error
        failures = gather_numbers(float(failure is not None), self.accelerator)
        if failure is not None:
            raise failure
        if failures[0]:
            raise OSError(f"process 0 could not write {self.path}; its own error says why")
