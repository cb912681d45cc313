"""How the small transformer comes to its tasks: settings that were found to work, in one place.

A recipe has two stages. Supervised fine-tuning on demonstrations of which about half are wrong teaches the
form of an answer, and the right answer about half of the time; GRPO, which sees rewards and no answers, does
the rest. Chapters, studies and ``make bench`` take the stages from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policyopt.language import sft
from policyopt.language.grpo import GRPOConfig
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.sft import SFTConfig
from policyopt.language.tasks import Addition, Brackets, SortDigits, Task
from policyopt.language.tokenizer import CharTokenizer

__all__ = [
    "ADDITION_GRPO",
    "ADDITION_SFT",
    "BRACKETS_GRPO",
    "BRACKETS_SFT",
    "RECIPES",
    "SORT_DIGITS_GRPO",
    "SORT_DIGITS_SFT",
    "Recipe",
    "addition_model",
    "fine_tuned",
    "make_recipe",
]

# About 100,000 parameters. With two layers, and wider, some seeds take far longer to find out about carrying.
THREE_LAYERS = TransformerConfig(layers=3, width=56, heads=7, hidden=120)

_GRPO = dict(
    num_prompts=64, group_size=8, minibatch_size=32, learning_rate=1e-3, learning_rate_end=0.0, warmup=5
)

ADDITION_SFT = SFTConfig(updates=2400, batch_size=64, learning_rate=5e-3)
ADDITION_GRPO = GRPOConfig(updates=200, **_GRPO)

SORT_DIGITS_SFT = SFTConfig(updates=1000, batch_size=64, learning_rate=5e-3)
SORT_DIGITS_GRPO = GRPOConfig(updates=150, **_GRPO)

BRACKETS_SFT = SFTConfig(updates=1000, batch_size=64, learning_rate=5e-3)
BRACKETS_GRPO = GRPOConfig(updates=150, **_GRPO)


@dataclass(frozen=True)
class Recipe:
    """A task, a model, and how the model learns the task."""

    task: Callable[[], Task]  # makes it; the problems held out are the same for every seed
    sft: SFTConfig
    grpo: GRPOConfig
    model: TransformerConfig = THREE_LAYERS
    demonstrations: int = 50_000
    wrong: float = 0.55  # the share of them whose answer is wrong: more than half, to begin below one half


RECIPES: dict[str, Recipe] = {
    "addition": Recipe(Addition, ADDITION_SFT, ADDITION_GRPO),
    "sort_digits": Recipe(SortDigits, SORT_DIGITS_SFT, SORT_DIGITS_GRPO),
    "brackets": Recipe(Brackets, BRACKETS_SFT, BRACKETS_GRPO),
}


def make_recipe(name: str) -> Recipe:
    """The recipe of a task, by the task's name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def fine_tuned(recipe: str | Recipe, seed: int = 0, *, progress: bool = False) -> tuple[Transformer, Task]:
    """A model after supervised fine-tuning, ready for GRPO, and its task.

    Args:
        recipe: its name in ``RECIPES``, or a recipe of one's own.
        seed: of the first weights, the demonstrations and their order.
        progress: show a bar.

    Raises:
        ValueError: there is no recipe of this name.
    """
    recipe = make_recipe(recipe) if isinstance(recipe, str) else recipe
    task = recipe.task()
    model = Transformer(CharTokenizer(task.characters), recipe.model, seed)
    demonstrations = task.demonstrations(recipe.demonstrations, recipe.wrong, seed)
    sft.train(model, demonstrations, recipe.sft, seed, progress=progress)
    return model, task


def addition_model(seed: int = 0, *, progress: bool = False) -> tuple[Transformer, Task]:
    """``fine_tuned("addition")``: two-digit addition after supervised fine-tuning on half-wrong sums."""
    return fine_tuned("addition", seed, progress=progress)
