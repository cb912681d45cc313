"""The page's own JavaScript, run by Node, against policyopt's grid, planning and Q-learning."""

from functools import partial

import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.algorithms.q_learning import q_update, td_target
from policyopt.envs import GridWorld
from policyopt.tabular import action_values, tabular_model, value_iteration


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small only lose by being shared between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ANSWER = """
const modelOf = ({ layout, slip, stepReward }) => page.gridModel(layout, slip, stepReward);
const run = {
  model: (world) => modelOf(world).outcomes.map((actions) => actions.map((outcomes) => {
    const zeros = outcomes.length ? page.expectation(outcomes, Array(layoutSize(world)).fill(0)).reward : 0;
    return { outcomes, reward: zeros };
  })),
  sweeps: ({ values, gamma, count, ...world }) => {
    const model = modelOf(world);
    const trace = [];
    for (let k = 0; k < count; k++) {
      trace.push({ values, q: page.actionValues(model, values, gamma) });
      values = page.sweepOnce(model, values, gamma);
    }
    return trace;
  },
  optimal: ({ gamma, ...world }) => page.valueIteration(modelOf(world), gamma),
  learn: ({ start, steps, seed, settings, ...world }) => {
    const model = modelOf(world);
    const table = [...model.cells].map(() => [0, 0, 0, 0]);
    const uniform = page.randomStream(seed);
    const records = [];
    let state = start;
    for (let t = 0; t < steps; t++) {
      const record = page.learnStep(model, table, state, settings, uniform);
      records.push(record);
      state = record.terminated ? start : record.next;
    }
    return { records, table };
  },
  greedy: ({ rows }) => rows.map(page.greedyActions),
  reachable: (world) => page.reachable(modelOf(world)),
  texts: ({ values }) => values.map((value) => [page.short(value), page.shorter(value)]),
};
const layoutSize = ({ layout }) => layout.join("").length;
const answer = ({ call, ...rest }) => run[call](rest);
"""
in_node = partial(run_figure, "gridworld", ANSWER)


def random_worlds(count):
    """Worlds of every size and mixture, each with a start, for GridWorld asks for one."""
    rng = np.random.default_rng(0)
    worlds = []
    for _ in range(count):
        rows, columns = rng.integers(1, 11), rng.integers(1, 9)
        cells = rng.choice(list(".#GXS"), p=[0.55, 0.2, 0.1, 0.1, 0.05], size=(rows, columns))
        cells[rng.integers(rows), rng.integers(columns)] = "S"
        slip = rng.choice([0.0, 0.6, rng.uniform(0, 0.6)])
        layout = ["".join(row) for row in cells.tolist()]
        worlds.append({"layout": layout, "slip": float(slip), "stepReward": float(rng.uniform(-0.2, 0.1))})
    return worlds


def environment(world):
    return GridWorld(world["layout"], slip=world["slip"], step_reward=world["stepReward"])


WORLDS = random_worlds(40)


def test_transitions_and_rewards_are_the_environments():
    pages = in_node(*({"call": "model", **world} for world in WORLDS))
    for world, page in zip(WORLDS, pages, strict=True):
        env, model = environment(world), tabular_model(environment(world))
        transitions = np.zeros_like(env.transitions)
        for state, actions in enumerate(page):
            for action, entry in enumerate(actions):
                assert entry["reward"] == pytest.approx(float(model.rewards[state, action]), abs=1e-12)
                for outcome in entry["outcomes"]:
                    transitions[state, action, outcome["next"]] += outcome["probability"]
                    assert outcome["reward"] == env.rewards[state, action, outcome["next"]]
        assert transitions == pytest.approx(model.transitions.numpy(), abs=1e-12)


def test_each_sweep_is_the_largest_action_value_of_the_one_before():
    rng = np.random.default_rng(1)
    cases, expected = [], []
    for number, world in enumerate(WORLDS):
        model, gamma = tabular_model(environment(world)), float(rng.uniform(0, 1))
        free = model.transitions.sum(dim=(1, 2)) > 0
        values = torch.zeros(len(free), dtype=torch.float64)
        if number % 2:  # values kept from another world
            values = torch.where(free, torch.from_numpy(rng.normal(size=len(free))), values)
        cases.append({"call": "sweeps", "values": values.tolist(), "gamma": gamma, "count": 12, **world})
        expected.append([])
        for _ in range(12):
            q = action_values(model, values, gamma)
            expected[-1].append((values, q))
            values = q.amax(dim=-1)
    for trace, steps in zip(in_node(*cases), expected, strict=True):
        for row, (values, q) in zip(trace, steps, strict=True):
            assert row["values"] == pytest.approx(values.numpy(), abs=1e-9)
            assert np.array(row["q"]) == pytest.approx(q.numpy(), abs=1e-9)


def test_a_sweep_uses_old_values_only():
    world = {"layout": ["S..G"], "slip": 0.0, "stepReward": 0.0}
    [trace] = in_node({"call": "sweeps", "values": [0, 0, 0, 0], "gamma": 0.5, "count": 4, **world})
    assert [row["values"] for row in trace] == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0.5, 1, 0], [0.25, 0.5, 1, 0]]


def test_settled_values_are_the_optimal_ones():
    cases = [
        {"call": "optimal", "gamma": gamma, **world} for world in WORLDS[:20] for gamma in (0.0, 0.7, 0.97)
    ]
    for case, page in zip(cases, in_node(*cases), strict=True):
        world = {key: case[key] for key in ("layout", "slip", "stepReward")}
        values, q = value_iteration(tabular_model(environment(world)), case["gamma"])
        assert page["values"] == pytest.approx(values.numpy(), abs=1e-9)
        assert np.array(page["q"]) == pytest.approx(q.numpy(), abs=1e-9)


def test_values_that_grow_for_ever_are_no_optimum():
    world = {"layout": ["S.#G"], "slip": 0.0, "stepReward": 0.1}
    endless, ending, all_wall = in_node(
        {"call": "optimal", "gamma": 1, **world},
        {"call": "optimal", "gamma": 1, **world, "stepReward": -0.1, "layout": ["S..G"]},
        {"call": "optimal", "gamma": 1, **world, "layout": ["##"]},
    )
    assert endless is None
    assert ending["values"] == pytest.approx([0.8, 0.9, 1, 0], abs=1e-12)
    assert all_wall["values"] == [0, 0]


@pytest.fixture(scope="module")
def lessons():
    """Runs of Q-learning in the page: its settings, its record of each step, and the table at the end."""
    rng = np.random.default_rng(2)
    cases = []
    for seed, world in enumerate(WORLDS[:25]):
        settings = {"gamma": rng.uniform(0, 1), "alpha": rng.uniform(0.01, 1), "epsilon": rng.uniform(0, 1)}
        start = "".join(world["layout"]).index("S")
        cases.append(
            {"call": "learn", "start": start, "steps": 300, "seed": seed, "settings": settings, **world}
        )
    return list(zip(cases, in_node(*cases), strict=True))


def test_updates_are_those_of_the_algorithm(lessons):
    for case, page in lessons:
        settings, table = case["settings"], np.zeros((len("".join(case["layout"])), 4))
        for record in page["records"]:
            state, action = record["state"], record["action"]
            assert record["before"] == pytest.approx(table[state, action], abs=1e-9)
            assert record["nextValue"] == pytest.approx(table[record["next"]].max(), abs=1e-9)
            target = td_target(
                record["reward"], table[record["next"]], record["terminated"], settings["gamma"]
            )
            error = q_update(table, state, action, target, settings["alpha"])
            assert (record["target"], record["error"]) == pytest.approx((target, error), abs=1e-9)
            assert record["after"] == pytest.approx(table[state, action], abs=1e-9)
        assert np.array(page["table"]) == pytest.approx(table, abs=1e-9)


def test_steps_are_possible_ones_of_the_environment(lessons):
    ends = 0
    for case, page in lessons:
        env = environment(case)
        for record in page["records"]:
            transition = record["state"], record["action"], record["next"]
            assert env.transitions[transition] > 0
            assert record["reward"] == env.rewards[transition]
            assert record["terminated"] == (env.cells[record["next"]] in "GX")
            ends += record["terminated"]
    assert ends > 50


def test_slips_and_random_actions_have_their_probabilities():
    world = {"layout": ["....", "S...", "...."], "slip": 0.4, "stepReward": -0.01}
    settings = {"gamma": 0.9, "alpha": 0.5, "epsilon": 0.3}
    case = {"call": "learn", "start": 4, "steps": 4000, "seed": 0, "settings": settings, **world}
    [page] = in_node(case)
    turns = np.array([(record["direction"] - record["action"]) % 4 for record in page["records"]])
    assert np.bincount(turns, minlength=4) / 4000 == pytest.approx([0.6, 0.2, 0, 0.2], abs=0.03)
    exploring = np.array([record["exploring"] for record in page["records"]])
    assert exploring.mean() == pytest.approx(0.3, abs=0.03)
    actions = np.array([record["action"] for record in page["records"]])[exploring]
    assert np.bincount(actions, minlength=4) / len(actions) == pytest.approx([0.25] * 4, abs=0.05)


def test_greedy_steps_take_a_best_action_and_the_same_seed_repeats_them():
    world = {"layout": ["S..", ".X.", "..G"], "slip": 0.1, "stepReward": 0.0}
    settings = {"gamma": 0.9, "alpha": 0.5, "epsilon": 0.0}
    case = {"call": "learn", "start": 0, "steps": 500, "settings": settings, **world}
    first, again, other = in_node(*({**case, "seed": seed} for seed in (1, 1, 2)))
    assert first == again
    assert first != other
    table = np.zeros((9, 4))
    taken = set()
    for record in first["records"]:
        row = table[record["state"]]
        assert row[record["action"]] >= row.max() - 1e-9
        if np.ptp(row) == 0:
            taken.add(record["action"])
        row[record["action"]] = record["after"]
    assert taken == {0, 1, 2, 3}  # of equal actions not always the first


def test_greedy_actions_forgive_rounding():
    rows = [[0, 0, 0, 0], [0.1 + 0.2, 0.3, 0, 0], [1, 2, 3, 3.001], [-1, -2, -1, -3]]
    assert in_node({"call": "greedy", "rows": rows}) == [[[0, 1, 2, 3], [0, 1], [3], [0, 2]]]


def test_reachable_cells():
    world = {"slip": 0.0, "stepReward": 0.0}
    assert in_node(
        {"call": "reachable", "layout": ["S.#.", "G..X", "##.#"], **world},
        {"call": "reachable", "layout": ["SG.", "##."], **world},
        {"call": "reachable", "layout": [".#."], **world},
        {"call": "reachable", "layout": ["G#"], **world},
    ) == [[0, 1, 5, 6, 10], [0], [0, 2], []]


def test_numbers_fit_their_cells():
    values = [0, 1e-15, 0.81, -0.04, -0.001, 1, -1, -1.77, 9.996, -12.34, 123.4, -999.6, 0.996, -0.996]
    [texts] = in_node({"call": "texts", "values": values})
    plain = ["0", "0", "0.81", "−0.04", "0.00", "1.00", "−1.00", "−1.77", "10.0", "−12.3", "123", "−1000"]
    assert [pair[0] for pair in texts] == [*plain, "1.00", "−1.00"]
    brief = ["0", "0", ".81", "−.04", ".00", "1.00", "−1.0", "−1.8", "10.0", "−12.3", "123", "−1000"]
    assert [pair[1] for pair in texts] == [*brief, "1.00", "−1.0"]
