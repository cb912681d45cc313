"""Runs of the language laboratory, for the harness of studies.

Each function has the form ``(task, config, seed)``: the task stands where a study has its environment, by the
name of its recipe. Every run begins with a model after supervised fine-tuning, which the seed alone decides,
so that runs of one seed begin alike. What a run gives is judged by outputs for problems that were held out.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import policyopt
from policyopt.files import save_file
from policyopt.history import History
from policyopt.language import cost, grpo, ppo, reward_model
from policyopt.language.grpo import GRPOConfig
from policyopt.language.model import LanguageModel, Transformer
from policyopt.language.ppo import PPOConfig
from policyopt.language.recipes import RECIPES, Recipe, fine_tuned
from policyopt.language.reward_model import RewardModelConfig
from policyopt.language.run import greedy_outputs
from policyopt.language.sampling import Samples, encode_prompts, generate, read_states, token_noise
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.sft import SFTConfig
from policyopt.language.style import Style, Watched, taste_rewards
from policyopt.language.tasks import Problem, RewardFunction, SortDigits, Task
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.training import update_generator
from policyopt.language.variants import VARIANTS, Variant, asymmetric_clip, per_token_mean
from policyopt.losses import kl_k1, kl_k2, kl_k3
from policyopt.returns import group_relative_advantages
from policyopt.settings import SETTINGS, check_fields
from policyopt.training import single_thread

__all__ = [
    "SINGLE_CHANGES",
    "STARTS",
    "CostConfig",
    "GRPORun",
    "HackingConfig",
    "LanguageAgent",
    "costs",
    "kl_estimates",
    "train_grpo",
    "train_on_learned_reward",
    "train_ppo",
]

# Where runs begin, by the name of the task. ``long_sort`` has one reward at the end of eight to ten digits.
STARTS: dict[str, Recipe] = {
    **RECIPES,
    "long_sort": Recipe(
        partial(SortDigits, 8, 10), SFTConfig(updates=1200, batch_size=64, learning_rate=5e-3), GRPOConfig()
    ),
    "style": Recipe(
        Style, SFTConfig(updates=800, batch_size=64, learning_rate=3e-3), GRPOConfig(), wrong=0.5
    ),
}

# GRPO with one published change at a time, beside whole recipes.
SINGLE_CHANGES: dict[str, Variant] = {
    "not divided by σ": replace(
        VARIANTS["grpo"], advantages=partial(group_relative_advantages, divide_by_std=False)
    ),
    "mean over tokens": replace(VARIANTS["grpo"], weights=per_token_mean),
    "clip higher": replace(VARIANTS["grpo"], surrogate=asymmetric_clip),
    "dynamic sampling": replace(VARIANTS["grpo"], sampling_rounds=4),
}


# --- where runs begin, and how they are judged ---


@cache
def _version() -> str:
    """Of all that a fine-tuned model depends on beside its recipe and seed."""
    sources = sorted(Path(policyopt.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def starting_model(name: str, seed: int) -> tuple[Transformer, Task]:
    """A fine-tuned model and its task. Fine-tuning takes longer than many a run, so its weights are kept
    among the temporary files, where the next run of the same seed finds them.

    Raises:
        ValueError: there is no such task.
    """
    if name not in STARTS:
        raise ValueError(f"there is no task {name!r} to run on; there are {', '.join(STARTS)}")
    recipe = STARTS[name]
    about = f"{_version()} {recipe} {seed} {torch.__version__}"
    path = Path(tempfile.gettempdir()) / f"policyopt-{hashlib.sha256(about.encode()).hexdigest()[:24]}.pt"
    if not path.exists():
        model, _ = fine_tuned(recipe, seed)
        save_file(path, {"weights": model.state_dict()})
    task = recipe.task()
    model = Transformer(CharTokenizer(task.characters), recipe.model, seed)
    model.load_state_dict(torch.load(path, weights_only=True)["weights"])
    return model, task


def exact_rewards(problems: list[Problem], outputs: list[str]) -> list[float]:
    """1 for the answer and nothing else, otherwise 0."""
    return [
        float(output.strip() == problem.answer) for problem, output in zip(problems, outputs, strict=True)
    ]


REWARDS: dict[str, RewardFunction] = {"long_sort": exact_rewards, "style": taste_rewards}


class LanguageAgent:
    """A trained model with its task, as a study keeps it."""

    def __init__(self, model: LanguageModel, task: Task, reward: RewardFunction | None = None):
        self.model, self.task, self.reward = model, task, reward or task.rewards

    def held_out_rewards(self, count: int) -> np.ndarray:
        """The rewards of greedy outputs for that many problems held out, or all there are."""
        problems = list(self.task.held_out[:count])
        with single_thread():
            outputs = greedy_outputs(self.model, self.task, problems, batch_size=len(problems))
        return np.array(self.reward(problems, outputs))


@torch.no_grad()
def kl_estimates(model: LanguageModel, reference: LanguageModel, samples: Samples) -> dict[str, Tensor]:
    """How far a model is from a reference, in nats an output, by outputs the model wrote at temperature 1.

    Book: eq-kl-k1, eq-kl-k2, eq-kl-k3, each summed over the tokens of an output; and ``exact``, the sum of
    the KL divergences in the states the output went through, for which nothing but the states is sampled.

    Returns:
        For each of the four a value for each output, ``[Q, G]``.
    """
    log_probs, others = (
        torch.log_softmax(each.head(read_states(each, samples)).float(), dim=-1)
        for each in (model, reference)
    )  # [Q, G, T, V]
    chosen = samples.tokens[..., None]
    log_ratio = (others.gather(-1, chosen) - log_probs.gather(-1, chosen)).squeeze(-1)  # log π_ref/π_θ
    terms = {
        "exact": (log_probs.exp() * (log_probs - others)).sum(dim=-1),
        "k1": kl_k1(log_ratio),
        "k2": kl_k2(log_ratio),
        "k3": kl_k3(log_ratio),
    }
    return {name: (values * samples.mask).sum(dim=-1) for name, values in terms.items()}


def with_end(history: History, **last: float) -> History:
    """The same rows, with more columns in the last."""
    found = History()
    for number in range(len(history)):
        row = {name: history[name][number] for name in history.columns}
        found.log(**row, **(last if number == len(history) - 1 else {}))
    return found


# --- runs ---


@dataclass(frozen=True)
class GRPORun:
    """What ``train_grpo`` runs. Values out of range raise ``ValueError`` and name the field."""

    settings: GRPOConfig = field(default_factory=GRPOConfig)
    variant: str = "grpo"  # of ``VARIANTS`` or ``SINGLE_CHANGES``
    measure_kl: bool = False  # at the end, on a fresh output for each problem held out

    def __post_init__(self) -> None:
        check_fields(self, variant=(str, *VARIANTS, *SINGLE_CHANGES))


def train_grpo(name: str, config: GRPORun = GRPORun(), seed: int = 0) -> tuple[LanguageAgent, History]:
    """GRPO from a fine-tuned model.

    Returns:
        The agent, and the history of ``policyopt.language.grpo.train``. With ``measure_kl`` its last row has
        ``kl_exact``, ``kl_k1``, … , the means over outputs, and ``kl_exact_std``, …, their standard
        deviations, of ``kl_estimates`` against the model that the run began with.
    """
    with single_thread():
        model, task = starting_model(name, seed)
        first = copy.deepcopy(model)
        variant = {**VARIANTS, **SINGLE_CHANGES}[config.variant]
        history = grpo.train(model, task, config.settings, seed, reward=REWARDS.get(name), variant=variant)
        if config.measure_kl:
            limit = task.max_new_tokens
            prompts, mask = encode_prompts(model, [problem.prompt for problem in task.held_out], limit)
            noise = token_noise((len(prompts), 1, limit), update_generator(seed, 0))
            samples = generate(model, prompts, mask, noise)
            found = kl_estimates(model, first, samples)
            means = {f"kl_{what}": values.mean().item() for what, values in found.items()}
            spreads = {f"kl_{what}_std": values.std().item() for what, values in found.items()}
            history = with_end(history, **means, **spreads)
    return LanguageAgent(model, task, REWARDS.get(name)), history


def train_ppo(name: str, config: PPOConfig = PPOConfig(), seed: int = 0) -> tuple[LanguageAgent, History]:
    """PPO from a fine-tuned model, with a value model that begins as a copy of it.

    Returns:
        The agent, and the history of ``policyopt.language.ppo.train``.
    """
    with single_thread():
        model, task = starting_model(name, seed)
        history = ppo.train(model, task, config, seed, reward=REWARDS.get(name))
    return LanguageAgent(model, task, REWARDS.get(name)), history


@dataclass(frozen=True)
class HackingConfig:
    """Settings of ``train_on_learned_reward``."""

    pairs: int = 1_500  # that the judge compares, written by the fine-tuned model
    reward_settings: RewardModelConfig = field(default_factory=RewardModelConfig)
    settings: GRPOConfig = field(default_factory=GRPOConfig)

    def __post_init__(self) -> None:
        check_fields(self, pairs=SETTINGS["num_episodes"])


def train_on_learned_reward(
    name: str, config: HackingConfig = HackingConfig(), seed: int = 0
) -> tuple[LanguageAgent, History]:
    """GRPO on a reward learned from comparisons, watched by the taste that is hidden from it.

    Returns:
        The agent, which is judged by the taste, and the history of GRPO, whose ``reward`` is the learned one,
        with ``taste``, the mean taste of each update's outputs, and in the last row ``reward_accuracy``, the
        reward model's on fresh pairs of the fine-tuned model.
    """
    with single_thread():
        model, task = starting_model(name, seed)
        judge = ScalarModel(copy.deepcopy(model))
        pairs = task.preferences(config.pairs, seed, model=model)
        fresh = task.preferences(500, seed + 1, model=model, held_out=True)
        reward_model.train(judge, pairs, config.reward_settings, seed)
        accuracy, _ = reward_model.accuracy(judge, fresh)
        learned = task.with_reward(judge)
        watched = Watched(learned.rewards)
        trained = grpo.train(model, learned, config.settings, seed, reward=watched)
    history = History()
    for number, taste in enumerate(watched.means):
        history.log(**{column: trained[column][number] for column in trained.columns}, taste=taste)
    return LanguageAgent(model, task, taste_rewards), with_end(history, reward_accuracy=accuracy)


# --- costs ---


@dataclass(frozen=True)
class CostConfig:
    """What is measured of a size: an update's load, as in ``policyopt.language.cost.Load``."""

    load: cost.Load = field(default_factory=cost.Load)


class Measured:
    """In place of an agent, where nothing was trained."""

    def held_out_rewards(self, count: int) -> np.ndarray:
        """One zero: a study keeps something for every cell."""
        return np.zeros(1)


def cost_column(*words: str) -> str:
    """The name of a column of ``costs``, e.g. of ``"bytes"``, ``"GRPO"`` and a setting."""
    return "_".join(words).replace(" ", "_")


def costs(size: str, config: CostConfig = CostConfig(), seed: int = 0) -> tuple[Measured, History]:
    """Bytes and FLOPs of an update of PPO and of GRPO: ``policyopt.language.cost.compare``.

    Args:
        size: a name in ``policyopt.language.cost.SIZES``; it stands where a study has its environment.
        config: the load.
        seed: changes nothing.

    Returns:
        No agent, and one row. For each algorithm and each setting (no frozen model, a reference, a reward
        model, both) ``bytes_…`` and ``flops_…``; ``kept_…`` by model and part, which do not depend on the
        machine, ``peak_…``, and ``flops_one_output_…`` of PPO with one output a prompt.
    """
    with single_thread():
        (comparison,) = cost.cost_tables([size], load=config.load).comparisons
    row: dict[str, float] = {"parameters": comparison.parameters}
    for algorithm in ("PPO", "GRPO"):
        for name, kept in comparison.memory[algorithm].kept.items():
            row |= {
                cost_column("kept", algorithm, name, part): float(n) for part, n in kept._asdict().items()
            }
        for setting in cost.SETTINGS_COMPARED:
            row[cost_column("bytes", algorithm, setting)] = float(comparison.bytes_in(algorithm, setting))
            row[cost_column("peak", algorithm, setting)] = float(comparison.peak_in(algorithm, setting))
            row[cost_column("flops", algorithm, setting)] = float(comparison.flops_in(algorithm, setting))
    for setting in cost.SETTINGS_COMPARED:
        row[cost_column("flops", "one output", setting)] = float(
            comparison.flops_in(cost.ONE_OUTPUT, setting)
        )
    history = History()
    history.log(**row)
    return Measured(), history
