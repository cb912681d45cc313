"""*Balance it yourself*: CartPole in the page, driven by the reader, by chance or by a trained network."""

import json
import math
import sys
from functools import cache
from typing import Any

import gymnasium as gym
import traitlets

from policyopt.widgets.base import FOLDER, Figure, figure_module
from policyopt.widgets.checks import Checked, check_seed, not_allowed, shortened

START_STATES = 50
PACKAGED_POLICY = FOLDER / "balance_policy.json"
ACTIVATIONS = ("tanh", "relu", "identity")

Layers = list[dict[str, Any]]


def export_mlp(sequential) -> Layers:
    """The layers of a network, as plain lists for the page.

    Each layer is ``{"weights": [out][in], "bias": [out], "activation": "tanh", "relu" or "identity"}``, with
    numbers rounded to 5 decimals.

    Args:
        sequential: a ``torch.nn.Sequential`` of Linear layers, each followed by at most one Tanh or ReLU.

    Raises:
        ValueError: it is, or has in it, any other module.
    """
    import torch

    if not isinstance(sequential, torch.nn.Sequential):
        raise ValueError(f"Only a torch.nn.Sequential can be exported, but got {type(sequential).__name__}.")
    layers: Layers = []
    for number, module in enumerate(sequential, start=1):
        activation = {torch.nn.Tanh: "tanh", torch.nn.ReLU: "relu"}.get(type(module))
        if isinstance(module, torch.nn.Linear):
            bias = module.weight.new_zeros(module.out_features) if module.bias is None else module.bias
            layers.append(
                {"weights": _rounded(module.weight), "bias": _rounded(bias), "activation": "identity"}
            )
        elif activation and layers and layers[-1]["activation"] == "identity":
            layers[-1]["activation"] = activation
        else:
            raise ValueError(
                f"Cannot export {type(module).__name__}, module {number} of the network: "
                "allowed are Linear layers, each followed by at most one Tanh or ReLU."
            )
    return layers


def _rounded(tensor) -> list:
    # adding 0.0 turns -0.0 into 0.0, which would otherwise stand as "-0.0" in the page
    return (tensor.detach().double().cpu().numpy().round(5) + 0.0).tolist()


def start_states(seed: int, count: int = START_STATES) -> list[dict[str, Any]]:
    """The start states of CartPole-v1 for the seeds ``seed``, …, ``seed + count - 1``.

    Each is ``{"seed": int, "state": [x, ẋ, θ, θ̇]}``, made by the environment's own ``reset(seed=...)`` and
    kept in float64, the precision the environment computes in: the page starts exactly where Gymnasium does.
    """
    env = gym.make("CartPole-v1").unwrapped
    states = []
    for start_seed in range(seed, seed + count):
        env.reset(seed=start_seed)
        states.append({"seed": start_seed, "state": [float(value) for value in env.state]})
    return states


@cache
def _packaged_policy() -> str:
    return PACKAGED_POLICY.read_text(encoding="utf-8")


def _as_layers(name: str, policy: Any) -> Layers:
    if policy is None:
        return check_layers(json.loads(_packaged_policy()))
    policy = getattr(policy, "policy_net", policy)
    torch = sys.modules.get("torch")  # a torch module cannot exist unless somebody has imported torch
    if torch is not None and isinstance(policy, torch.nn.Module):
        policy = export_mlp(policy)
    return check_layers(policy)


def check_layers(layers: Any) -> Layers:
    """The layers as floats, if they make a network from CartPole's 4 observations to logits of 2 actions."""
    if not isinstance(layers, (list, tuple)) or not layers:
        raise not_allowed(
            "policy", layers, "an agent with a policy_net, a torch.nn.Sequential or a list of layers"
        )
    checked = []
    width = 4
    for number, layer in enumerate(layers, start=1):
        try:
            weights = [[float(weight) for weight in row] for row in layer["weights"]]
            bias = [float(value) for value in layer["bias"]]
            activation = layer["activation"]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"Layer {number} of the policy must have 'weights' (a list of rows), 'bias' (a list) and "
                f"'activation', all numbers; got {shortened(layer)}."
            ) from error
        shape = (len(weights), *sorted({len(row) for row in weights}))
        if shape != (len(bias), width):
            raise ValueError(
                f"Layer {number} of the policy has weights of shape {shape} and {len(bias)} biases, "
                f"but it gets {width} inputs: weights must be (outputs, {width}), with one bias an output."
            )
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"Layer {number} of the policy has activation {activation!r}; "
                f"allowed are {', '.join(ACTIVATIONS)}."
            )
        if not all(math.isfinite(value) for row in [*weights, bias] for value in row):
            raise ValueError(f"Layer {number} of the policy has a weight or bias that is not finite.")
        checked.append({"weights": weights, "bias": bias, "activation": activation})
        width = len(bias)
    if width != 2 or checked[-1]["activation"] != "identity":
        raise ValueError(
            f"The policy's last layer has {width} outputs and activation {checked[-1]['activation']!r}, but "
            "CartPole needs the logits of 2 actions: 2 outputs and activation 'identity'."
        )
    return checked


class BalanceYourself(Figure):
    """CartPole-v1 to play in the page, against a random policy and a trained network.

    The page computes CartPole's own equations. *New start* moves from ``seed`` to the next of 50 seeds, each
    the start of Gymnasium's ``reset(seed=...)``, which comes with the figure. The random policy draws from a
    small seeded generator of the page, not from NumPy's.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``choose(driver)`` with "you", "random" or "ppo", ``push(action)``, ``step(count)``, ``restart()`` and
    ``next()``.

    Args:
        policy: an agent with a ``policy_net``, a ``torch.nn.Sequential`` (4 inputs, logits of 2 actions, Tanh
            or ReLU between), a list of layers as ``export_mlp`` makes them, or None for the packaged network.
        seed: the seed of the first start state, an integer from 0. Both may also be assigned later.

    Raises:
        ValueError: another kind or shape of policy, or another seed.
    """

    kind = "balance"
    title = "Balance it yourself"
    summary = (
        "A cart on a track carries a pole that tips over unless the cart is pushed left or right under it. "
        "Keep it up for 500 steps with the arrow keys or by touch, then watch a random policy and a trained "
        "PPO network try from the same start."
    )
    _esm = figure_module(kind)

    policy = Checked(_as_layers).tag(sync=True, page=True)
    seed = Checked(check_seed)
    starts = traitlets.List().tag(sync=True, page=True)

    def __init__(self, policy=None, seed=0, **kwargs):
        super().__init__(policy=policy, seed=seed, **kwargs)

    @traitlets.default("starts")
    def _default_starts(self):
        return start_states(self.seed)

    @traitlets.observe("seed")
    def _new_starts(self, change):
        self.starts = start_states(change["new"])

    def __repr__(self) -> str:
        sizes = [4, *(len(layer["bias"]) for layer in self.policy)]
        return f"BalanceYourself(policy={'-'.join(map(str, sizes))} network, seed={self.seed})"
