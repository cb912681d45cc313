"""*GridWorld* on a page opened from disk, in Chromium, with the network cut off."""

import re

import pytest
import torch
from in_browser import PHONE, expect_it_fits, expect_targets, fact, first, in_page, press, state_of
from playwright.sync_api import expect

from policyopt.envs import GridWorld
from policyopt.tabular import action_values, tabular_model, value_iteration
from policyopt.widgets import GridWorldFigure

pytestmark = pytest.mark.browser
CORRIDOR = ("S..G", ".#.X")


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(GridWorldFigure(), GridWorldFigure(CORRIDOR, 0.5, 0.1, -0.04, "Q-learning", seed=4))


def cell(figure, row, column):
    return figure.get_by_role("row").nth(row).get_by_role("gridcell").nth(column)


def centre(figure, row, column):
    box = cell(figure, row, column).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def table_rows(figure):
    return [row.split() for row in figure.locator(".inspect tbody tr").all_inner_texts()]


def test_sweeps_spread_the_value_of_the_goal(open_site):
    page = open_site()
    figure = first(page)
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    expect(cell(figure, 0, 4).locator(".value")).to_have_text("0")
    assert figure.get_by_role("gridcell").count() == 30
    press(figure, "One sweep")
    expect(fact(figure, "sweep")).to_have_text("1")
    expect(fact(figure, "largest change")).to_have_text("1.000")
    expect(figure.get_by_role("status")).to_have_text("Sweep 1, largest change 1.000.")
    for _ in range(2):
        press(figure, "One sweep")
    values = [cell(figure, 0, column).locator(".value").inner_text() for column in range(6)]
    assert values == ["0", "0", "0.81", "0.90", "1.00", "+1"]
    expect(cell(figure, 0, 2)).to_have_attribute(
        "aria-label", "row 1, column 3, floor, value 0.81, best right"
    )
    expect(cell(figure, 0, 0)).to_have_attribute(
        "aria-label", "row 1, column 1, floor, value 0, all actions equal"
    )
    press(figure, "Reset")
    assert state_of(page)["values"] == [0] * 30
    expect(fact(figure, "sweep")).to_have_text("0")


def test_the_table_beside_the_grid_shows_the_next_sweep(open_site):
    page = open_site()
    figure = first(page)
    in_page(page, "figure.sweep(3)")
    figure.get_by_role("gridcell").nth(8).hover()  # row 2, column 3
    expect(figure.locator(".inspect-title")).to_have_text("Row 2, column 3: V(s) = 0.000")
    model = tabular_model(GridWorld(GridWorldFigure().world))
    values = torch.tensor(state_of(page)["values"], dtype=torch.float64)
    q = action_values(model, values, 0.9)[8].tolist()
    rows = table_rows(figure)
    assert [row[1] for row in rows] == ["up", "right", "down", "left"]
    assert [float(row[-1].replace("−", "-")) for row in rows] == pytest.approx(q, abs=6e-4)
    assert max(q) == pytest.approx(0.729)
    press(figure, "One sweep")
    expect(figure.locator(".inspect-title")).to_have_text("Row 2, column 3: V(s) = 0.729")
    figure.get_by_role("gridcell").nth(5).hover()
    expect(figure.locator(".rule")).to_have_text(re.compile(r"Entering earns \+1 and ends the episode"))
    assert {row[-1] for row in table_rows(figure)} == {"–"}


def test_play_stops_where_the_values_have_settled(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "100×, a hundred times as fast")
    press(figure, "Play")
    expect(figure.locator(".message")).to_have_text(re.compile(r"Settled at sweep \d+:"))
    expect(figure).to_have_attribute("data-phase", "paused")
    values, _ = value_iteration(tabular_model(GridWorld(GridWorldFigure().world)), 0.9)
    assert state_of(page)["values"] == pytest.approx(values.tolist(), abs=1e-5)


def test_play_gives_up_where_values_grow_for_ever(open_site):
    page = open_site()
    figure = first(page)
    in_page(page, "[figure.brush('floor'), figure.paint(0, 5), figure.paint(1, 5)]")
    in_page(page, "[figure.set('gamma', 1), figure.set('step_reward', 0.1)]")
    in_page(page, "figure.sweep(9990)")
    press(figure, "100×, a hundred times as fast")
    press(figure, "Play")
    expect(figure.locator(".message")).to_contain_text("Stopped after 10000 sweeps")
    assert state_of(page)["sweep"] == 10_000
    assert state_of(page)["values"] == pytest.approx([1000] * 30)
    expect(cell(figure, 0, 0).locator(".value")).to_have_text("1000")


def test_painting_by_mouse_keeps_the_values_that_then_adapt(open_site):
    page = open_site()
    figure = first(page)
    in_page(page, "figure.sweep(30)")
    before = state_of(page)["values"]
    press(figure, "Wall")
    page.mouse.move(*centre(figure, 0, 3))
    page.mouse.down()
    page.mouse.move(*centre(figure, 3, 3))  # one jump: the cells between belong to the stroke
    page.mouse.up()
    page.mouse.move(*centre(figure, 4, 3))
    state = state_of(page)
    assert [row[3] for row in state["layout"]] == ["#", "#", "#", "#", "."]
    assert state["values"] == [0 if index in (3, 9, 15, 21) else value for index, value in enumerate(before)]
    expect(figure.get_by_label("World", exact=True)).to_have_value("")
    in_page(page, "figure.sweep(200)")
    values, _ = value_iteration(tabular_model(GridWorld(state["layout"])), 0.9)
    assert state_of(page)["values"] == pytest.approx(values.tolist(), abs=1e-9)
    figure.get_by_label("World", exact=True).select_option("Open room")
    assert state_of(page)["layout"] == GridWorldFigure().world


def test_a_dragged_start_leaves_the_cells_on_its_way(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "Start")
    page.mouse.move(*centre(figure, 0, 4))
    page.mouse.down()
    page.mouse.move(*centre(figure, 0, 5))
    assert state_of(page)["layout"][0] == ".....S"
    page.mouse.move(*centre(figure, 2, 5))
    page.mouse.up()
    assert state_of(page)["layout"] == [".....G", ".....X", ".....S", "......", "......"]
    assert state_of(page)["agent"] == 17


def test_painting_by_keyboard(open_site):
    page = open_site()
    figure = first(page)
    figure.get_by_role("button", name="Pit", exact=True).focus()
    page.keyboard.press("Enter")
    cell(figure, 4, 0).focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "Enter", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert state_of(page)["layout"][3] == ".XX..."
    assert state_of(page)["looked"] == 3 * 6 + 2
    assert figure.locator(".cell[tabindex='0']").count() == 1
    expect(cell(figure, 3, 2)).to_be_focused()
    expect(cell(figure, 3, 2)).to_have_attribute("aria-label", "row 4, column 3, pit")
    seen = page.evaluate(
        "() => { window.seen = 0; document.onkeydown = () => (window.seen += 1); return 0; }"
    )
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("window.seen") == seen == 0  # the page's own arrow keys are left in peace


def test_q_learning_shows_its_update_in_numbers(open_site):
    page = open_site()
    figure = page.locator(".figure").nth(1)
    expect(figure).to_have_attribute("data-method", "Q-learning")
    press(figure, "One step")
    state = state_of(page, 1)
    last = state["last"]
    assert (state["steps"], state["episode"], last["alpha"], last["gamma"]) == (1, 1, 0.5, 0.5)

    def numbers(name):
        return [
            float(number.replace("−", "-"))
            for number in re.findall(
                r"(?:(?<=\()|(?<=^= )|(?<= ))−?\d\.\d+", figure.locator(f'[data-last="{name}"]').inner_text()
            )
        ]

    in_page(page, "figure.episode(20)", 1)
    in_page(page, "figure.step(1)", 1)
    last = state_of(page, 1)["last"]
    assert not last["terminated"]
    keys = ("reward", "gamma", "nextValue", "target")
    assert numbers("target") == pytest.approx([last[key] for key in keys], abs=6e-4)
    assert numbers("error") == pytest.approx([last[key] for key in ("target", "before", "error")], abs=6e-4)
    keys = ("before", "alpha", "error", "after")
    assert numbers("new") == pytest.approx([last[key] for key in keys], abs=6e-4)
    press(figure, "One episode")
    state = state_of(page, 1)
    assert state["ended"]
    assert state["episode"] == 21
    expect(figure.locator(".message")).to_contain_text(re.compile("Episode 21: the (goal|pit) after"))
    if state["last"]["terminated"]:
        assert numbers("target") == [state["last"]["reward"]]


def test_q_learning_comes_to_the_optimal_values(open_site):
    page = open_site()
    in_page(page, "figure.choose('Q-learning')")
    in_page(page, "[figure.set('epsilon', 1), figure.set('alpha', 1)]")  # exact, as nothing here is random
    far = state_of(page)["distance"]
    assert far["max"] == pytest.approx(1)
    in_page(page, "figure.episode(300)")
    near = state_of(page)["distance"]
    assert near["max"] < 0.01
    expect(first(page).locator(".key")).to_have_text("solid: largest 0.000, dashed: mean 0.000")
    assert len(first(page).locator("polyline").first.get_attribute("points").split()) > 50
    assert state_of(page)["world"] == "Open room"
    in_page(page, "figure.reset()")
    assert state_of(page)["distance"] == far


def test_an_episode_is_cut_off_after_100_steps_and_bootstraps(open_site):
    page = open_site()
    in_page(
        page, "[figure.choose('Q-learning'), figure.brush('wall'), figure.paint(3, 0), figure.paint(4, 1)]"
    )
    in_page(page, "[figure.set('step_reward', -0.1), figure.step(100)]")
    state = state_of(page)
    assert state["ended"]
    assert (state["last"]["truncated"], state["last"]["terminated"]) == (True, False)
    assert state["last"]["target"] == pytest.approx(-0.1 + 0.9 * state["last"]["nextValue"])
    assert state["last"]["nextValue"] < 0
    expect(first(page).locator(".message")).to_contain_text("cut off after 100 steps, return −10.00")
    press(first(page), "One step")
    assert (state_of(page)["episode"], state_of(page)["step"]) == (2, 0)


def test_worlds_without_start_goal_or_any_free_cell(open_site):
    page = open_site()
    figure = first(page)
    in_page(
        page, "[figure.choose('Q-learning'), figure.brush('floor'), figure.paint(4, 0), figure.paint(0, 5)]"
    )
    expect(figure.locator(".message")).to_contain_text("No start: each episode begins in a free cell")
    in_page(page, "figure.episode(3)")
    assert state_of(page)["episode"] == 3
    in_page(page, "figure.brush('wall')")
    for row in range(5):
        for column in range(6):
            in_page(page, f"figure.paint({row}, {column})")
    press(figure, "One step")
    expect(figure.locator(".message")).to_have_text("There is no free cell to walk in.")
    press(figure, "One episode")
    press(figure, "Play")
    expect(figure).to_have_attribute("data-phase", "paused")
    press(figure, "Value iteration")
    press(figure, "One sweep")
    assert state_of(page)["values"] == [0] * 30


def test_the_same_seed_walks_the_same_way_and_figures_are_apart(open_site):
    page = open_site()
    in_page(page, "figure.step(60)", 1)
    once = state_of(page, 1)
    assert state_of(page)["steps"] == 0
    in_page(page, "figure.reset()", 1)
    in_page(page, "figure.step(60)", 1)
    assert state_of(page, 1) == once
    assert once["world"] == "This page’s world"


def test_views_and_presets(open_site):
    page = open_site()
    figure = first(page)
    figure.get_by_label("World", exact=True).select_option("Windy shortcut")
    state = state_of(page)
    assert (state["settings"]["slip"], state["settings"]["gamma"]) == (0.2, 0.95)
    in_page(page, "figure.sweep(200)")
    corner = cell(figure, 3, 0)
    expect(corner).to_have_attribute("aria-label", re.compile("start, value 0.23, best up$"))
    press(figure, "Q(s, a)")
    expect(corner.locator(".q.greedy")).to_have_text(".23")
    assert corner.locator(".triangles").is_visible()
    assert not corner.locator(".arrow").is_visible()
    figure.get_by_role("slider", name="slip").fill("0")
    in_page(page, "figure.sweep(200)")
    expect(corner.locator(".q.greedy")).to_have_text(".81")
    expect(corner).to_have_attribute("aria-label", re.compile("best right$"))  # the short way is safe now


@pytest.mark.parametrize("method", ["Value iteration", "Q-learning"])
def test_touch_and_360_pixels(open_site, method):
    page = open_site(**PHONE)
    figure = first(page)
    figure.get_by_role("button", name=method).tap()
    in_page(page, "[figure.sweep(2), figure.episode(4), figure.set('step_reward', -0.2), figure.sweep(50)]")
    for view in ("V(s)", "Q(s, a)"):
        figure.get_by_role("button", name=view, exact=True).tap()
        expect_it_fits(figure, but=".hidden, .cell")
    box = cell(figure, 2, 2).bounding_box()
    assert min(box["width"], box["height"]) >= 34
    assert state_of(page)["looked"] == 24
    cell(figure, 2, 2).tap()
    assert state_of(page)["looked"] == 14  # looking paints nothing, and lets the page scroll
    assert state_of(page)["layout"] == GridWorldFigure().world
    board = figure.get_by_role("grid")
    assert "pan-y" in board.evaluate("b => getComputedStyle(b).touchAction")
    figure.get_by_role("button", name="Wall", exact=True).tap()
    assert board.evaluate("b => getComputedStyle(b).touchAction") == "none"
    cell(figure, 2, 2).tap()
    assert state_of(page)["layout"][2] == "..#..."
    expect_targets(figure)


def test_follows_the_theme_and_keeps_its_contrast(open_site):
    page = open_site(color_scheme="dark")
    in_page(page, "figure.sweep(30)")
    colours = """f => {
        const pick = (selector, name) => getComputedStyle(f.querySelector(selector))[name];
        return [getComputedStyle(f).backgroundColor, pick(".cell[data-kind='G']", "backgroundColor"),
            pick(".cell[data-kind='G']", "color"), pick(".square[data-sign='+']", "fill")];
    }"""
    dark = first(page).evaluate(colours)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    light = first(page).evaluate(colours)
    assert dark != light
    assert dark == ["rgb(20, 24, 30)", "rgb(86, 180, 233)", "rgb(20, 24, 30)", "rgb(61, 159, 220)"]
    assert light == ["rgb(255, 255, 255)", "rgb(0, 114, 178)", "rgb(255, 255, 255)", "rgb(0, 114, 178)"]


def test_speed_and_reduced_motion(open_site):
    page = open_site(stopped_clock=True, reduced_motion="reduce")
    figure = first(page)
    assert state_of(page)["phase"] == "paused"
    in_page(page, "figure.choose('Q-learning')")
    press(figure, "Play")
    page.clock.run_for(2000)
    assert state_of(page)["steps"] == pytest.approx(6, abs=1.5)
    assert figure.locator(".agent.smooth").count() == 0
    press(figure, "Pause")
    steps = state_of(page)["steps"]
    page.clock.run_for(1000)
    assert state_of(page)["steps"] == steps


def test_misuse_is_told(open_site):
    page = open_site()
    for call, message in [
        ("choose('sarsa')", "There is no method"),
        ("view('A')", "There is no view"),
        ("brush('lava')", "There is no brush"),
        ("world('Mars')", "There is no world"),
        ("set('gamma', 2)", "gamma cannot be 2"),
        ("set('beta', 1)", "beta cannot be 1"),
        ("paint(5, 0)", "There is no cell in row 5, column 0"),
        ("look(0, -1)", "There is no cell in row 0, column -1"),
    ]:
        told = in_page(
            page, f"(() => {{ try {{ figure.{call}; }} catch (error) {{ return error.message; }} }})()"
        )
        assert told is not None, call
        assert told.startswith(message)
