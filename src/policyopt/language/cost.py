"""What the critic costs: memory and arithmetic of an update of PPO and of GRPO, measured and reckoned.

PPO trains two models, the policy and the value model, and may hold two frozen ones, the reference π_ref and a
reward model (Ouyang et al., 2022, arXiv:2203.02155, section 3.5). GRPO does without the value model (Shao et
al., 2024, arXiv:2402.03300, section 4.1.1). With β = 0 neither needs a reference, and a reward that a program
can check needs no reward model.

What is measured are real updates of ``policyopt.language.grpo`` and ``policyopt.language.ppo``. Bytes that
stay from update to update are those of the storages of weights, gradients and optimiser state. Bytes that
come and go are the peak of what is allocated beyond them: on a GPU the allocator's own, on a CPU that of the
storages which torch's operations make and give back. FLOPs are those of ``torch.utils.flop_counter``: matrix
products and attention, a multiplication with its addition counting as two.

The arithmetic beside it: with weights, gradients and Adam's two moments in float32 a trained parameter takes
4 + 4 + 8 = 16 bytes, a frozen one 4, or 2 in half precision. A token costs 2N FLOPs forward and 4N backward
(Kaplan et al., 2020, arXiv:2001.08361, section 2.1), where N counts the weights it is multiplied by;
attention comes on top of that.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import random
import string
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from policyopt.language import grpo, ppo
from policyopt.language.model import LanguageModel, Transformer, TransformerConfig
from policyopt.language.reward_model import LearnedReward
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.tasks import Problem, Task
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.training import memory_errors
from policyopt.settings import check_fields

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SETTINGS_COMPARED",
    "SIZES",
    "Comparison",
    "Costs",
    "Flops",
    "Kept",
    "Load",
    "Usage",
    "compare",
    "cost_tables",
    "kept_bytes",
    "measure_flops",
    "measure_memory",
    "print_costs",
    "tabulate",
]

SIZES: dict[str, TransformerConfig] = {  # by their number of parameters
    "0.1M": TransformerConfig(layers=2, width=64, heads=4, hidden=172),
    "3M": TransformerConfig(layers=4, width=256, heads=4, hidden=688),
    "30M": TransformerConfig(layers=10, width=512, heads=8, hidden=1376),
}

SETTINGS_COMPARED: dict[str, tuple[str, ...]] = {  # which frozen models there are
    "no frozen model": (),
    "a reference": ("reference",),
    "a reward model": ("reward model",),
    "both": ("reference", "reward model"),
}

ONE_OUTPUT = "PPO, 1 output a prompt"  # as many prompts as GRPO, but not as many outputs
HALF = 0.05  # a saving this near to one half is called one half


# Memory


class Kept(NamedTuple):
    """Bytes that a model keeps from update to update."""

    weights: int  # parameters and buffers
    gradients: int
    optimizer: int  # Adam's moments and step counters

    @property
    def total(self) -> int:
        """All three."""
        return sum(self)


def kept_bytes(
    models: Mapping[str, nn.Module], optimizers: Iterable[Optimizer] = (), seen: set[int] | None = None
) -> dict[str, Kept]:
    """What models keep, read off their tensors; a storage that several share counts once, for the first.

    Args:
        models: by name.
        optimizers: those that train them.
        seen: storages already counted, which this function adds to; none when None.

    Returns:
        Bytes by model.
    """
    seen, optimizers = set() if seen is None else seen, list(optimizers)

    def count(tensors: Iterable[Tensor | None]) -> int:
        total = 0
        for tensor in tensors:
            if tensor is not None and (storage := tensor.untyped_storage())._cdata not in seen:
                seen.add(storage._cdata)
                total += storage.nbytes()
        return total

    def state(parameters: Iterable[nn.Parameter]) -> Iterator[Tensor]:
        for parameter in parameters:
            for optimizer in optimizers:
                values = optimizer.state.get(parameter, {}).values()
                yield from (value for value in values if isinstance(value, Tensor))

    return {
        name: Kept(
            weights=count([*model.parameters(), *model.buffers()]),
            gradients=count(parameter.grad for parameter in model.parameters()),
            optimizer=count(state(model.parameters())),
        )
        for name, model in models.items()
    }


class Usage(NamedTuple):
    """Memory that updates took, in bytes."""

    kept: dict[str, Kept]  # by model, after the last update
    peaks: dict[str, int]  # by phase, the most that was allocated beyond what is kept
    saved: int  # the most that was held for backward passes at one time, parameters not counted

    @property
    def peak(self) -> int:
        """The most that was allocated beyond what is kept, in any phase."""
        return max(self.peaks.values())


def _tensors(values: object) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


class _CPUStorages(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are given back.

    What a kernel allocates for itself and frees before it returns is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, weakref.ref] = {}  # by address
        self._now = self._peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            if (storage := tensor.untyped_storage())._cdata not in given:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or size == 0:
            return

        def freed(_: weakref.ref) -> None:
            if self._alive.pop(key, None) is not None:
                self._now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self._now += size
        self._peak = max(self._peak, self._now)

    def take_peak(self) -> int:
        """The peak since the last call, in bytes above what there was at the beginning."""
        peak, self._peak = self._peak, self._now
        return peak


class _CUDAStorages:
    """The same, asked of the CUDA allocator, which rounds every storage up to 512 bytes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> _CUDAStorages:
        gc.collect()  # so that nothing of before is given back in between
        torch.cuda.reset_peak_memory_stats(self._device)
        self._start = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *error) -> None:
        pass

    def take_peak(self) -> int:
        """As for the CPU."""
        peak = torch.cuda.max_memory_allocated(self._device) - self._start
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak


class _Saved:
    """Counts the bytes of tensors that autograd holds for backward passes; a storage counts once."""

    def __init__(self, ignored: set[int]) -> None:
        self._ignored, self._holders = ignored, Counter()  # both by storage
        self._now = self.peak = 0

    def pack(self, tensor: Tensor) -> _Held:
        """What autograd keeps in a tensor's place."""
        return _Held(self, tensor)

    def hold(self, storage: torch.UntypedStorage, change: int) -> None:
        """One holder of a storage more, or less."""
        key = storage._cdata
        if key in self._ignored:
            return
        self._holders[key] += change
        if self._holders[key] == max(change, 0):  # the first came or the last went
            self._now += change * storage.nbytes()
            self.peak = max(self.peak, self._now)


class _Held:
    """A saved tensor, for as long as it is saved."""

    def __init__(self, owner: _Saved, tensor: Tensor) -> None:
        self.owner, self.tensor = owner, tensor
        owner.hold(tensor.untyped_storage(), 1)

    def __del__(self) -> None:
        self.owner.hold(self.tensor.untyped_storage(), -1)


def phase_name(model: str, grad: bool) -> str:
    """What a model does with and without gradients."""
    if model == "policy":
        return "policy: steps" if grad else "policy: sampling"
    return f"{model}: steps" if grad else f"{model}: reading"


@contextlib.contextmanager
def _phases(models: Mapping[str, nn.Module], enter: Callable[[str], None]) -> Iterator[None]:
    """Calls ``enter`` with the phase whenever a part of a model begins its work, forward or backward."""
    handles = []
    try:
        for name, model in models.items():

            def begins(*_, name: str = name) -> None:
                enter(phase_name(name, torch.is_grad_enabled()))

            def ends(*call, name: str = name) -> None:  # where it ends, its backward pass begins
                for output in _tensors(call[-1]):
                    if output.grad_fn is not None:
                        output.grad_fn.register_prehook(lambda *_: enter(phase_name(name, True)))

            for module in model.modules():
                handles += [module.register_forward_pre_hook(begins), module.register_forward_hook(ends)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure_memory(
    run: Callable[[], object], models: Mapping[str, nn.Module], device: str | torch.device = "cpu"
) -> Usage:
    """The memory that updates take.

    The first step makes gradients and optimiser state, so let there be two updates: from the second on all
    phases stand on what is kept, and the peaks of the two are those of the second.

    Args:
        run: does the updates, with optimisers of its own.
        models: those that take part, by name; ``"policy"`` is the one that writes.
        device: where they are.

    Returns:
        What they took.

    Raises:
        ValueError: no such device, or it is not available.
    """
    device = check_device(device)
    optimizers: dict[int, Optimizer] = {}
    peaks: dict[str, int] = defaultdict(int)
    now = ["elsewhere"]

    def enter(phase: str) -> None:
        if phase != now[0]:
            peaks[now[0]] = max(peaks[now[0]], storages.take_peak())
            now[0] = phase

    known: set[int] = set()
    before = sum(part.total for part in kept_bytes(models, seen=known).values())
    storages = _CPUStorages() if device.type == "cpu" else _CUDAStorages(device)
    saved = _Saved(known)
    hook = register_optimizer_step_post_hook(lambda used, *_: optimizers.setdefault(id(used), used))
    try:
        with (
            _phases(models, enter),
            torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda held: held.tensor),
            storages,
        ):
            run()
    finally:
        hook.remove()
    enter("over")
    kept = kept_bytes(models, optimizers.values())
    made = sum(part.total for part in kept.values()) - before
    return Usage(kept, {phase: max(peak - made, 0) for phase, peak in peaks.items()}, saved.peak)


# FLOPs


def _attention(query: Sequence[int], key: Sequence[int], *_, **__) -> int:
    """FLOPs from the shapes ``[B, H, L, D/H]`` and ``[B, H, S, D/H]``: two products, Q Kᵀ and weights · V."""
    return 4 * math.prod(query) * key[-2]


def _attention_backward(grad: Sequence[int], query: Sequence[int], key: Sequence[int], *_, **__) -> int:
    """Five products, the weights being made anew: Dao et al. (2022), arXiv:2205.14135, algorithm 4."""
    return 10 * math.prod(query) * key[-2]


# The kernels for a CPU, which the counter of torch 2.13 does not know.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Flops(NamedTuple):
    """Floating-point operations."""

    products: int = 0  # of tokens with weights
    attention: int = 0  # of tokens with tokens

    @property
    def total(self) -> int:
        """Both."""
        return sum(self)


def measure_flops(run: Callable[[], object], models: Mapping[str, nn.Module]) -> dict[str, Flops]:
    """The FLOPs of an update by phase, counted operation by operation.

    Attention is counted in full, though a causal mask makes nearly half of it needless.

    Args:
        run: does one update.
        models: those that take part, by name; ``"policy"`` is the one that writes.

    Returns:
        FLOPs by phase; phases without any are left out.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    counts: dict[str, Flops] = defaultdict(Flops)
    now, last = ["elsewhere"], [Flops()]

    def so_far() -> Flops:
        operations = dict(counter.flop_counts["Global"])
        weights = (torch.ops.aten.mm, torch.ops.aten.addmm)
        products = sum(operations.get(name, 0) for name in weights)
        return Flops(products, sum(operations.values()) - products)

    def enter(phase: str) -> None:
        if phase != now[0]:
            total = so_far()
            parts = zip(counts[now[0]], total, last[0], strict=True)
            counts[now[0]] = Flops(*(count + end - start for count, end, start in parts))
            now[0], last[0] = phase, total

    with counter, _phases(models, enter):
        run()
        enter("over")
    return {phase: flops for phase, flops in counts.items() if flops.total}


# The updates that are compared


@dataclass(frozen=True)
class Load:
    """What an update works on. Values out of range raise ``ValueError`` and name the field."""

    num_prompts: int = 2  # Q
    group_size: int = 8  # G, outputs of each
    prompt_tokens: int = 16  # P
    output_tokens: int = 16  # T, of every output
    epochs: int = 1  # E, passes over the outputs
    minibatch_size: int = 2  # prompts, with all their outputs, a gradient step
    micro_batch_size: int | None = None  # prompts at a time in it; None: all

    def __post_init__(self) -> None:
        names = ("num_prompts", "prompt_tokens", "output_tokens", "epochs", "minibatch_size")
        check_fields(self, **dict.fromkeys(names, (int, 1, math.inf)))
        check_fields(self, group_size=(int, 2, math.inf), micro_batch_size=(int, 1, math.inf, "optional"))

    @property
    def outputs(self) -> int:
        """Q · G."""
        return self.num_prompts * self.group_size

    @property
    def tokens_in_flight(self) -> int:
        """Tokens of outputs whose activations are held at one time."""
        at_once = min(self.num_prompts, self.minibatch_size, self.micro_batch_size or self.minibatch_size)
        return at_once * self.group_size * self.output_tokens

    def settings(self, reference: bool) -> dict:
        """Those that the configurations of both algorithms have."""
        names = ("num_prompts", "group_size", "epochs", "minibatch_size", "micro_batch_size")
        # A learning rate this small changes no output, so that all updates do the same work.
        shared = {name: getattr(self, name) for name in names} | {"learning_rate": 1e-8}
        return shared | {"kl_coef": 0.04 if reference else 0.0}


class _EndlessTokenizer(CharTokenizer):
    """Every token is a character and none ends an output, so that all outputs are as long as allowed."""

    end_ids = (-1,)

    def encode_output(self, output: str) -> list[int]:
        return self.encode(output)

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.characters[token % len(self.characters)] for token in tokens)


class _LoadTask(Task):
    """Prompts of one length that have nothing in common; an output is good or bad by its place."""

    name, instruction = "load", "Write anything."
    characters = string.ascii_letters + string.digits

    def __init__(self, load: Load) -> None:
        self.prompt_tokens, self.max_new_tokens = load.prompt_tokens, load.output_tokens
        super().__init__(num_problems=2 * load.num_prompts, held_out=load.num_prompts)

    def draw(self, rng: random.Random, count: int) -> list[Problem]:
        """Every prompt begins with a character of its own, as far as there are enough."""
        firsts = (self.characters[i % len(self.characters)] for i in range(count))
        rests = ("".join(rng.choices(self.characters, k=self.prompt_tokens - 1)) for _ in range(count))
        return [Problem(first + rest, "") for first, rest in zip(firsts, rests, strict=True)]

    def reward(self, problem: Problem, output: str) -> float:
        return float(len(set(output)) % 2)

    def rewards(self, problems: Sequence[Problem], outputs: Sequence[str]) -> list[float]:
        """1 and 0 in turn: a group of equal rewards could be spared its gradient."""
        return [float(i % 2) for i in range(len(outputs))]


def make_models(
    policy: LanguageModel, frozen: Iterable[str] = (), value_model: bool = False
) -> dict[str, nn.Module]:
    """A copy of the policy and, made from it, the models beside it.

    Args:
        policy: any language model; it is not changed.
        frozen: of ``"reference"`` and ``"reward model"``, those there are.
        value_model: whether there is one.
    """
    models = {"policy": copy.deepcopy(policy)}
    models["policy"].tokenizer = _EndlessTokenizer(_LoadTask.characters)
    if value_model:
        models["value model"] = ScalarModel(copy.deepcopy(models["policy"]))
    for name in frozen:
        model = copy.deepcopy(models["policy"])
        # A reward model whose scores differ: a group of equal rewards has no gradient.
        models[name] = ScalarModel(model, scale=0.1) if name == "reward model" else model
        models[name].requires_grad_(False)
    return {name: model.to(next(policy.parameters()).device) for name, model in models.items()}


def make_run(
    models: Mapping[str, nn.Module], load: Load, updates: int, group_size: int | None = None
) -> Callable[[], object]:
    """Updates of PPO if there is a value model, otherwise of GRPO: a function without arguments.

    Args:
        models: from ``make_models``.
        load: of each update.
        updates: how many.
        group_size: outputs of each prompt, if not those of the load.
    """
    task, settings = _LoadTask(load), load.settings("reference" in models) | {"updates": updates}
    settings["group_size"] = group_size or load.group_size
    batch_size = load.group_size * min(load.minibatch_size, load.micro_batch_size or load.minibatch_size)
    judge = LearnedReward(models["reward model"], batch_size) if "reward model" in models else None
    shared = {"reward": judge, "reference": models.get("reference")}
    if "value model" not in models:
        return lambda: grpo.train(models["policy"], task, grpo.GRPOConfig(**settings), **shared)
    config = ppo.PPOConfig(**settings, value_learning_rate=settings["learning_rate"])
    return lambda: ppo.train(models["policy"], task, config, value_model=models["value model"], **shared)


def linear_weights(model: LanguageModel) -> tuple[int, int]:
    """How many weights a token is multiplied by, in all layers but the head, and in the head."""
    head = {id(module) for module in model.head.modules()}
    weights = [0, 0]
    for module in model.modules():
        if isinstance(module, nn.Linear):
            weights[id(module) in head] += module.weight.numel()
    return weights[0], weights[1]


def reckon_flops(policy: LanguageModel, load: Load, outputs_per_prompt: int | None = None) -> dict[str, int]:
    """2N FLOPs a token forward and 4N backward, without attention, by phase.

    A prompt is read once for all its outputs, by the reward model once for each. The policy, its reference
    and the value model need not read the last token of an output.

    Args:
        policy: of its size are all models.
        load: of an update.
        outputs_per_prompt: G, if not that of the load.
    """
    body, head = linear_weights(policy)
    group_size = outputs_per_prompt or load.group_size
    outputs = load.num_prompts * group_size
    read = load.num_prompts * load.prompt_tokens + outputs * (load.output_tokens - 1)
    states = outputs * load.output_tokens
    writing = 2 * (body * read + head * states)
    valuing = 2 * (body * read + policy.width * states)
    judging = 2 * (body * outputs * (load.prompt_tokens + load.output_tokens) + policy.width * outputs)
    return {
        "policy: sampling": writing,
        "policy: steps": 3 * load.epochs * writing,
        "reference: reading": writing,
        "reward model: reading": judging,
        "value model: reading": valuing,
        "value model: steps": 3 * load.epochs * valuing,
    }


class Comparison(NamedTuple):
    """PPO and GRPO on one policy, each with a reference and a reward model."""

    parameters: int  # of the policy
    load: Load
    memory: dict[str, Usage]  # by algorithm
    flops: dict[str, dict[str, Flops]]  # by algorithm, ``ONE_OUTPUT`` among them, and phase
    reckoned_flops: dict[str, dict[str, int]]  # the same, by the arithmetic

    def kept_in(self, algorithm: str, setting: str) -> int:
        """Bytes that the models of a setting keep."""
        return sum(
            kept.total for name, kept in self.memory[algorithm].kept.items() if _part_of(setting, name)
        )

    def peak_in(self, algorithm: str, setting: str) -> int:
        """The most that is allocated beyond them in a phase of that setting."""
        return max(peak for phase, peak in self.memory[algorithm].peaks.items() if _part_of(setting, phase))

    def bytes_in(self, algorithm: str, setting: str) -> int:
        """Both together: the memory that is needed."""
        return self.kept_in(algorithm, setting) + self.peak_in(algorithm, setting)

    def reckoned_bytes_in(self, algorithm: str, setting: str, frozen: int = 4) -> int:
        """16 bytes for each trained parameter and ``frozen`` for each that is not, and nothing else."""
        trained = 2 if algorithm == "PPO" else 1
        return self.parameters * (16 * trained + frozen * len(SETTINGS_COMPARED[setting]))

    def flops_in(self, algorithm: str, setting: str) -> int:
        """FLOPs of an update in a setting."""
        phases = self.flops[algorithm].items()
        return sum(flops.total for phase, flops in phases if _part_of(setting, phase))

    def reckoned_flops_in(self, algorithm: str, setting: str) -> int:
        """The same by the arithmetic."""
        phases = self.reckoned_flops[algorithm].items()
        return sum(flops for phase, flops in phases if _part_of(setting, phase))


def _part_of(setting: str, name: str) -> bool:
    """Whether a model, or a phase that begins with its name, is there in a setting."""
    model = name.split(":")[0]
    return model not in ("reference", "reward model") or model in SETTINGS_COMPARED[setting]


def compare(policy: LanguageModel, load: Load = Load()) -> Comparison:
    """Measure PPO and GRPO on one policy, with the same prompts, outputs, tokens and micro-batches.

    Both have a reference and a reward model; what either costs is known apart, so that a setting without it
    follows.

    Args:
        policy: any language model all of whose parameters are trained, on the device where it is to be
            measured. It is not changed.
        load: of an update.

    Raises:
        ValueError: prompt and output are longer than the model's context; a parameter is frozen.
        MemoryError: the models with their optimisers do not fit.
    """
    length = load.prompt_tokens + load.output_tokens
    if length > policy.context:
        raise ValueError(
            f"prompt_tokens and output_tokens are {length} together; the model's context is {policy.context}"
        )
    if not all(parameter.requires_grad for parameter in policy.parameters()):
        raise ValueError("the policy has frozen parameters; the comparison is of models trained as a whole")
    device = next(policy.parameters()).device
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    memory, flops = {}, {}
    for algorithm in ("PPO", "GRPO"):
        with memory_errors(f"measuring {algorithm} with a policy of {parameters:,} parameters"):
            models = make_models(policy, ("reference", "reward model"), algorithm == "PPO")
            memory[algorithm] = measure_memory(make_run(models, load, updates=2), models, device)
            flops[algorithm] = measure_flops(make_run(models, load, updates=1), models)
            if algorithm == "PPO":
                flops[ONE_OUTPUT] = measure_flops(make_run(models, load, updates=1, group_size=1), models)
            del models
    reckoned = reckon_flops(policy, load)
    return Comparison(
        parameters=parameters,
        load=load,
        memory=memory,
        flops=flops,
        reckoned_flops={
            "PPO": reckoned,
            "GRPO": {phase: n for phase, n in reckoned.items() if not phase.startswith("value")},
            ONE_OUTPUT: reckon_flops(policy, load, outputs_per_prompt=1),
        },
    )


# Tables


class Costs(NamedTuple):
    """What the comparisons say."""

    memory: pd.DataFrame  # bytes: a row for each part and size
    compute: pd.DataFrame  # FLOPs of an update: a row for each phase and size
    verdict: list[str]  # what becomes of "half", in sentences made from the numbers
    comparisons: list[Comparison]


def check_device(device: str | torch.device) -> torch.device:
    """The device, if it is the CPU or a CUDA GPU that is there.

    Raises:
        ValueError: it is not.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {str(device)!r}; memory can be measured on 'cpu' and on 'cuda'")
    if found.type == "cuda" and not (found.index or 0) < torch.cuda.device_count():
        raise ValueError(f"device is {str(device)!r}, which torch does not find here; 'cpu' always works")
    return found


def _comparisons(
    sizes: Sequence[str | LanguageModel], device: str | torch.device, load: Load
) -> Iterator[Comparison]:
    """One for each size, as it is measured; all arguments are checked before the first."""
    device = check_device(device)
    if not sizes or isinstance(sizes, str):
        raise ValueError(f"sizes is {sizes!r}; it must be a list with some of {', '.join(SIZES)}")
    for size in sizes:
        if isinstance(size, str) and size not in SIZES:
            raise ValueError(f"there is no size {size!r}; there are {', '.join(SIZES)}")
    for size in sizes:
        if isinstance(size, str):
            size = Transformer(_EndlessTokenizer(_LoadTask.characters), SIZES[size])
        yield compare(size.to(device), load)


def saved(with_critic: float, without: float) -> float:
    """The share that doing without saves; negative where that takes more."""
    return 1 - without / with_critic


def _row(comparison: Comparison, part: str, measured: Sequence[float], reckoned: Sequence[float]) -> dict:
    row = {"parameters": comparison.parameters, "part": part}
    for prefix, (with_critic, without) in (("", measured), ("reckoned_", reckoned)):
        row |= {prefix + "ppo": with_critic, prefix + "grpo": without}
        row |= {prefix + "ratio": with_critic / without if without else math.inf}
        row |= {prefix + "saved": saved(with_critic, without)}
    return row


def _memory_rows(comparison: Comparison) -> Iterator[dict]:
    first, second = comparison.memory["PPO"], comparison.memory["GRPO"]
    size, unknown = 4 * comparison.parameters, (math.nan, math.nan)
    for name, kept in first.kept.items():
        other = second.kept.get(name, Kept(0, 0, 0))
        for part, *measured in zip(Kept._fields, kept, other, strict=True):
            if measured[0]:
                reckoned = 2 * size if part == "optimizer" else size
                both = (reckoned, reckoned if name in second.kept else 0)
                yield _row(comparison, f"{name}: {part}", measured, both)
    yield _row(comparison, "peak beyond these", (first.peak, second.peak), unknown)
    yield _row(comparison, "… saved for backward", (first.saved, second.saved), unknown)
    for setting in SETTINGS_COMPARED:
        measured = [comparison.bytes_in(algorithm, setting) for algorithm in ("PPO", "GRPO")]
        reckoned = [comparison.reckoned_bytes_in(algorithm, setting) for algorithm in ("PPO", "GRPO")]
        yield _row(comparison, f"all, {setting}", measured, reckoned)


def _compute_rows(comparison: Comparison) -> Iterator[dict]:
    flops, reckoned = comparison.flops, comparison.reckoned_flops
    for phase, mine in flops["PPO"].items():
        measured = (mine.total, flops["GRPO"].get(phase, Flops()).total)
        by_hand = (reckoned["PPO"][phase], reckoned["GRPO"].get(phase, 0))
        yield _row(comparison, phase, measured, by_hand) | {"attention": mine.attention / mine.total}
    for first, label in (("PPO", "all"), (ONE_OUTPUT, f"1 to {comparison.load.group_size} outputs")):
        attention = sum(part.attention for part in flops[first].values())
        share = attention / sum(part.total for part in flops[first].values())
        for setting in SETTINGS_COMPARED:
            measured = [comparison.flops_in(algorithm, setting) for algorithm in (first, "GRPO")]
            by_hand = [comparison.reckoned_flops_in(algorithm, setting) for algorithm in (first, "GRPO")]
            row = _row(comparison, f"{label}, {setting}", measured, by_hand)
            yield row | {"attention": share if setting == "both" else math.nan}


def tabulate(comparisons: Sequence[Comparison]) -> Costs:
    """Comparisons at several sizes as tables, and what they say about "half".

    Returns:
        Frames with the columns ``parameters`` (of the policy), ``part``, ``ppo``, ``grpo``, ``ratio`` (PPO to
        GRPO), ``saved`` (1 − GRPO/PPO), and the same by arithmetic, ``reckoned_…``. Bytes in the first; FLOPs
        of an update in the second, which also has ``attention``, its share of PPO's.
    """
    import pandas as pd

    return Costs(
        memory=pd.DataFrame([row for comparison in comparisons for row in _memory_rows(comparison)]),
        compute=pd.DataFrame([row for comparison in comparisons for row in _compute_rows(comparison)]),
        verdict=_verdict(comparisons),
        comparisons=list(comparisons),
    )


def _percent(shares: Iterable[float]) -> str:
    ordered = sorted(round(100 * share) for share in shares)
    low, high = ordered[0], ordered[-1]
    return f"{low} %" if low == high else f"{low} to {high} %"


def _savings(share: Callable[[Comparison, str], float], comparisons: Sequence[Comparison]) -> str:
    """What is saved in each setting, and in which of them that is one half."""
    found = {setting: [share(one, setting) for one in comparisons] for setting in SETTINGS_COMPARED}
    listed = ", ".join(f"{_percent(shares)} with {setting}" for setting, shares in found.items())
    near = [s for s, shares in found.items() if all(abs(part - 0.5) <= HALF for part in shares)]
    count = "every size" if len(comparisons) > 1 else "this size"
    where = ", ".join(f"with {setting}" for setting in near) or "in no setting"
    return f"{listed}. Within {100 * HALF:.0f} points of one half at {count}: {where}."


def _verdict(comparisons: Sequence[Comparison]) -> list[str]:
    """What becomes of "half"."""
    both = ("PPO", "GRPO")
    last, load = comparisons[-1], comparisons[-1].load

    def memory(comparison: Comparison, setting: str) -> float:
        return saved(*(comparison.bytes_in(algorithm, setting) for algorithm in both))

    def memory_in_turn(comparison: Comparison, setting: str) -> float:
        peak = comparison.peak_in("GRPO", setting)
        return saved(*(comparison.kept_in(algorithm, setting) + peak for algorithm in both))

    def reckoned_memory(frozen: int) -> str:
        shares = (
            saved(*(last.reckoned_bytes_in(algorithm, setting, frozen) for algorithm in both))
            for setting in SETTINGS_COMPARED
        )
        return ", ".join(_percent([share]) for share in shares)

    def compute(comparison: Comparison, setting: str) -> float:
        return saved(*(comparison.flops_in(algorithm, setting) for algorithm in both))

    peaks = [saved(*(comparison.memory[algorithm].peak for algorithm in both)) for comparison in comparisons]
    times = [
        comparison.flops_in("GRPO", setting) / comparison.flops_in(ONE_OUTPUT, setting)
        for comparison in comparisons
        for setting in SETTINGS_COMPARED
    ]
    return [
        f"Memory: GRPO saves {_savings(memory, comparisons)}",
        f"By arithmetic, in that order: {reckoned_memory(4)}; with frozen models in 2 bytes a parameter: "
        f"{reckoned_memory(2)}.",
        f"Of what comes and goes it saves {_percent(peaks)}, with {load.tokens_in_flight} tokens of outputs "
        "in flight: policy and value model go backward together. Were it one after the other, with GRPO's "
        f"peak for both, GRPO would save {_savings(memory_in_turn, comparisons)}",
        f"Compute, as many outputs for both: GRPO saves {_savings(compute, comparisons)}",
        f"Compute, as many prompts for both, of {load.prompt_tokens} tokens, with {load.group_size} outputs "
        f"of {load.output_tokens} tokens for GRPO and 1 for PPO: GRPO takes {min(times):.1f} to "
        f"{max(times):.1f} times PPO's.",
    ]


def cost_tables(
    sizes: Sequence[str | LanguageModel] = tuple(SIZES),
    device: str | torch.device = "cpu",
    load: Load = Load(),
) -> Costs:
    """Measure PPO and GRPO at several sizes: ``compare`` for each, then ``tabulate``.

    Args:
        sizes: names in ``SIZES``, or language models of one's own, from the smallest to the largest.
        device: ``"cpu"`` or ``"cuda"``; models of one's own are moved there.
        load: what an update works on.

    Raises:
        ValueError: no size, an unknown one, or a device that is not there; a load longer than the context.
        MemoryError: the models do not fit.
    """
    return tabulate(list(_comparisons(sizes, device, load)))


def _block(table: pd.DataFrame, title: str, unit: float) -> str:
    """The rows of one size as text."""

    def number(value: float) -> str:
        digits = 2 if value >= unit else 4
        return "" if math.isnan(value) else f"{value / unit:,.{digits}f}" if value else "–"

    def ratio(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.2f}" if math.isfinite(value) else "–"

    def share(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.0%}"

    columns = {}
    for prefix in ("", "reckoned_"):
        columns |= {prefix + "ppo": ("PPO", number), prefix + "grpo": ("GRPO", number)}
        columns |= {prefix + "ratio": ("PPO:GRPO", ratio)}
    if "attention" in table:
        columns["attention"] = ("attention", share)
    rows = [[title, *(head for head, _ in columns.values())]]
    for _, row in table.iterrows():
        rows.append([row["part"], *(write(row[name]) for name, (_, write) in columns.items())])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    first, *others = (" " * width for width in widths)
    lines = ["  ".join([first, "measured".ljust(sum(map(len, others[:3])) + 4), "by arithmetic"])]
    for label, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([label.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)


def print_costs(
    sizes: Sequence[str | LanguageModel] = tuple(SIZES),
    device: str | torch.device = "cpu",
    load: Load = Load(),
) -> Costs:
    """Measure as ``cost_tables`` does and print each size as soon as it is done; arguments, result and errors
    as there.
    """
    comparisons = []
    for comparison in _comparisons(sizes, device, load):
        if not comparisons:
            print(
                f"An update: {load.num_prompts} prompts of {load.prompt_tokens} tokens, {load.group_size} "
                f"outputs of each, of {load.output_tokens} tokens; epochs: {load.epochs}; device: {device}.\n"
                f"“1 to {load.group_size} outputs”: as many prompts for both, 1 output of each for PPO."
            )
        comparisons.append(comparison)
        costs = tabulate([comparison])
        print(f"\n{comparison.parameters:,} parameters\n")
        print(_block(costs.memory, "memory, MB (10⁶ bytes)", 1e6), end="\n\n")
        print(_block(costs.compute, "compute, GFLOP (10⁹) an update", 1e9), flush=True)
    costs = tabulate(comparisons)
    print("", *costs.verdict, sep="\n")
    return costs
