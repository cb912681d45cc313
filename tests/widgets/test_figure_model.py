"""The Python side of the figures: what they accept, carry and show."""

import json
import re
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from in_node import run_figure
from in_python import embedded, expect_refused

from policyopt.widgets import BalanceYourself, Figure, export_mlp
from policyopt.widgets.balance import PACKAGED_POLICY
from policyopt.widgets.base import FOLDER, figure_module, figure_source


def small_network(outputs=2):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, outputs))


def bundle_of(figure):
    data, metadata = figure._repr_mimebundle_()
    return {key: value for key, value in data.items() if "widget-view" not in key}, metadata


def test_mimebundle_has_the_live_view_and_the_page():
    data, _ = BalanceYourself()._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert data["text/plain"].startswith("BalanceYourself(policy=4-")
    assert data["text/plain"].endswith("-2 network, seed=0)")


def test_mimebundle_is_the_same_for_the_same_figure():
    assert bundle_of(BalanceYourself(seed=3)) == bundle_of(BalanceYourself(seed=3))
    assert bundle_of(BalanceYourself(seed=3)) != bundle_of(BalanceYourself(seed=4))


def test_mimebundle_of_older_anywidget(monkeypatch):
    import anywidget

    monkeypatch.setattr(anywidget.AnyWidget, "_repr_mimebundle_", lambda self, **kwargs: {"view": 1})
    assert set(bundle_of(BalanceYourself())[0]) == {"view", "text/html", "text/plain"}
    monkeypatch.setattr(anywidget.AnyWidget, "_repr_mimebundle_", lambda self, **kwargs: None)
    assert set(bundle_of(BalanceYourself())[0]) == {"text/html", "text/plain"}


def test_page_html_carries_data_and_words_but_no_code():
    figure = BalanceYourself(seed=2)
    text = figure.page_html()
    assert embedded(figure) == {"policy": figure.policy, "starts": figure.starts}
    assert re.findall("<script[^>]*>", text) == ['<script type="application/json">']
    assert "=>" not in text
    assert "needs JavaScript" in text
    assert figure.summary in text
    assert figure.model_id not in text


def test_page_data_cannot_end_its_element():
    figure = BalanceYourself()
    figure.starts = [{"seed": 0, "state": [0.0] * 4, "note": "</script><b>"}]
    assert figure.page_html().count("</script>") == 1
    assert embedded(figure)["starts"][0]["note"] == "</script><b>"


def test_start_states_are_gymnasiums_to_the_bit():
    starts = embedded(BalanceYourself(seed=7))["starts"]
    env = gym.make("CartPole-v1")
    assert [start["seed"] for start in starts] == list(range(7, 57))
    for start in starts:
        env.reset(seed=start["seed"])
        assert start["state"] == env.unwrapped.state.tolist()


def test_seed_and_policy_can_be_assigned():
    figure = BalanceYourself()
    figure.seed = np.int64(5)
    assert figure.starts == BalanceYourself(seed=5).starts
    figure.policy = small_network()
    assert figure.policy == export_mlp(small_network())
    assert "4-3-2 network, seed=5" in repr(figure)
    figure.policy = None
    assert figure.policy == BalanceYourself().policy


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "0", None, True])
def test_bad_seed(seed):
    message = re.escape(f"seed is {seed!r}; it must be an integer from 0 to 2**31 - 1")
    expect_refused(BalanceYourself, "seed", seed, message)


def test_export_mlp_by_hand():
    sequential = torch.nn.Sequential(
        torch.nn.Linear(2, 1), torch.nn.ReLU(), torch.nn.Linear(1, 2, bias=False)
    )
    with torch.no_grad():
        sequential[0].weight.copy_(torch.tensor([[0.123456, -0.000001]]))
        sequential[0].bias.copy_(torch.tensor([2.0]))
        sequential[2].weight.copy_(torch.tensor([[1.0], [-1.5]]))
    layers = export_mlp(sequential)
    assert layers == [
        {"weights": [[0.12346, 0.0]], "bias": [2.0], "activation": "relu"},
        {"weights": [[1.0], [-1.5]], "bias": [0.0, 0.0], "activation": "identity"},
    ]
    assert "-0.0]" not in json.dumps(layers)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: SimpleNamespace(policy_net=net), export_mlp])
def test_a_policy_may_be_network_agent_or_layers(wrap):
    assert BalanceYourself(policy=wrap(small_network())).policy == export_mlp(small_network())


LAYER = {"weights": [[1, 0, 0, 0], [0, 1, 0, 0]], "bias": [0, 0], "activation": "identity"}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("ppo", "policy is 'ppo'; it must be an agent with a policy_net, .* or a list of layers"),
        ([], r"policy is \[\]; it must be an agent"),
        (torch.nn.Linear(4, 2), "Only a torch.nn.Sequential can be exported, but got Linear"),
        (
            torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Sigmoid()),
            "Cannot export Sigmoid, module 2 .* Tanh or ReLU",
        ),
        (torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(4, 2)), "Cannot export Tanh"),
        (small_network(outputs=3), "has 3 outputs and activation 'identity', but CartPole needs"),
        ([LAYER | {"activation": "tanh"}], "has 2 outputs and activation 'tanh', but CartPole needs"),
        (
            [LAYER, LAYER],
            r"Layer 2 of the policy has weights of shape \(2, 4\) and 2 biases, but it gets 2 inputs",
        ),
        ([LAYER | {"bias": [0]}], r"weights of shape \(2, 4\) and 1 biases, but it gets 4 inputs"),
        ([LAYER | {"weights": [[1, 0, 0, 0], [0]]}], r"weights of shape \(2, 1, 4\)"),
        ([LAYER | {"weights": [[1, 0, 0, "a"], [0] * 4]}], "Layer 1 of the policy must have 'weights'"),
        ([{"weights": []}], "Layer 1 of the policy must have 'weights'"),
        ([LAYER | {"activation": "gelu"}], "activation 'gelu'; allowed are tanh, relu, identity"),
        ([LAYER | {"bias": [0, float("nan")]}], "not finite"),
    ],
)
def test_bad_policy(policy, message):
    expect_refused(BalanceYourself, "policy", policy, message)


def test_packaged_policy_is_rounded_as_exported():
    layers = json.loads(PACKAGED_POLICY.read_text(encoding="utf-8"))
    assert BalanceYourself().policy == layers
    assert all(value == round(value, 5) for layer in layers for row in layer["weights"] for value in row)


def test_unknown_figure():
    with pytest.raises(ValueError, match=r"no interactive figure 'chess'; there are: .*balance"):
        figure_source("chess")
    with pytest.raises(ValueError, match="no interactive figure 'host'"):
        figure_source("host")
    with pytest.raises(ValueError, match="no interactive figure 'common'"):
        figure_source("common")


def test_module_stands_alone():
    """What it shares with the others is in it, and nothing of it is to be fetched."""
    module = figure_module("balance")
    assert "function followTheme(" in module
    assert "function stepPhysics(" in module
    assert re.findall(r"^(?:import\b.*|export (?!default|\{).*)", module, re.MULTILINE) == []


@pytest.mark.parametrize("kind", sorted(figure.kind for figure in Figure.__subclasses__()))
def test_render_is_only_the_default_export(kind):
    # anywidget takes a module with a named `render` for one of its old format
    [exports] = run_figure(kind, "const answer = () => Object.keys(page);", None)
    assert "default" in exports
    assert "render" not in exports


def test_every_figure_has_one_script_that_asks_for_nothing():
    assert {figure.kind for figure in Figure.__subclasses__()} == {
        path.stem for path in FOLDER.glob("*.js") if path.stem not in {"host", "common"}
    }
    for path in FOLDER.glob("*.js"):
        source = (
            path.read_text(encoding="utf-8") if path.stem in {"host", "common"} else figure_module(path.stem)
        )
        assert not re.search(
            r"https?://|^import\b|\bimport\(|\bfetch\(|XMLHttpRequest|innerHTML|eval\(", source, re.M
        ), path.name


def test_nothing_else_imports_the_widgets_and_they_import_no_torch():
    for path in FOLDER.parent.rglob("*.py"):
        forbidden = "torch" if path.parent == FOLDER else r"policyopt\.widgets"
        assert not re.search(rf"^(import|from) {forbidden}", path.read_text(encoding="utf-8"), re.M), path
