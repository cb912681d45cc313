"""The clip explorer's JavaScript, run by Node, against ``clipped_surrogate`` and PyTorch's gradient of it."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.losses import clipped_surrogate

ANSWER = """
const run = {
  walk: (now, most) => {
    const ratios = [now.ratio];
    for (let i = 0; i < most && page.surrogate({ ...now, ratio: ratios[i] }).gradient !== 0; i++) {
      ratios.push(page.ascend({ ...now, ratio: ratios[i] }));
    }
    return ratios;
  },
};
const answer = ([name, ...given]) => (run[name] ?? page[name])(...given);
"""
in_node = partial(run_figure, "clip_explorer", ANSWER)
CLIPS = [round(0.05 + 0.01 * i, 2) for i in range(46)]  # those of the slider


def setting(ratio, advantage, clip):
    return {"ratio": ratio, "advantage": advantage, "clip": clip}


def settings_of_all_kinds():
    random = np.random.default_rng(0)
    drawn = [
        setting(*map(float, values))
        for values in zip(
            random.uniform(0, 2, 600), random.uniform(-2, 2, 600), random.uniform(0.05, 0.5, 600), strict=True
        )
    ]
    ends = [setting(r, a, c) for r, a, c in itertools.product((0.0, 1.0, 2.0), (-2.0, 0.0, 2.0), (0.05, 0.5))]
    borders = [
        setting(1 + side * clip + offset, advantage, clip)
        for clip, side, offset, advantage in itertools.product(
            CLIPS, (-1, 1), (-1e-6, 0.0, 1e-6), (-2.0, -0.7, 0.0, 1.0)
        )
    ]
    return drawn + ends + borders


def test_objective_and_gradient_are_pytorchs():
    cases = settings_of_all_kinds()
    kinds = set()
    for case, page in zip(cases, in_node(*(["surrogate", case] for case in cases)), strict=True):
        ratio = torch.tensor(case["ratio"], dtype=torch.float64, requires_grad=True)
        advantage = torch.tensor(case["advantage"], dtype=torch.float64)
        objective = clipped_surrogate(ratio, advantage, case["clip"])
        objective.backward()
        clipped = ratio.clamp(1 - case["clip"], 1 + case["clip"])
        assert page["objective"] == pytest.approx(objective.item(), abs=1e-12)
        assert page["gradient"] == ratio.grad.item(), case
        assert page["unclipped"] == pytest.approx((ratio * advantage).item(), abs=1e-12)
        assert page["clippedRatio"] == pytest.approx(clipped.item(), abs=1e-12)
        assert page["clipped"] == pytest.approx((clipped * advantage).item(), abs=1e-12)
        kinds.add(
            (np.sign(case["advantage"]), np.sign(case["ratio"] - clipped.item()), page["gradient"] == 0)
        )
    assert len(kinds) == 9  # each sign of the advantage, below, in and above the range


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "gradient"),
    [
        (0.5, 2.0, 1.0, 2.0),  # min(1, 1.5): worse counts in full
        (1.5, 2.0, 2.5, 0.0),  # min(3, 2.5)
        (1.25, 2.0, 2.5, 2.0),  # the border: the unclipped side
        (0.5, -2.0, -1.5, 0.0),  # min(−1, −1.5)
        (0.75, -2.0, -1.5, -2.0),
        (1.5, -2.0, -3.0, -2.0),  # min(−3, −2.5)
    ],
)
def test_by_hand(ratio, advantage, objective, gradient):
    [page] = in_node(["surrogate", setting(ratio, advantage, 0.25)])
    assert (page["objective"], page["gradient"]) == (objective, gradient)


def test_the_case_says_what_the_gradient_does():
    cases = settings_of_all_kinds()
    answers = in_node(*([name, case] for case in cases for name in ("caseOf", "surrogate")))
    names = set()
    for case, name, page in zip(cases, answers[::2], answers[1::2], strict=True):
        names.add(name)
        assert (page["gradient"] == 0) == (name in ("good-high", "bad-low", "zero"))
        assert (page["gradient"] < 0) <= name.startswith(("bad", "border"))
        sign = np.sign(case["advantage"])
        assert (name == "border") == (sign != 0 and case["ratio"] == 1 + sign * case["clip"])
    assert len(names) == 8


def test_examples_are_of_their_case_and_in_range():
    names = [f"{sign}-{side}" for sign in ("good", "bad") for side in ("low", "inside", "high")]
    wanted = [(name, setting(1.3, a, c)) for name in names for a in (-2.0, -0.1, 0.0, 1.0) for c in CLIPS]
    examples = in_node(*(["example", name, now] for name, now in wanted))
    full = [{**now, **example} for (_, now), example in zip(wanted, examples, strict=True)]
    for (name, now), page, case in zip(
        wanted, full, in_node(*(["caseOf", one] for one in full)), strict=True
    ):
        assert case == name
        assert 0 <= page["ratio"] <= 2
        assert abs(page["advantage"]) == (abs(now["advantage"]) or 1)


def test_the_borders_of_the_slider_are_met_exactly():
    """0.82 is no 1 − 0.18 in floating point: without care the slider would never stand on the border."""
    clips_and_sides = list(itertools.product(CLIPS, (-1, 1)))
    ratios = [round(1 + side * clip, 2) for clip, side in clips_and_sides]
    assert any(ratio != 1 + side * clip for ratio, (clip, side) in zip(ratios, clips_and_sides, strict=True))
    snapped = in_node(*(["snap", r, clip] for r, (clip, _) in zip(ratios, clips_and_sides, strict=True)))
    assert snapped == [1 + side * clip for clip, side in clips_and_sides]
    assert in_node(["snap", 1.19, 0.2], ["snap", 1.2 + 1e-6, 0.2]) == [1.19, 1.2 + 1e-6]


def test_a_walk_ends_one_step_past_the_border():
    starts = [
        setting(r, a, c)
        for r in (0.1, 0.9, 1.0, 1.9)
        for a in (-2.0, -1.0, 0.3, 1.0, 2.0)
        for c in CLIPS[::5]
    ]
    for now, ratios in zip(starts, in_node(*(["walk", now, 1000] for now in starts)), strict=True):
        sign, border = np.sign(now["advantage"]), 1 + np.sign(now["advantage"]) * now["clip"]
        if sign * (now["ratio"] - border) > 0:
            assert ratios == [now["ratio"]]  # the clip holds from the beginning
            continue
        assert np.diff(ratios) == pytest.approx(0.03 * now["advantage"], abs=1e-8)
        assert sign * (ratios[-1] - border) > 0
        assert sign * (ratios[-2] - border) <= 0
        assert 0 <= ratios[-1] <= 2


def test_a_pointer_finds_the_ratio_it_points_at():
    places = list(itertools.product((0, 0.4, 1, 2), (320, 408)))
    xs = in_node(*(["xOf", ratio, width] for ratio, width in places))
    assert all(0 < x < width for x, (_, width) in zip(xs, places, strict=True))
    found = in_node(*(["ratioAt", x, width] for x, (_, width) in zip(xs, places, strict=True)))
    assert found == pytest.approx([ratio for ratio, _ in places], abs=1e-12)
