"""Learning curves over seeds: interpolated to one grid, averaged, with an interval; drawn."""

import json

import numpy as np
import pytest
from matplotlib import pyplot as plt

from policyopt.experiments.curves import learning_curves, plot_curves
from policyopt.experiments.stats import mean_curve
from policyopt.experiments.storage import Result, Store, hash_of, pack_result
from policyopt.experiments.study import Study


@pytest.fixture
def store(tmp_path):
    """Writes the histories of a made-up study: for each label one dict of columns for each seed."""

    def write(histories, environments=("CartPole-v1",)):
        seeds = range(len(next(iter(histories.values()))))
        runs = {label: ("trainers:train", {"scale": i}) for i, label in enumerate(histories)}
        study = Study("made-up", runs, environments, seeds)
        store = Store(tmp_path / "made-up")
        store.open_for_writing()
        for cell in study.cells():
            columns = {name: np.array(v, float) for name, v in histories[cell.label][cell.seed].items()}
            seconds = columns["step"] / 100
            about = {"run": cell.run, "hash": hash_of(cell.run), "provenance": {"policyopt": "1"}}
            assert json.dumps(about)
            store.write(cell, pack_result(Result(columns, np.zeros(1), seconds, about)))
        store.close()
        return study

    return write


def test_a_mean_over_one_grid(store, tmp_path):
    """0 → 100 and 0 → 300, known at different steps: from 100, where both have begun, to 300, where the first
    ends, the mean rises by 200 over 400 steps.
    """
    runs = [
        {"step": [0, 100, 400], "episode_return": [0, 25, 100]},
        {"step": [100, 200, 300], "episode_return": [75, 150, 225]},
    ]
    curves = learning_curves(store({"one": runs}), tmp_path, points=3)
    assert list(curves) == ["label", "environment", "seeds", "step", "mean", "low", "high"]
    assert curves.step.tolist() == [100, 200, 300]
    assert curves["mean"].tolist() == pytest.approx([50, 100, 150])
    assert curves.low.tolist() == pytest.approx([25, 50, 75])
    assert curves.high.tolist() == pytest.approx([75, 150, 225])
    assert curves.seeds.tolist() == [2] * 3


def test_rows_before_the_first_episode_are_left_out(store, tmp_path):
    runs = [{"step": [1, 2, 3], "episode_return": [np.nan, value, value]} for value in (4, 6)]
    curves = learning_curves(store({"one": runs}), tmp_path, points=2)
    assert curves.step.tolist() == [2, 3]
    assert curves["mean"].tolist() == [5, 5]


def test_against_the_clock(store, tmp_path):
    runs = [{"step": [100, 300], "episode_return": [0, 10]}] * 2
    curves = learning_curves(store({"one": runs}), tmp_path, x="seconds", points=3)
    assert curves.seconds.tolist() == [1, 2, 3]
    assert curves["mean"].tolist() == [0, 5, 10]


def test_each_environment_and_label_has_its_own(store, tmp_path):
    runs = [{"step": [1, 2], "episode_return": [0, 1]}] * 2
    study = store({"one": runs, "two": runs}, ["CartPole-v1", "Acrobot-v1"])
    curves = learning_curves(study, tmp_path, points=2)
    assert len(curves) == 2 * 2 * 2
    with pytest.raises(ValueError, match=r"curves are of \['Acrobot-v1', 'CartPole-v1'\]"):
        plot_curves(curves)
    ax = plot_curves(curves[curves.environment == "CartPole-v1"], colors={"one": "#0072B2"})
    assert [line.get_label() for line in ax.lines] == ["one", "two"]
    assert ax.lines[0].get_color() == "#0072B2"
    assert len(ax.collections) == 2
    assert ax.get_xlabel() == "environment steps"
    plt.close(ax.figure)


def test_what_cannot_be_drawn(store, tmp_path):
    study = store({"one": [{"step": [1, 2], "episode_return": [0, 1]}]})
    with pytest.raises(ValueError, match="no label with at least two runs of 'episode_return'"):
        learning_curves(study, tmp_path)
    with pytest.raises(KeyError, match="no column 'kl'; there are step, episode_return, seconds"):
        learning_curves(study, tmp_path, column="kl")
    with pytest.raises(ValueError, match="points is 1; it must be at least 2"):
        learning_curves(study, tmp_path, points=1)


def test_the_mean_curve_is_the_mean_of_each_point():
    values = np.random.default_rng(0).normal(size=(10, 4))
    found = mean_curve(values)
    assert found.point.tolist() == pytest.approx(values.mean(axis=0))
    error = values.std(axis=0) / 10**0.5
    assert ((found.high - found.low) / error).tolist() == pytest.approx([3.92] * 4, rel=0.1)
    assert (found.low < found.point).all()
    assert (found.point < found.high).all()
