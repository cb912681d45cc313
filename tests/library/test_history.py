import math

import matplotlib as mpl
import numpy as np
import pytest
import torch

from policyopt.history import History

mpl.use("agg")


@pytest.fixture
def history():
    history = History()
    history.log(step=10, episode_return=1.5, loss=torch.tensor(2.0))
    history.log(step=20, episode_return=2.5, extra=np.float32(7))
    return history


def test_columns_and_rows(history):
    assert len(history) == 2
    assert history.columns == ["step", "episode_return", "loss", "extra"]
    assert history["step"].tolist() == [10, 20]
    assert history["loss"][0] == 2.0
    assert math.isnan(history["loss"][1])
    assert history.last == {"step": 20, "episode_return": 2.5, "extra": 7.0}
    assert all(type(value) in (int, float) for row in history.rows for value in row.values())
    assert repr(history) == "History(2 rows: step, episode_return, loss, extra)"


def test_an_unknown_column_names_those_there_are(history):
    with pytest.raises(KeyError, match="no column 'retrun'; there are step, episode_return"):
        history["retrun"]


def test_frame(history):
    frame = history.to_frame()
    assert list(frame.columns) == history.columns
    assert frame["extra"].isna().tolist() == [True, False]


def test_plot(history):
    axes = history.plot("episode_return", label="PPO")
    assert axes.get_xlabel() == "environment steps"
    assert axes.get_ylabel() == "episode return"
    assert axes.lines[0].get_xdata().tolist() == [10, 20]
    assert history.plot("extra", ax=axes) is axes
    mpl.pyplot.close("all")


def test_state(history):
    copy = History()
    copy.load_state_dict(history.state_dict())
    copy.log(step=30)
    assert copy.rows[:2] == history.rows
    assert len(history) == 2
    assert History().last == {}


def test_the_time_of_each_row_is_kept_but_not_saved():
    import math
    import time

    before = time.perf_counter()
    history = History()
    history.log(step=1)
    history.log(step=2)
    assert before <= history.logged_at[0] <= history.logged_at[1] <= time.perf_counter()
    restored = History()
    restored.load_state_dict(history.state_dict())
    restored.log(step=3)
    assert [math.isnan(time) for time in restored.logged_at] == [True, True, False]
