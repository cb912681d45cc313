"""*KL estimators* on a page opened from disk, in Chromium, with the network cut off."""

import math
import re

import numpy as np
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
from scipy import stats

from policyopt.widgets import KLEstimators

pytestmark = pytest.mark.browser
P, Q, BELOW = "#0072b2", "#00795a", "#c04f00"


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(KLEstimators(), KLEstimators(3, 1.5, samples=0, seed=5, view="gradient"))


def number(text):
    return float(text.replace("−", "-"))


def cell(figure, name):
    return figure.locator(f'[data-cell="{name}"]')


def place_of(page, name):
    """Where a handle of q is on the page."""
    box = first(page).locator(".stage").bounding_box()
    state = state_of(page)
    x = state["shift"] + (state["spread"] if name == "spread" else 0)
    fraction = math.exp(-0.5) if name == "spread" else 1
    height = 138 * fraction / state["spread"] / max(1, 1 / state["spread"])
    return box["x"] + 12 + (x + 4) / 11 * (box["width"] - 24), box["y"] + 168 - height


def test_starts_with_the_settings_of_the_figure(open_site):
    page = open_site()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    state, other = state_of(page), state_of(page, 1)
    assert (state["shift"], state["spread"], state["view"], state["seed"]) == (1, 1, "value", 0)
    assert (other["shift"], other["spread"], other["view"], other["seed"]) == (3, 1.5, "gradient", 5)
    assert (len(state["xs"]), other["xs"]) == (100, [])
    figure = first(page)
    expect(fact(figure, "truth")).to_have_text("KL(p ‖ q) = 0.500")
    expect(figure.locator(".verdict")).to_have_text(state["verdict"])
    scene = figure.locator(".stage canvas")
    expect(scene).to_have_attribute("aria-label", re.compile("100 samples are drawn"))
    wait_for_pixels(figure, P, more_than=500)
    assert count_pixels(figure, Q) > 300
    second = page.locator(".figure").nth(1)
    expect(fact(second, "x")).to_have_text("No sample yet.")
    expect(cell(second, "mean-1")).to_have_text("–")
    expect(cell(second, "deviation-3")).to_have_text("∞")


def test_samples_are_normal_and_repeat(open_site):
    page = open_site()
    before = state_of(page)["xs"]
    in_page(page, "figure.draw(1900)")
    xs = state_of(page)["xs"]
    assert xs[:100] == before
    assert stats.kstest(xs, "norm").pvalue > 0.01
    expect(button(first(page), "Draw one")).to_have_attribute("aria-disabled", "true")
    in_page(page, "figure.draw(5)")
    assert len(state_of(page)["xs"]) == 2000
    press(first(page), "Clear")
    in_page(page, "figure.draw(100)")
    assert state_of(page)["xs"] == before


def test_one_sample_is_written_out(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "Clear")
    expect(fact(figure, "x")).to_have_text("No sample yet.")
    press(figure, "Draw one")
    state = state_of(page)
    [x] = state["xs"]
    ratio = x - 0.5  # log q/p of N(1, 1) and N(0, 1)
    values = [row["values"][0] for row in state["rows"]]
    assert values == pytest.approx([-ratio, ratio**2 / 2, math.expm1(ratio) - ratio], abs=1e-12)
    printed = {name: number(fact(figure, name).inner_text().split("=")[-1]) for name in ("x", "p", "q")}
    assert printed == {
        "x": pytest.approx(x, abs=0.006),
        "p": pytest.approx(stats.norm.pdf(x), abs=0.0006),
        "q": pytest.approx(stats.norm.pdf(x, 1), abs=0.0006),
    }
    assert number(fact(figure, "log-ratio").inner_text().split("=")[1]) == pytest.approx(ratio, abs=0.0006)
    for i, value in enumerate(values, start=1):
        assert number(cell(figure, f"mean-{i}").inner_text()) == pytest.approx(value, rel=0.006, abs=0.0006)
    expect(figure.get_by_role("status")).to_have_text(re.compile("^Drew [+−].* Means: k₁ .*; exactly 0.500"))


def test_means_biases_and_deviations_are_printed(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "Draw 100")
    state = state_of(page)
    for i, row in enumerate(state["rows"], start=1):
        assert len(row["values"]) == 200
        mean, error = (number(part) for part in cell(figure, f"mean-{i}").inner_text().split("±"))
        assert mean == pytest.approx(np.mean(row["values"]), abs=0.0006)
        assert error == pytest.approx(2 * stats.sem(row["values"]), abs=0.0006)
    assert [cell(figure, f"bias-{i}").inner_text() for i in (1, 2, 3)] == ["0", "+0.125", "0"]
    assert [cell(figure, f"biasShare-{i}").inner_text() for i in (1, 2, 3)] == ["0 %", "+25 %", "0 %"]
    assert [cell(figure, f"deviation-{i}").inner_text() for i in (1, 2, 3)] == ["1.00", "0.866", "0.848"]
    assert cell(figure, "deviationShare-1").inner_text() == "2.00 × KL"


def test_infinite_variance_gets_no_error_bar(open_site):
    page = open_site()
    figure = first(page)
    in_page(page, "figure.set({spread: 1.4})")
    expect(cell(figure, "mean-3")).to_have_text(re.compile(r"± \d"))
    in_page(page, "figure.set({spread: 1.45})")
    expect(cell(figure, "mean-3")).to_have_text(re.compile(r"± \?$"))
    expect(cell(figure, "mean-1")).to_have_text(re.compile(r"± \d"))
    expect(cell(figure, "deviation-3")).to_have_text("∞")
    expect(figure.locator(".verdict")).to_contain_text("its variance is infinite")
    assert figure.locator(".meter.beyond").count() == 1


def test_gradients_are_a_view_of_the_same_samples(open_site):
    page = open_site()
    figure = first(page)
    in_page(page, "figure.set({spread: 1.25})")
    xs = state_of(page)["xs"]
    press(figure, "a gradient")
    expect(button(figure, "a gradient")).to_have_attribute("aria-pressed", "true")
    state = state_of(page)
    assert state["xs"] == xs
    assert state["rows"][0]["values"] == pytest.approx([-x for x in xs])
    assert [row["mean"] for row in state["rows"]] == pytest.approx([0, 0.64, 1])
    expect(fact(figure, "truth")).to_have_text("−∂KL(p ‖ q)/∂μ = 0.640")
    expect(figure.locator('[data-claim="3"]')).to_have_text("gradient of KL(q ‖ p)")
    expect(figure.get_by_role("status")).to_contain_text("k₁ is only noise")


@pytest.mark.parametrize(("name", "limit"), [("shift", 3), ("spread", 2)])
def test_handles_are_dragged(open_site, name, limit):
    page = open_site()
    figure = first(page)
    unit = (figure.locator(".stage").bounding_box()["width"] - 24) / 11
    x, y = place_of(page, name)
    page.mouse.move(x + 4, y + 3)
    page.mouse.down()
    page.mouse.move(x + 4 + unit / 2, y + 20, steps=3)
    assert state_of(page)[name] == pytest.approx(1.5, abs=0.051)
    page.mouse.move(x + 5 * unit, y)
    assert state_of(page)[name] == limit
    page.mouse.up()
    page.mouse.move(x - unit, y)
    assert state_of(page)[name] == limit  # let go of
    other = {"shift": "spread", "spread": "shift"}[name]
    assert state_of(page)[other] == 1
    page.keyboard.press("ArrowLeft")  # the slider has the focus now
    assert state_of(page)[name] == pytest.approx(limit - 0.05)


def test_a_press_elsewhere_moves_nothing(open_site):
    page = open_site()
    box = first(page).locator(".stage").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 30, box["y"] + 40)
    assert (state_of(page)["shift"], state_of(page)["spread"]) == (1, 1)


def test_keyboard_reaches_everything_and_the_page_keeps_its_chapter(open_site):
    page = open_site()
    figure = first(page)
    page.evaluate("document.addEventListener('keydown', (e) => (window.heard = e.key))")
    figure.locator("input").first.focus()
    names = tab_through(page, 7)
    assert names == [
        "spread of q (of p: 1)",
        "Draw one",
        "Draw 100",
        "Fresh",
        "Clear",
        "a value",
        "a gradient",
    ]
    figure.locator("input").first.focus()
    page.keyboard.press("End")
    assert state_of(page)["shift"] == 3
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert state_of(page)["shift"] == 0.05
    assert page.evaluate("window.heard") == "Tab"
    button(figure, "Draw 100").focus()
    page.keyboard.press("Enter")
    assert len(state_of(page)["xs"]) == 200
    button(figure, "Fresh").focus()
    page.keyboard.press("Space")
    expect(fact(figure, "seed")).to_have_text("seed 1")
    assert len(state_of(page)["xs"]) == 200


def test_touch_and_360_pixels_and_nothing_jumps(open_site):
    page = open_site(**PHONE)
    figure = first(page)
    expect_targets(figure)
    heights = set()
    for setting in (
        "{}",
        "{shift: 3, spread: 1}",
        "{shift: 3, spread: 1.4}",
        "{shift: 0, spread: 1}",
        "{shift: 0.5, spread: 2}",
        "{view: 'gradient', shift: 1.5}",
        "{shift: 3, spread: 0.5}",
        "{shift: 0}",
    ):
        in_page(page, f"figure.set({setting})")
        expect_it_fits(figure, but=".hidden, .meter")
        heights.add(round(figure.bounding_box()["height"]))
    assert len(heights) == 1
    button(figure, "Draw one").tap()
    assert len(state_of(page)["xs"]) == 101
    in_page(page, "figure.set({shift: 1, spread: 1})")
    figure.locator(".stage").scroll_into_view_if_needed()
    x, y = place_of(page, "shift")
    touch = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x + 15, "y": y}]),
        ("touchMove", [{"x": x + 40, "y": y}]),
        ("touchEnd", []),
    ):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert state_of(page)["shift"] > 2


def test_wide_page_does_not_jump_either(open_site):
    page = open_site(viewport={"width": 1000, "height": 900})
    figure = first(page)
    heights = set()
    for setting in ("{}", "{shift: 3}", "{spread: 2}", "{shift: 1.5, view: 'gradient'}", "{shift: 0}"):
        in_page(page, f"figure.set({setting})")
        heights.add(round(figure.bounding_box()["height"]))
    assert len(heights) == 1


def test_dark_theme(open_site):
    page = open_site(color_scheme="dark")
    wait_for_pixels(first(page), "#56b4e9", more_than=300)
    assert count_pixels(first(page), P) == 0


def test_negative_values_are_hollow_and_of_their_own_colour(open_site):
    page = open_site()
    figure = first(page)

    def below():
        return figure.locator(".strip canvas").evaluate_all(
            """(all, rgb) => all.map((canvas) => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let found = 0;
                for (let i = 0; i < data.length; i += 4) {
                    found += rgb.every((value, k) => Math.abs(data[i + k] - value) < 40);
                }
                return found;
            })""",
            list(bytes.fromhex(BELOW[1:])),
        )

    first_strip, second, third = below()
    assert first_strip > 50
    assert second == third == 0


def test_misuse_is_told(open_site):
    page = open_site()
    for call, message in [
        ("set({shift: 4})", "shift is 4; it must be a number from 0 to 3."),
        ("set({spread: 'wide'})", "spread is wide; it must be a number from 0.5 to 2."),
        ("set({view: 'both'})", 'There is no view "both"; there are: value, gradient.'),
        ("set({seed: 1})", 'There is no setting "seed"; there are: shift, spread, view.'),
    ]:
        told = in_page(
            page, f"(() => {{ try {{ figure.{call}; }} catch (error) {{ return error.message; }} }})()"
        )
        assert told == message
    assert state_of(page)["shift"] == 1


def test_reduced_motion_moves_nothing_by_itself(open_site):
    page = open_site(reduced_motion="reduce", stopped_clock=True)
    before = state_of(page)
    page.clock.run_for(3000)
    assert state_of(page) == before
