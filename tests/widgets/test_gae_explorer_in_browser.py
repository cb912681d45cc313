"""The GAE explorer on a page opened from disk, in Chromium, with the network cut off."""

import re

import pytest
from in_browser import (
    PHONE,
    count_pixels,
    expect_it_fits,
    expect_targets,
    fact,
    first,
    in_page,
    press,
    state_of,
    tab_through,
    wait_for_pixels,
)
from playwright.sync_api import expect

from policyopt.widgets import GAEExplorer

pytestmark = pytest.mark.browser

MINE = {"name": "by hand", "rewards": [1, 1], "values": [2, 4, 8], "terminated": False}


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(GAEExplorer(), GAEExplorer(0.5, 0.5, view="many", episodes=[MINE]))


@pytest.fixture
def open_figure(open_site):
    """open_figure(**context options) opens the page: the page, and its first figure."""

    def open_page(**options):
        page = open_site(**options)
        return page, first(page)

    return open_page


def shown(number, digits):
    return f"{number:.{digits}f}".replace("-", "−")


def test_mounts_with_an_episode_and_its_numbers(open_figure):
    page, figure = open_figure()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    state = state_of(page)
    assert (state["view"], state["gamma"], state["lambda"], state["episode"]) == ("episode", 0.95, 0.9, 0)
    step, delta = state["step"], state["deltas"][state["step"]]
    values = GAEExplorer().episodes[0]["values"]
    expect(figure.locator('[data-formula="td"]')).to_contain_text(
        f"= 1 + 0.95 · {values[step + 1]:.2f} − {values[step]:.2f} = {shown(delta, 2)}"
    )
    expect(figure.locator('[data-formula="sum"] b')).to_have_text(shown(state["advantages"][step], 2))
    expect(figure.locator(".terms tbody tr")).to_have_count(6)
    assert state["weights"][1] == pytest.approx(0.855)
    expect(figure.locator(".note")).to_contain_text("Terminated after step 25: the pole fell.")
    expect(figure.locator("canvas").first).to_have_attribute(
        "aria-label", re.compile(f"Time line of 26 steps .* TD error {shown(delta, 2)}, advantage")
    )
    sums = figure.locator(".terms tbody td:last-child").all_inner_texts()
    numbers = [float(text.replace("−", "-") or 0) for text in sums]
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=0.031)  # each is rounded


def test_a_step_is_chosen_by_keyboard_mouse_and_button(open_figure):
    page, figure = open_figure()
    line = figure.get_by_role("slider", name="Step t")
    line.focus()
    page.evaluate("window.turned = 0; addEventListener('keydown', () => (window.turned += 1))")
    for key, step in [
        ("Home", 0),
        ("ArrowRight", 1),
        ("PageUp", 6),
        ("ArrowLeft", 5),
        ("End", 25),
        ("ArrowRight", 25),
    ]:
        page.keyboard.press(key)
        assert state_of(page)["step"] == step, key
        expect(line).to_have_attribute("aria-valuenow", str(step))
    assert page.evaluate("turned") == 0  # no arrow key has reached the page
    expect(figure.locator('[data-formula="td"]')).to_contain_text("0.95 · 0 −")  # the value after the end
    assert state_of(page)["terms"] == state_of(page)["deltas"][-1:]
    press(figure, "previous step")
    assert state_of(page)["step"] == 24
    press(figure, "next step")
    page.keyboard.press("Enter")  # the button is of no more use, but keeps the focus
    assert state_of(page)["step"] == 25
    box = line.bounding_box()
    column = (box["width"] - 54) / 27
    page.mouse.move(box["x"] + 44 + 3.5 * column, box["y"] + 100)
    page.mouse.down()
    assert state_of(page)["step"] == 3
    page.mouse.move(box["x"] + 44 + 8.5 * column, box["y"] + 200)
    assert state_of(page)["step"] == 8
    page.mouse.up()
    page.mouse.move(box["x"] + 44 + 1.5 * column, box["y"] + 200)
    assert state_of(page)["step"] == 8


def test_sliders_change_the_weights(open_figure):
    page, figure = open_figure()
    lam = figure.get_by_label("λ, mixing parameter")
    lam.focus()
    page.keyboard.press("Home")
    state = state_of(page)
    assert state["lambda"] == 0
    assert state["advantages"] == state["deltas"]
    page.keyboard.press("ArrowRight")
    assert state_of(page)["lambda"] == 0.01
    gamma = figure.get_by_label("γ, discount factor")
    gamma.focus()
    page.keyboard.press("Home")
    values, state = GAEExplorer().episodes[0]["values"], state_of(page)
    assert state["deltas"] == pytest.approx([1 - value for value in values[:-1]])
    expect(figure.locator('[data-value="gamma"]')).to_have_text("0.00")


def test_both_groupings_show_the_same_sum(open_figure):
    page, figure = open_figure()
    total = figure.locator(".terms tbody tr").last.locator("td").last
    before, height = total.inner_text(), figure.bounding_box()["height"]
    press(figure, "as n-step advantages")
    assert total.inner_text() == before
    assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)  # nothing jumps
    state = state_of(page)
    assert sum(w * x for w, x in zip(state["weights"], state["terms"], strict=True)) == pytest.approx(
        state["advantages"][state["step"]]
    )
    expect(figure.locator(".terms")).to_contain_text("n = 15, to the end")
    for step in (25, 24, 23, 0):  # also with fewer terms than rows
        in_page(page, f"figure.select({step})")
        assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)


def test_the_ends_are_named(open_figure):
    _, figure = open_figure()
    choice = figure.get_by_role("combobox", name="Episode")
    choice.select_option("CartPole: cut off at a time limit")
    expect(figure.locator(".note")).to_contain_text("Truncated after step 29: the pole still stood.")
    expect(figure.locator(".note")).to_contain_text("keeps V(s₃₀) = 13.43")
    figure.get_by_role("slider", name="Step t").press("End")
    expect(figure.locator('[data-formula="td"]')).to_contain_text("0.95 · 13.43 −")
    choice.select_option("Grid: the goal is found")
    expect(figure.locator(".note")).to_contain_text("Terminated after step 17: the goal was entered.")


def test_bias_and_variance(open_figure):
    page, figure = open_figure()
    press(figure, "Bias and variance")
    expect(figure.get_by_text("100 recorded episodes")).to_be_visible()
    expect(figure.get_by_role("slider", name="Step t")).to_be_hidden()
    for critic, low, high in [("perfect", 0, 0), ("a little off", 0.5, 0.75), ("badly off", 0.76, 0.95)]:
        press(figure, critic)
        best = state_of(page)["best"]
        assert low <= best <= high
        expect(fact(figure, "best")).to_have_text(f"λ = {best:.2f}")
        expect(figure.get_by_role("status")).to_contain_text("true advantage 0.121")
    expect(fact(figure, "truth")).to_have_text("+0.121")
    in_page(page, "figure.set({lambda: 0})")
    wrong = state_of(page)
    expect(figure.locator(".verdict")).to_contain_text("A larger λ is better")
    assert wrong["mean"] < 0 < wrong["advantage"]  # the good step is blamed
    in_page(page, "figure.set({lambda: 1})")
    right = state_of(page)
    expect(figure.locator(".verdict")).to_contain_text("A smaller λ is better")
    assert abs(right["mean"] - right["advantage"]) < abs(wrong["mean"] - wrong["advantage"])
    assert right["deviation"] > wrong["deviation"]
    curve = figure.locator(".curve")
    curve.scroll_into_view_if_needed()
    box = curve.bounding_box()
    page.mouse.click(box["x"] + 44 + 0.5 * (box["width"] - 60), box["y"] + 60)
    assert state_of(page)["lambda"] == pytest.approx(0.5, abs=0.02)


def test_own_episode_and_view_of_the_second_figure(open_figure):
    page, _ = open_figure()
    second = page.locator(".figure").nth(1)
    expect(second.get_by_text("100 recorded episodes")).to_be_visible()
    press(second, "One episode")
    state = state_of(page, 1)
    assert (state["deltas"], state["advantages"]) == ([1, 1], [1.25, 1])
    assert state_of(page)["view"] == "episode"
    expect(second.locator(".note")).to_have_text(
        "Truncated after step 1. The episode would have gone on, so the last TD error keeps V(s₂) = 8.00 (○)."
    )
    with pytest.raises(Exception, match=r"gamma is 2; it must be in \[0, 1\]"):
        in_page(page, "figure.set({gamma: 2})", 1)
    with pytest.raises(Exception, match='There is no critic "good"; there are: perfect'):
        in_page(page, "figure.critic('good')", 1)


def test_touch_and_360_pixels(open_figure):
    page, figure = open_figure(**PHONE, reduced_motion="reduce")

    def expect_it_fits_fingers():
        expect_it_fits(figure)
        expect_targets(figure)

    expect_it_fits_fingers()
    line = figure.get_by_role("slider", name="Step t")
    width = line.bounding_box()["width"]
    line.tap(position={"x": 44 + 20.5 * (width - 54) / 27, "y": 200})
    assert state_of(page)["step"] == 20
    height = figure.bounding_box()["height"]
    figure.get_by_role("button", name="as n-step advantages").tap()
    expect_it_fits_fingers()
    assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)
    for episode in (1, 2):
        in_page(page, f"figure.choose({episode})")
        expect_it_fits_fingers()
        assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)
    figure.get_by_role("button", name="Bias and variance").tap()
    expect_it_fits_fingers()
    figure.get_by_role("button", name="badly off").tap()
    assert state_of(page)["critic"] == "badly off"


def test_follows_the_theme_of_the_page(open_figure):
    page, figure = open_figure(color_scheme="light")
    page.wait_for_function("document.querySelector('.policyopt-widget').policyopt")
    light, dark = "#0072b2", "#56b4e9"
    wait_for_pixels(figure, light, more_than=200)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    wait_for_pixels(figure, dark, more_than=200)
    assert count_pixels(figure, light) == 0
    press(figure, "Bias and variance")
    wait_for_pixels(figure, dark, more_than=100)


def test_everything_is_reached_by_keyboard(open_figure):
    page, figure = open_figure()
    figure.get_by_role("button", name="One episode").focus()
    names = tab_through(page, 9)
    assert names == [
        "Bias and variance",
        "γ, discount factor",
        "λ, mixing parameter",
        "Episode",
        "previous step",
        "next step",
        "Step t",
        "as TD errors",
        "as n-step advantages",
    ]
