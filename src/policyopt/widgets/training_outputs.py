"""*Training outputs*: what a language model writes along its training with GRPO, group by group."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral
from typing import Any

import traitlets

from policyopt.widgets.base import FOLDER, Figure, figure_module
from policyopt.widgets.checks import Checked, check_choice, check_integer, is_number, not_allowed, shortened

PACKAGED_RUN = FOLDER / "training_outputs.json"
WHOLE = 10_000  # a probability of 1, as the record has it
LONGEST = 4  # tokens of an output
SIZES = (2, 16)

Record = dict[str, Any]


@cache
def _packaged() -> str:
    return PACKAGED_RUN.read_text(encoding="utf-8")


# --- what the figure accepts ---


def _expect(right: bool, where: str, value: Any, allowed: str) -> None:
    if not right:
        raise not_allowed(where, value, allowed)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_keys(where: str, value: Any, keys: Sequence[str]) -> None:
    if not isinstance(value, Mapping) or set(value) != set(keys):
        raise not_allowed(where, value, f"a dictionary with {', '.join(keys[:-1])} and {keys[-1]}")


def _check_chances(where: str, chances: Any, states: set[str], tokens: str) -> None:
    _expect(isinstance(chances, Mapping), where, chances, "a dictionary of probabilities by what was written")
    for state in sorted(states):
        if state not in chances:
            raise ValueError(f"{where} lacks the state {state!r}, in which a token was written")
        counts = chances[state]
        fits = (
            _is_list(counts)
            and len(counts) <= len(tokens)
            and all(is_number(count, Integral) and count >= 0 for count in counts)
            and sum(counts) <= WHOLE + len(tokens)  # each may be rounded up
        )
        allowed = f"at most {len(tokens)} whole numbers ≥ 0 that make {WHOLE} at most"
        _expect(fits, f"{where}[{state!r}]", counts, allowed)


def _check_group(where: str, group: Any, tokens: str) -> set[str]:
    """The states in which the outputs of a group were written."""
    _check_keys(where, group, ("outputs", "rewards", "policy"))
    outputs, rewards = group["outputs"], group["rewards"]
    low, high = SIZES
    _expect(
        _is_list(outputs)
        and low <= len(outputs) <= high
        and all(isinstance(o, str) and 1 <= len(o) <= LONGEST and set(o) <= set(tokens) for o in outputs),
        f"{where}: outputs",
        outputs,
        f"{low} to {high} texts of 1 to {LONGEST} of the tokens {tokens!r}",
    )
    _expect(
        _is_list(rewards)
        and len(rewards) == len(outputs)
        and all(is_number(value) and math.isfinite(value) for value in rewards),
        f"{where}: rewards",
        rewards,
        f"{len(outputs)} finite numbers, one for each output",
    )
    states = {output[:t] for output in outputs for t in range(len(output))}
    _check_chances(f"{where}: policy", group["policy"], states, tokens)
    return states


def check_record(record: Any) -> Record:
    """The record, if the figure can show it.

    Raises:
        ValueError: it is not as ``policyopt.language.recording.record_outputs`` makes it; the message names
            what is wrong.
    """
    _check_keys("record", record, ("tokens", "updates", "reward", "prompts"))
    tokens, updates, reward, prompts = (record[key] for key in ("tokens", "updates", "reward", "prompts"))
    _expect(
        isinstance(tokens, str) and len(tokens) >= 2 and len(set(tokens)) == len(tokens),
        "record: tokens",
        tokens,
        "a text of 2 or more different characters",
    )
    _expect(
        _is_list(updates)
        and len(updates) >= 2
        and all(is_number(update, Integral) and update >= 0 for update in updates)
        and list(updates) == sorted(set(updates)),
        "record: updates",
        updates,
        "2 or more whole numbers ≥ 0 that rise",
    )
    _expect(
        _is_list(reward) and all(is_number(value) and 0 <= value <= 1 for value in reward),
        "record: reward",
        reward,
        "a list of numbers in [0, 1]",
    )
    _expect(_is_list(prompts) and 1 <= len(prompts) <= 6, "record: prompts", prompts, "a list of 1 to 6")
    for p, one in enumerate(prompts):
        where = f"record: prompts[{p}]"
        _check_keys(where, one, ("prompt", "answer", "reference", "groups"))
        for key in ("prompt", "answer"):
            _expect(isinstance(one[key], str) and one[key] != "", f"{where}: {key}", one[key], "a text")
        if not _is_list(one["groups"]) or len(one["groups"]) != len(updates):
            raise ValueError(
                f"{where}: groups is {shortened(one['groups'])}; "
                f"it must be a list of {len(updates)} groups, one for each of the updates"
            )
        states = set()
        for k, group in enumerate(one["groups"]):
            states |= _check_group(f"{where}: groups[{k}]", group, tokens)
        _check_chances(f"{where}: reference", one["reference"], states, tokens)
    return record


def _own_or_packaged(name: str, record: Any) -> Record:
    return json.loads(_packaged()) if record is None else check_record(record)


class TrainingOutputs(Figure):
    r"""A language model in training with GRPO: for each of several prompts the group it writes, and why.

    A slider leads along the training. For the prompt that the reader chooses, each output of the group is
    shown token by token, coloured by its advantage, with its reward and the group's mean and standard
    deviation. For a chosen token there are the probabilities of the next token under the policy and under
    the reference, the probability of the whole output, and the token's :math:`k_3`. The advantages are those
    of ``policyopt.returns.group_relative_advantages``, :math:`k_3` is that of ``policyopt.losses``. Shao et
    al. (2024), arXiv:2402.03300, eqs. 3 and 4.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``go(update)`` with one of the recorded updates, ``prompt(i)`` and ``select(output, token)``, counted
    from 0.

    Args:
        record: what is shown, as ``policyopt.language.recording.record_outputs`` makes it; None for the run
            of the chapter.
        prompt: which prompt is shown first, counted from 0.
        update: at which of the recorded updates the figure begins; None for the first.

    All may also be assigned later.

    Raises:
        ValueError: a record that does not fit together, or a number out of range.
    """

    kind = "training_outputs"
    title = "Training outputs"
    summary = (
        "A small language model learns to add by GRPO. Along its training: groups of outputs to a prompt, "
        "their rewards and advantages, and for each character what the model might have written in its place."
    )
    _esm = figure_module(kind)

    record = Checked(_own_or_packaged).tag(sync=True, page=True)
    prompt = traitlets.TraitType(0).tag(sync=True, page=True)
    update = traitlets.TraitType(0).tag(sync=True, page=True)

    def __init__(self, record=None, prompt=0, update=None, **kwargs):
        record = _own_or_packaged("record", record)
        super().__init__(
            record=record,
            prompt=self._index(prompt, record),
            update=self._moment(update, record),
            **kwargs,
        )

    @staticmethod
    def _index(prompt, record) -> int:
        return check_integer("prompt", prompt, 0, len(record["prompts"]) - 1)

    @staticmethod
    def _moment(update, record) -> int:
        return record["updates"][0] if update is None else check_choice("update", update, record["updates"])

    @traitlets.validate("prompt")
    def _validate_prompt(self, proposal):
        return self._index(proposal["value"], self.record)

    @traitlets.validate("update")
    def _validate_update(self, proposal):
        return self._moment(proposal["value"], self.record)

    @traitlets.observe("record")
    def _keep_in_range(self, change):
        if self.prompt >= len(change["new"]["prompts"]):
            self.prompt = 0
        if self.update not in change["new"]["updates"]:
            self.update = None

    def __repr__(self) -> str:
        count, updates = len(self.record["prompts"]), self.record["updates"]
        return f"TrainingOutputs({count} prompts, {len(updates)} snapshots, update={self.update})"
