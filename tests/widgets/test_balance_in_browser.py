"""*Balance it yourself* on a page opened from disk, in Chromium, with the network cut off."""

import re

import gymnasium as gym
import pytest
from in_browser import PHONE, expect_it_fits, fact, first, press, state_of, tab_through, wait_for_pixels
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def score(figure, driver, column):
    return figure.locator(f'tr[data-driver="{driver}"] [data-score="{column}"]')


def expect_end(figure):
    expect(figure).to_have_attribute("data-phase", "ended", timeout=20_000)


def steps_always_right(seed):
    env = gym.make("CartPole-v1")
    env.reset(seed=seed)
    steps = 1
    while not env.step(1)[2]:
        steps += 1
    return steps


def test_mounts_and_waits_for_the_reader(open_site):
    page = open_site()
    assert page.locator(".figure").count() == 2
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    figure = first(page)
    expect(figure).to_have_attribute("data-phase", "waiting")
    expect(figure.locator(".message")).to_contain_text("Push to begin")
    expect(fact(figure, "return")).to_have_text("0")
    expect(figure.locator("canvas")).to_have_attribute(
        "aria-label", re.compile("Cart at .* metres, pole leaning")
    )
    page.keyboard.press("ArrowRight")  # the figure has no focus yet: the key is the page's
    assert state_of(page)["phase"] == "waiting"


def test_draws_the_cart_crisply(open_site):
    page = open_site(device_scale_factor=2)
    size = first(page).locator("canvas").evaluate("canvas => canvas.width / canvas.clientWidth")
    assert size == pytest.approx(2, abs=0.01)
    wait_for_pixels(first(page), "#e69f00", more_than=1000)


def test_played_by_keyboard_to_the_end(open_site):
    page = open_site()
    figure = first(page)
    figure.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    expect_end(figure)
    steps = str(steps_always_right(seed=0))
    expect(fact(figure, "step")).to_have_text(steps)
    expect(fact(figure, "return")).to_have_text(steps)
    expect(fact(figure, "last action")).to_have_text("1 (right)")
    expect(figure.locator(".message")).to_contain_text("Terminated: the pole fell")
    expect(figure.get_by_role("status")).to_contain_text(f"You reached a return of {steps}.")
    for column in ("here", "last", "best"):
        expect(score(figure, "you", column)).to_have_text(steps)
    page.keyboard.press("ArrowLeft")
    expect(figure).to_have_attribute("data-phase", "ended")  # a late key starts nothing
    page.keyboard.press("Space")
    expect(figure).to_have_attribute("data-phase", "waiting")
    page.keyboard.press("ArrowRight")
    expect_end(figure)
    expect(score(figure, "you", "episodes")).to_have_text("2")
    expect(fact(figure, "step")).to_have_text(steps)  # same start, same pushes, same episode


def test_two_figures_do_not_share_state(open_site):
    page = open_site()
    page.locator(".stage").first.focus()
    page.keyboard.press("ArrowLeft")
    expect_end(first(page))
    assert (state_of(page, 1)["phase"], state_of(page, 1)["seed"]) == ("waiting", 20)
    expect(page.locator(".figure .seed").nth(1)).to_have_text("20")


def test_ppo_is_truncated_and_random_falls(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "Random policy")
    press(figure, "eight times real time")
    expect_end(figure)
    expect(figure.locator(".message")).to_contain_text("Terminated")
    assert 8 <= state_of(page)["return"] < 200
    press(figure, "PPO network")
    press(figure, "eight times real time")
    expect_end(figure)
    expect(figure.locator(".message")).to_contain_text("Truncated: the time limit of 500 steps")
    for column in ("here", "last", "best"):
        expect(score(figure, "ppo", column)).to_have_text("500")
    expect(score(figure, "random", "episodes")).to_have_text("1")


def test_new_start_moves_to_the_next_seed(open_site):
    page = open_site()
    figure = first(page)
    before = state_of(page)["state"]
    press(figure, "New start")
    expect(figure.locator(".seed")).to_have_text("1")
    assert state_of(page)["state"] != before
    page.evaluate("for (let i = 0; i < 49; i++) document.querySelector('.policyopt-widget').policyopt.next()")
    assert state_of(page)["state"] == before  # after the 50 starts comes the first again


def test_pause_step_and_the_repeated_push(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "Step")
    expect(figure.locator(".message")).to_contain_text("Choose a push first")
    page.keyboard.press("ArrowLeft")  # the focus is on "Step": the key belongs to the figure all the same
    for _ in range(3):
        press(figure, "Step")
    assert (state_of(page)["step"], state_of(page)["action"], state_of(page)["phase"]) == (3, 0, "paused")
    press(figure, "push right →")
    press(figure, "Step")
    assert (state_of(page)["step"], state_of(page)["action"]) == (4, 1)
    press(figure, "Play")
    expect_end(figure)


@pytest.mark.parametrize(
    ("speed", "steps"),
    [("real time, 50 steps a second", 50), ("half speed", 25), ("quarter speed", 12.5)],
)
def test_speed_is_steps_of_the_environments_own_length(open_site, speed, steps):
    page = open_site(stopped_clock=True)
    press(first(page), "PPO network")
    press(first(page), speed)
    page.clock.run_for(1000)
    assert state_of(page)["step"] == pytest.approx(steps, abs=2)
    page.clock.run_for(2000)
    assert state_of(page)["step"] == pytest.approx(3 * steps, abs=2)


def test_touch_and_360_pixels(open_site):
    page = open_site(**PHONE)
    figure = first(page)
    expect_it_fits(figure)
    finger = {"pointerType": "touch", "button": 0, "bubbles": True}
    figure.locator(".stage").dispatch_event("pointerdown", finger)  # the beginning of a scroll
    assert state_of(page)["phase"] == "waiting"
    figure.get_by_role("button", name="push right").tap()
    assert state_of(page)["phase"] in ("running", "ended")
    expect_end(figure)
    expect(fact(figure, "last action")).to_have_text("1 (right)")
    expect_it_fits(figure)
    figure.get_by_role("button", name="Same start").tap()
    figure.locator(".stage").tap(position={"x": 40, "y": 120})
    expect_end(figure)
    expect(fact(figure, "last action")).to_have_text("0 (left)")
    for name in ("Random", "PPO"):
        figure.get_by_role("button", name=name).tap()
        expect_it_fits(figure)
    target = figure.get_by_role("button", name="push left").bounding_box()
    assert target["height"] >= 48
    assert target["width"] >= 120


def test_follows_the_theme_of_the_page(open_site):
    page = open_site(color_scheme="dark")
    theme = "() => document.querySelector('.policyopt-widget [data-lm-suppress-shortcuts]').dataset.theme"

    def paper():
        return first(page).evaluate("f => getComputedStyle(f).backgroundColor")

    assert page.evaluate(theme) == "dark"
    dark = paper()
    page.evaluate("document.body.dataset.jpThemeLight = 'true'")  # JupyterLab
    assert page.evaluate(theme) == "light"
    assert paper() != dark
    wait_for_pixels(first(page), "#222832", more_than=100)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")  # Sphinx
    assert page.evaluate(theme) == "dark"
    assert paper() == dark
    wait_for_pixels(first(page), "#dfe5ea", more_than=100)
    page.add_style_tag(content="html { --pst-color-text-base: #ff0000; }")  # a theme whose CSS comes late
    wait_for_pixels(first(page), "#ff0000", more_than=100)


@pytest.mark.parametrize(("motion", "phase"), [("reduce", "waiting"), ("no-preference", "running")])
def test_reduced_motion_starts_nothing_by_itself(open_site, motion, phase):
    page = open_site(reduced_motion=motion)
    figure = first(page)
    press(figure, "PPO network")
    assert state_of(page)["phase"] == phase
    if motion == "reduce":
        press(figure, "Play")
    expect(figure).to_have_attribute("data-phase", "running")


def test_push_buttons_work_by_keyboard(open_site):
    page = open_site()
    first(page).get_by_role("button", name="push left").focus()
    page.keyboard.press("Enter")
    expect_end(first(page))
    expect(fact(first(page), "last action")).to_have_text("0 (left)")
    page.keyboard.press("n")  # the focus has stayed in the figure
    expect(first(page)).to_have_attribute("data-phase", "waiting")
    expect(first(page).locator(".seed")).to_have_text("1")


def test_everything_is_reached_by_keyboard(open_site):
    page = open_site()
    page.locator(".stage").first.focus()
    names = tab_through(page, 11)
    assert names[:4] == ["← push left", "push right →", "Play", "Step"]
    assert names[8:10] == ["Same start", "New start"]
    assert names[10] == "You"  # the second figure
