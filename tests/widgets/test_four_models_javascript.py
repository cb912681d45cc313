"""The numbers, the drawing and the memory of *Four models*, run by Node, against ``policyopt``."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.language.cost import SETTINGS_COMPARED, Comparison, Load
from policyopt.language.grpo import GRPOConfig, group_samples, grpo_loss
from policyopt.language.ppo import (
    PPOConfig,
    ppo_loss,
    token_advantages,
    token_rewards,
    token_samples,
)
from policyopt.language.sampling import Samples
from policyopt.losses import clipped_surrogate, kl_k3
from policyopt.returns import group_relative_advantages

ANSWER = """
const run = {
  example: () =>
    ({ outputs: page.OUTPUTS, policy: page.POLICY, reference: page.REFERENCE, values: page.VALUES }),
  steps: () => page.STEPS,
};
const answer = ([name, ...given]) => (run[name] ?? page[name])(...given);
"""
in_node = partial(run_figure, "four_models", ANSWER)
REWARDS = [list(rewards) for rewards in itertools.product((0, 1), repeat=4)]
BETAS = (0.0, 0.01, 0.1, 0.5)
near = partial(pytest.approx, abs=1e-9, rel=1e-9)


def padded(rows):
    """Rows of different length as a tensor ``[1, G, T]``; what stands at padding must not count."""
    longest = max(map(len, rows))
    return torch.tensor([[[*row, *[99.0] * (longest - len(row))] for row in rows]], dtype=torch.float64)


def mask_of(rows):
    longest = max(map(len, rows))
    return torch.tensor([[[t < len(row) for t in range(longest)] for row in rows]])


def ragged(tensor, rows):
    return [values[: len(row)].tolist() for values, row in zip(tensor[0], rows, strict=True)]


def expect_rows(page, rows):
    assert [len(row) for row in page] == [len(row) for row in rows]
    for mine, theirs in zip(page, rows, strict=True):
        assert mine == near(theirs)


def drawn_rows(random):
    """Log-probabilities of outputs with 1 to 6 tokens."""
    return [random.uniform(-4, 0, count).tolist() for count in random.integers(1, 7, random.integers(2, 6))]


def test_token_rewards_and_advantages_are_policyopts():
    random = np.random.default_rng(0)
    cases, wanted = [], []
    for _ in range(40):
        rows = drawn_rows(random)
        mask = mask_of(rows)
        others, values = ([random.normal(-1, 1, len(row)).tolist() for row in rows] for _ in range(2))
        rewards = random.normal(0, 1, len(rows)).tolist()
        beta, gamma, gae_lambda = random.uniform(0, 1, 3).tolist()
        earned = token_rewards(
            torch.tensor([rewards], dtype=torch.float64), padded(rows), padded(others), mask, beta
        )
        own = ragged(earned, rows)
        cases += [
            ["tokenRewards", rewards, rows, others, beta],
            ["tokenAdvantages", own, values, gamma, gae_lambda],
        ]
        advantages, deltas = (
            ragged(token_advantages(earned, padded(values), mask, gamma, mixing), rows)
            for mixing in (gae_lambda, 0.0)  # λ = 0 leaves the first term
        )
        wanted += [own, {"advantages": advantages, "deltas": deltas}]
    pages = in_node(*cases)
    for page, own in zip(pages[::2], wanted[::2], strict=True):
        expect_rows(page, own)
    for page, own in zip(pages[1::2], wanted[1::2], strict=True):
        expect_rows(page["advantages"], own["advantages"])
        expect_rows(page["deltas"], own["deltas"])


def test_group_advantages_are_policyopts():
    random = np.random.default_rng(1)
    groups = [random.normal(0, 2, random.integers(2, 9)).tolist() for _ in range(100)]
    groups += [*REWARDS, [0.1] * 3, [0.7] * 7]
    for group, page in zip(groups, in_node(*(["groupAdvantages", group] for group in groups)), strict=True):
        tensor = torch.tensor(group, dtype=torch.float64)
        assert page["advantages"] == near(group_relative_advantages(tensor).tolist())
        assert page["mean"] == near(tensor.mean().item())
        assert page["deviation"] == near(tensor.std().item())
        assert (page["advantages"] == [0] * len(group)) == (len(set(group)) == 1)


def test_surrogate_and_k3_are_policyopts():
    random = np.random.default_rng(2)
    ratios, advantages = random.uniform(0, 2.5, 300), random.normal(0, 1, 300)
    clips = random.uniform(0.05, 0.5, 300)
    given = [list(map(float, one)) for one in zip(ratios, advantages, clips, strict=True)]
    page = in_node(*(["clippedSurrogate", *one] for one in given))
    for one, mine in zip(given, page, strict=True):
        ratio, advantage = torch.tensor(one[:2], dtype=torch.float64)
        assert mine == near(clipped_surrogate(ratio, advantage, one[2]).item())
    logs = torch.linspace(-3, 3, 61, dtype=torch.float64)
    assert in_node(*(["klK3", log] for log in logs.tolist())) == near(kl_k3(logs).tolist())


# The worked example


def read(table, outputs):
    """The table's entry for every token: by what is written before it, and by itself where there are more."""
    rows = []
    for output in outputs:
        entries = [table["".join(output[:t])] for t in range(len(output))]
        rows.append(
            [
                entry[token] if isinstance(entry, dict) else entry
                for entry, token in zip(entries, output, strict=True)
            ]
        )
    return rows


def test_the_tables_are_policies():
    [example] = in_node(["example"])
    assert ["".join(output[:-1]) for output in example["outputs"]] == ["81", "71", "82", "8"]
    assert {output[-1] for output in example["outputs"]} == {"end"}
    for name in ("policy", "reference"):
        for row in example[name].values():
            assert sum(map(np.exp, row.values())) < 1, name
    written = {"".join(output[:t]) for output in example["outputs"] for t in range(len(output))}
    assert written == set(example["policy"]) == set(example["reference"]) == set(example["values"])


def learnable(example):
    """Logits of the policy's table with all other tokens as one, and a function to log π_θ of the outputs."""
    logits = {}
    for written, row in example["policy"].items():
        rest = np.log1p(-sum(np.exp(value) for value in row.values()))
        logits[written] = torch.tensor([*row.values(), rest], dtype=torch.float64, requires_grad=True)

    def log_probs():
        rows = []
        for output in example["outputs"]:
            row = []
            for t, token in enumerate(output):
                written = "".join(output[:t])
                index = list(example["policy"][written]).index(token)
                row.append(logits[written].log_softmax(0)[index])
            rows.append(torch.stack([*row, *[torch.tensor(0.0, dtype=torch.float64)] * (3 - len(row))]))
        return torch.stack(rows).unsqueeze(0)

    return logits, log_probs


def exact(weights, in_float64):
    """The weights of the package, which are in float32, in float64."""
    assert torch.allclose(weights.double(), in_float64, rtol=1e-6)
    return in_float64


def expected(example, algorithm, beta, rewards):
    """The same update with ``policyopt`` and PyTorch's gradients."""
    outputs = example["outputs"]
    old, reference, values = (read(example[name], outputs) for name in ("policy", "reference", "values"))
    mask = mask_of(old)
    prompts = torch.zeros(1, 6, dtype=torch.long)
    tokens = torch.zeros(1, 4, 3, dtype=torch.long)
    samples = Samples(prompts, prompts == 0, tokens, mask, torch.where(mask, padded(old), 0.0))
    earned = torch.tensor([rewards], dtype=torch.float64)
    reference = torch.where(mask, padded(reference), 0.0)
    values = torch.where(mask, padded(values), 0.0)
    logits, log_probs = learnable(example)
    before = log_probs()
    if algorithm == "ppo":
        config = PPOConfig(kl_coef=beta, normalize_advantages=False)
        batch = token_samples(samples, earned, values, reference, config)
        batch = replace(batch, weights=exact(batch.weights, mask.double() / mask.sum()))
        loss, parts = ppo_loss(before, values, batch, config)
        advantages = batch.advantages
    else:
        config = GRPOConfig(kl_coef=beta, group_size=4)
        batch = group_samples(samples, earned, None, config, 3)
        weights = exact(batch.weights, mask / (4 * mask.double().sum(dim=-1, keepdim=True)))
        batch = replace(batch, weights=weights, reference_log_probs=reference)
        loss, parts = grpo_loss(before, batch, config)
        advantages = batch.advantages.unsqueeze(-1).expand(1, 4, 3)
    loss.backward()
    with torch.no_grad():
        for row in logits.values():
            row -= 4 * row.grad
        after = log_probs()
    ratios = (after - before).exp().detach()
    surrogates = clipped_surrogate(ratios, advantages, 0.2)
    return {
        "loss": loss.item(),
        "parts": parts,
        "advantages": ragged(advantages, old),
        "moved": ragged(after, old),
        "ratios": ragged(ratios, old),
        "surrogates": ragged(surrogates, old),
        "held": ragged(surrogates < ratios * advantages, old),
        "weights": ragged(batch.weights, old),
    }


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_an_update_is_that_of_policyopt_and_pytorch(algorithm):
    [example] = in_node(["example"])
    cases = [(beta, rewards) for beta in BETAS for rewards in REWARDS]
    given = (
        ["compute", {"algorithm": algorithm, "beta": beta, "rewards": rewards}] for beta, rewards in cases
    )
    held = 0
    for (beta, rewards), page in zip(cases, in_node(*given), strict=True):
        own = expected(example, algorithm, beta, rewards)
        assert page["loss"] == near(own["loss"])
        for name in ("advantages", "moved", "ratios", "surrogates", "weights"):
            expect_rows(page[name], own[name])
        assert page["held"] == own["held"]
        held += sum(map(sum, page["held"]))
        weights, losses = (np.concatenate(page[name]) for name in ("weights", "losses"))
        assert weights @ losses == near(own["loss"])
        if algorithm == "ppo":
            assert page["policyLoss"] == near(own["parts"]["policy_loss"].item())
            assert page["valueLoss"] == near(own["parts"]["value_loss"].item())
            assert page["group"] is None
        else:
            assert page["policyLoss"] == near(0)
            assert beta * own["parts"].get("reference_kl", torch.tensor(0.0)).item() == near(page["penalty"])
            assert page["earned"] is page["values"] is None
    assert held > 20


def test_by_hand():
    [ppo, grpo] = in_node(
        *(["compute", {"algorithm": name, "beta": 0.1, "rewards": [1, 0, 0, 0]}] for name in ("ppo", "grpo"))
    )
    assert ppo["before"][0] == near(np.exp(-0.92))
    assert ppo["drifts"][:2] == near([0.37, -0.22])
    assert ppo["earned"][0] == near([-0.015, -0.018, 0.996])
    assert ppo["deltas"][0] == near([0.135, 0.332, 0.096])
    assert ppo["advantages"][0] == near([0.135 + 0.95 * (0.332 + 0.95 * 0.096), 0.332 + 0.95 * 0.096, 0.096])
    assert ppo["targets"][0][2] == near(0.996)
    assert (grpo["group"]["mean"], grpo["group"]["deviation"]) == near((0.25, 0.5))
    assert grpo["advantages"][0] == near([0.75 / 0.5001] * 3)
    assert grpo["after"][0] > grpo["before"][0]


def test_what_is_said_of_a_step():
    [steps] = in_node(["steps"])
    settings = itertools.product(("ppo", "grpo"), (0, 0.1), (True, False))
    nows = [
        {"algorithm": algorithm, "beta": beta, "learned": learned, "rewards": [1, 0, 0, 1]}
        for algorithm, beta, learned in settings
    ]
    given = [(step, now) for now in nows for step in steps[now["algorithm"]]]
    titles = set()
    for words in in_node(*(["describe", step, now] for step, now in given)):
        titles.add(words["title"])
        assert words["words"][-1] in ".?"
        assert len(words["flow"]) == 4
    assert len(titles) == 11
    assert {"The reward model judges", "The checker judges", "The group's statistics"} < titles
    for numbers in in_node(*(["numbersOf", step, now, i] for step, now in given for i in range(4))):
        assert [len(row) for row in numbers["cells"]] == [3, 3, 3, 2]
        assert len(numbers["sides"]) == 4
        assert 1 <= len(numbers["lines"]) <= 5
        assert not {"NaN", "undefined"} & set(str(numbers).split())


def test_the_working_by_hand():
    now = {"algorithm": "ppo", "beta": 0.1, "rewards": [1, 0, 0, 0], "learned": True}
    [rewards, advantages, loss] = in_node(
        *(["numbersOf", step, now, i] for step, i in [("tokenRewards", 1), ("advantages", 0), ("loss", 0)])
    )
    assert rewards["lines"][1:] == [
        "r₀ = −0.10 · (−0.34) = 0.034",
        "r₁ = −0.10 · 0.13 = −0.013",
        "r₂ = 0 − 0.10 · (−0.01) = 0.001",
    ]
    assert advantages["lines"][2:] == [
        "Â₂ = 0.096",
        "Â₁ = 0.332 + 0.95 · 0.096 = 0.423",
        "Â₀ = 0.135 + 0.95 · 0.423 = 0.537",
    ]
    assert advantages["cells"][0] == ["+0.537", "+0.423", "+0.096"]
    assert loss["lines"][1:] == ["−ρÂ: 0.127, (target − V)²: 0.133", "loss = 0.260"]
    [advantages, equal, free] = in_node(
        ["numbersOf", "advantages", now | {"algorithm": "grpo"}, 0],
        ["numbersOf", "advantages", now | {"algorithm": "grpo", "rewards": [1, 1, 1, 1]}, 2],
        ["numbersOf", "tokenRewards", now | {"beta": 0}, 0],
    )
    assert advantages["lines"][1] == "Â₁ = (1 − 0.25) / 0.5001 = +1.500"
    assert equal["lines"][1] == "Â₃ = 0, as all rewards are equal"
    assert equal["cells"] == [["0"] * 3] * 3 + [["0"] * 2]
    assert free["lines"] == ["r₂ = R₁ = 1, the others 0"]


# The drawing

SETTINGS = [
    (width, {"algorithm": algorithm, "beta": beta})
    for width in (290, 306, 340, 420, 520)
    for algorithm in ("ppo", "grpo")
    for beta in (0, 0.1)
]


def drawings():
    return zip(SETTINGS, in_node(*(["layout", width, now] for width, now in SETTINGS)), strict=True)


def inside(box, point):
    """Whether a point is in a box and not on its edge."""
    x, y = point
    return box["x"] < x < box["x"] + box["w"] and box["y"] < y < box["y"] + box["h"]


def on_edge(box, point):
    x, y = point
    across = box["x"] - 1e-9 <= x <= box["x"] + box["w"] + 1e-9
    along = box["y"] - 1e-9 <= y <= box["y"] + box["h"] + 1e-9
    smaller = {"x": box["x"] + 1e-6, "y": box["y"] + 1e-6, "w": box["w"] - 2e-6, "h": box["h"] - 2e-6}
    return across and along and not inside(smaller, point)


def test_boxes_keep_apart_and_in_the_drawing():
    for (width, now), drawing in drawings():
        boxes = drawing["boxes"]
        assert ("values" in boxes) == (now["algorithm"] == "ppo")
        assert ("referenceLogProbs" in boxes) == (now["beta"] > 0)
        for box in boxes.values():
            assert box["w"] > 70
            assert 0 <= box["x"] < box["x"] + box["w"] <= width
            assert 0 <= box["y"] < box["y"] + box["h"] <= drawing["height"]
        for one, other in itertools.combinations(boxes.values(), 2):
            apart = (
                max(one["x"] - other["x"] - other["w"], other["x"] - one["x"] - one["w"]),
                max(one["y"] - other["y"] - other["h"], other["y"] - one["y"] - one["h"]),
            )
            assert max(apart) >= 7


def test_arrows_run_from_box_to_box_and_through_none():
    for (width, now), drawing in drawings():
        boxes = drawing["boxes"]
        for arrow in drawing["arrows"]:
            points = arrow["points"]
            assert on_edge(boxes[arrow["from"]], points[0]), arrow
            assert on_edge(boxes[arrow["to"]], points[-1]), arrow
            length = 0
            for (x, y), (u, v) in itertools.pairwise(points):
                assert x == u or y == v, arrow
                length += abs(x - u) + abs(y - v)
                assert 0 <= min(x, u) <= max(x, u) <= width
                for share in np.linspace(0, 1, 200):
                    point = (x + share * (u - x), y + share * (v - y))
                    assert not any(inside(box, point) for box in boxes.values()), (now, arrow)
            assert length >= 12


def test_every_arrow_is_used_in_a_step():
    [steps] = in_node(["steps"])
    for (_, now), drawing in drawings():
        own = steps[now["algorithm"]]
        names = [f"{arrow['from']}-{arrow['to']}" for arrow in drawing["arrows"]]
        used = [name for _, arrows in own.values() for name in arrows]
        assert len(set(names)) == len(names)
        assert len(set(used)) == len(used)
        assert set(names) <= set(used)
        if now["beta"] > 0:
            assert set(names) == set(used)
            boxes = {name for active, _ in own.values() for name in active}
            assert boxes == set(drawing["boxes"]) - ({"value"} if now["algorithm"] == "grpo" else set())


# Memory


def test_memory_is_that_of_the_arithmetic():
    frozen = {"no frozen model": (False, False), "a reference": (True, False)}
    frozen |= {"a reward model": (False, True), "both": (True, True)}
    assert set(frozen) == set(SETTINGS_COMPARED)
    cases = list(itertools.product((3e7, 7e9), (2, 4), frozen))
    given = (
        dict(
            zip(
                ("parameters", "frozenBytes", "reference", "learned"),
                (n, size, *frozen[setting]),
                strict=True,
            )
        )
        for n, size, setting in cases
    )
    for (n, size, setting), page in zip(cases, in_node(*(["memoryOf", one] for one in given)), strict=True):
        comparison = Comparison(int(n), Load(), {}, {}, {})
        ppo, grpo = (comparison.reckoned_bytes_in(name, setting, size) for name in ("PPO", "GRPO"))
        assert (page["ppo"], page["grpo"]) == (ppo, grpo)
        assert page["saved"] == near(1 - grpo / ppo)
        parts = ["policy", "value model", *SETTINGS_COMPARED[setting]]
        assert [bar["part"] for bar in page["parts"]] == parts


def test_measured_memory_is_added_up_in_order():
    def bar(part, ppo, grpo):
        return {"label": "small", "part": part, "ppo": ppo, "grpo": grpo}

    bars = [
        bar("activations", 50, 70),
        bar("reference", 7, 7),
        bar("policy", 30, 30),
        bar("value model", 20, 0),
    ]
    given = {"bars": bars, "reference": True, "learned": True, "frozenBytes": 4}
    [all_of_it, less, none] = in_node(
        ["memoryOf", given],
        ["memoryOf", given | {"reference": False}],
        ["memoryOf", given | {"bars": []}],
    )
    assert [one["part"] for one in all_of_it["parts"]] == [
        "policy",
        "value model",
        "reference",
        "activations",
    ]
    assert (all_of_it["ppo"], all_of_it["grpo"]) == (107, 107)
    assert all_of_it["saved"] == 0
    assert (less["ppo"], less["grpo"]) == (100, 100)
    assert none == {"parts": [], "ppo": 0, "grpo": 0, "saved": 0}


def test_bytes():
    counts = [0, 999, 1000, 12_345, 999_600, 112e9, 1.5e12, 7e15]
    texts = ["0 B", "999 B", "1 kB", "12.3 kB", "1 MB", "112 GB", "1.5 TB", "7000 TB"]
    assert in_node(*(["bytes", count] for count in counts)) == texts
