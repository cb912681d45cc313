"""The clip explorer on a page opened from disk, in Chromium, with the network cut off."""

import re

import pytest
from in_browser import (
    PHONE,
    button,
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

from policyopt.widgets import ClipExplorer

pytestmark = pytest.mark.browser

CASES = [f"{sign}-{side}" for sign in ("good", "bad") for side in ("low", "inside", "high")]


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(ClipExplorer(), ClipExplorer(clip=0.1, advantage=-1.5, ratio=0.8))


@pytest.fixture
def open_figure(open_site):
    """open_figure(**context options) opens the page: the page, and its first figure."""

    def open_page(**options):
        page = open_site(**options)
        return page, first(page)

    return open_page


def across(figure, ratio):
    """Where in the window a ratio stands."""
    box = figure.locator(".stage").bounding_box()
    return box["x"] + 40 + ratio / 2 * (box["width"] - 54), box["y"] + 120


def test_mounts_inside_the_clip_range(open_figure):
    page, figure = open_figure()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    expect(fact(figure, "objective")).to_have_text("+1.000")
    expect(fact(figure, "gradient")).to_have_text("+1.000")
    expect(figure.locator(".verdicts .shown")).to_contain_text("inside the clip range")
    expect(figure.locator("canvas")).to_have_attribute(
        "aria-label", re.compile(r"clip range from 0\.80 to 1\.20\. At the ratio 1\.00: objective 1\.000")
    )
    second = page.locator(".figure").nth(1)
    expect(fact(second, "unclipped")).to_have_text("−1.200")
    expect(fact(second, "clipped")).to_have_text("−1.350")
    expect(fact(second, "gradient")).to_have_text("0")
    expect(second.locator('[data-case="bad-low"]')).to_have_attribute("aria-pressed", "true")


def test_numbers_end_where_the_sliders_do(open_figure):
    _, figure = open_figure()
    figure.evaluate("figure => figure.style.width = '688px'")  # as in a chapter, beside its contents
    boxes = [figure.locator(part).bounding_box() for part in (".numbers", ".sliders")]
    right = [box["x"] + box["width"] for box in boxes]
    assert right[0] == pytest.approx(right[1], abs=0.5)


def test_the_point_is_dragged_then_moved_by_keys(open_figure):
    page, figure = open_figure()
    page.mouse.move(*across(figure, 1))
    page.mouse.down()
    page.mouse.move(*across(figure, 1.4))
    assert state_of(page)["ratio"] == pytest.approx(1.4, abs=0.011)
    assert state_of(page)["case"] == "good-high"
    page.mouse.move(*across(figure, 3))
    assert state_of(page)["ratio"] == 2  # no further than the axis
    page.mouse.move(*across(figure, 1.3))
    page.mouse.up()
    page.mouse.move(*across(figure, 0.2))
    held = state_of(page)["ratio"]
    assert held == pytest.approx(1.3, abs=0.011)
    page.evaluate("window.turned = 0; addEventListener('keydown', () => (window.turned += 1))")
    page.keyboard.press("ArrowLeft")  # the point is still the reader's
    assert state_of(page)["ratio"] == pytest.approx(held - 0.01)
    page.keyboard.press("Home")
    assert (state_of(page)["ratio"], state_of(page)["case"]) == (0, "good-low")
    assert page.evaluate("turned") == 0


def test_on_the_border_the_gradient_is_still_there(open_figure):
    page, figure = open_figure()
    in_page(page, "figure.set({clip: 0.18, advantage: -1, ratio: 0.83})")
    slider = figure.get_by_label("ρₜ(θ), importance ratio")
    slider.focus()
    page.keyboard.press("ArrowLeft")  # 0.82, which is not 1 - 0.18 in floating point
    assert (state_of(page)["case"], state_of(page)["gradient"]) == ("border", -1)
    expect(figure.locator(".verdicts .shown")).to_contain_text(
        "PyTorch takes the slope of the unclipped side"
    )
    expect(slider).to_have_attribute("aria-valuetext", "0.82, objective −0.820, gradient −1.000")
    page.keyboard.press("ArrowLeft")
    assert (state_of(page)["case"], state_of(page)["gradient"]) == ("bad-low", 0)
    expect(fact(figure, "objective")).to_have_text("−0.820")


def test_each_case_has_its_button_and_its_sentence(open_figure):
    page, figure = open_figure()
    height, seen = figure.bounding_box()["height"], set()
    in_page(page, "figure.set({advantage: 0.5})")
    for name in CASES:
        figure.locator(f'[data-case="{name}"]').click()
        state = state_of(page)
        assert state["case"] == name
        assert abs(state["advantage"]) == 0.5
        expect(figure.locator('[aria-pressed="true"]')).to_have_attribute("data-case", name)
        shown = figure.locator(".verdicts .shown")
        expect(shown).to_have_count(1)
        assert ("no more push" in shown.inner_text()) == (state["gradient"] == 0)
        expect(figure.get_by_role("status")).to_contain_text(shown.inner_text())
        seen.add(shown.inner_text())
        assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)  # nothing jumps
    assert len(seen) == 6


def test_sliders_of_advantage_and_clip_range(open_figure):
    page, figure = open_figure()
    advantage = figure.get_by_label("Âₜ, advantage")
    advantage.focus()
    page.keyboard.press("Home")
    assert state_of(page)["advantage"] == -2
    page.keyboard.press("ArrowRight")
    expect(figure.locator('[data-value="advantage"]')).to_have_text("−1.90")
    advantage.fill("0")
    assert state_of(page)["case"] == "zero"
    expect(fact(figure, "gradient")).to_have_text("0")
    expect(figure.locator('[aria-pressed="true"]')).to_have_count(0)
    in_page(page, "figure.set({advantage: 1, ratio: 1.3})")
    clip = figure.get_by_label("ε, clip range")
    clip.focus()
    page.keyboard.press("End")
    assert (state_of(page)["clip"], state_of(page)["gradient"]) == (0.5, 1)
    page.keyboard.press("Home")
    assert (state_of(page)["clip"], state_of(page)["gradient"]) == (0.05, 0)


def test_following_the_gradient_ends_past_the_border(open_figure):
    page, figure = open_figure(stopped_clock=True)
    press(figure, "Follow the gradient")
    expect(button(figure, "Pause")).to_be_visible()
    page.clock.run_for(450)
    state = state_of(page)
    assert 2 <= len(state["trail"]) <= 5
    assert state["ratio"] == pytest.approx(1 + 0.03 * len(state["trail"]))
    press(figure, "Pause")
    page.clock.run_for(1000)
    assert state_of(page)["ratio"] == state["ratio"]
    press(figure, "Follow the gradient")
    page.clock.run_for(3000)
    state = state_of(page)
    assert (state["walk"], len(state["trail"])) == ("stopped", 7)
    assert state["ratio"] == pytest.approx(1.21)
    expect(figure.locator(".walk")).to_contain_text("7 steps, to ρₜ = 1.21, just past 1 + ε.")
    expect(figure.get_by_role("status")).to_contain_text("it does not pull back")
    press(figure, "One step")
    assert state_of(page)["ratio"] == state["ratio"]
    press(figure, "Back to ρ = 1")
    assert (state_of(page)["ratio"], state_of(page)["trail"]) == (1, [])


def test_one_step_and_a_push_down(open_figure):
    page, figure = open_figure()
    in_page(page, "figure.set({advantage: -1})")
    press(figure, "One step")
    assert state_of(page)["ratio"] == pytest.approx(0.97)
    expect(figure.locator(".walk")).to_have_text("1 step, ρₜ = 0.97: the gradient is −1.00.")
    in_page(page, "figure.step(50)")
    assert (len(state_of(page)["trail"]), state_of(page)["case"]) == (7, "bad-low")
    expect(figure.locator(".walk")).to_contain_text("just past 1 − ε")
    in_page(page, "figure.set({advantage: 0})")
    press(figure, "Follow the gradient")
    expect(figure.locator(".walk")).to_have_text("The gradient is 0 here: nothing moves ρₜ.")


def test_with_reduced_motion_the_walk_is_there_at_once(open_figure):
    page, figure = open_figure(stopped_clock=True, reduced_motion="reduce")
    press(figure, "Follow the gradient")
    state = state_of(page)
    assert (state["walk"], len(state["trail"])) == ("stopped", 7)


def test_touch_and_360_pixels(open_figure):
    page, figure = open_figure(**PHONE)
    expect_it_fits(figure)
    expect_targets(figure)
    height = figure.bounding_box()["height"]
    stage = figure.locator(".stage")
    finger = {"pointerType": "touch", "button": 0, "bubbles": True, "clientX": across(figure, 1.6)[0]}
    stage.dispatch_event("pointerdown", finger)  # the beginning of a scroll
    assert state_of(page)["ratio"] == 1
    stage.dispatch_event("pointermove", {**finger, "clientX": across(figure, 1.5)[0]})
    assert state_of(page)["ratio"] == pytest.approx(1.5, abs=0.011)
    stage.dispatch_event("pointercancel", finger)
    stage.tap(position={"x": 40 + 0.2 * (stage.bounding_box()["width"] - 54), "y": 150})
    assert state_of(page)["ratio"] == pytest.approx(0.4, abs=0.011)
    for name in CASES:
        figure.locator(f'[data-case="{name}"]').tap()
        in_page(page, "figure.step(100)")
        expect_it_fits(figure)
        assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)
    in_page(page, "figure.set({clip: 0.5, advantage: 0, ratio: 0})")
    expect_it_fits(figure)


def test_follows_the_theme_of_the_page(open_figure):
    page, figure = open_figure(color_scheme="light")
    light, dark = "#0072b2", "#56b4e9"
    wait_for_pixels(figure, light, more_than=500)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    wait_for_pixels(figure, dark, more_than=500)
    assert count_pixels(figure, light) == 0


def test_wrong_settings_are_named(open_figure):
    page, _ = open_figure()
    for code, message in [
        ("figure.set({clip: 2})", r"clip is 2; it must be a number from 0.05 to 0.5"),
        ("figure.set({ratio: '1'})", r"ratio is 1; it must be a number from 0 to 2"),
        ("figure.set({gamma: 1})", 'There is no setting "gamma"; there are: clip, advantage, ratio'),
        ("figure.choose('good')", 'There is no case "good"; there are: good-low, good-inside'),
    ]:
        with pytest.raises(Exception, match=message):
            in_page(page, code)
    assert state_of(page)["ratio"] == 1


def test_everything_is_reached_by_keyboard(open_figure):
    page, figure = open_figure()
    figure.get_by_label("ρₜ(θ), importance ratio").focus()
    assert tab_through(page, 11) == [
        "Âₜ, advantage",
        "ε, clip range",
        "Follow the gradient",
        "One step",
        "Back to ρ = 1",
        "good action, less likely: pushed back up",
        "good action, inside the clip range: pushed up",
        "good action, likelier: no push",
        "bad action, less likely: no push",
        "bad action, inside the clip range: pushed down",
        "bad action, likelier: pushed back down",
    ]
