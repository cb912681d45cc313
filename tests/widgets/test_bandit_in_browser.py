"""*Policy gradient on a bandit* on a page opened from disk, in Chromium, with the network cut off."""

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
    wait_for_pixels,
)
from playwright.sync_api import expect

from policyopt.widgets import BanditGradient

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(BanditGradient(), BanditGradient(offset=5, baseline="value", runs=30, seed=3))


def text_of(figure, name):
    return figure.locator(f"[data-{name}]").inner_text()


def number(text):
    return float(text.replace("−", "-"))


def test_starts_in_the_middle_with_the_settings_of_the_figure(open_site):
    page = open_site()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    state, other = state_of(page), state_of(page, 1)
    assert state["probabilities"] == pytest.approx([1 / 3] * 3)
    assert (state["step"], state["last"], state["playing"]) == (0, None, False)
    assert (len(state["runs"]), len(other["runs"])) == (1, 30)
    assert other["nearest"] == [0, 0, 0]  # in the centre no corner is nearest
    assert (other["settings"]["baseline"], other["seed"]) == ("value", 3)
    assert other["rewards"] == [6, 5.5, 5]
    assert state["exact"] == pytest.approx([1 / 6, 0, -1 / 6])
    assert other["exact"] == pytest.approx(state["exact"])
    expect(first(page).locator("canvas")).to_have_attribute(
        "aria-label", "Triangle of policies. After 0 steps the policy is A 0.33, B 0.33, C 0.33."
    )


def test_one_sample_is_written_out(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "One sample")
    state = state_of(page)
    [sample] = state["last"]["samples"]
    assert state["step"] == 1
    assert fact(figure, "arm").inner_text() == "ABC"[sample["arm"]]
    assert number(fact(figure, "reward").inner_text()) == pytest.approx(sample["reward"], abs=0.005)
    assert fact(figure, "baseline").inner_text() == "0.00"
    updates = [number(text_of(figure, f'update="{arm}"').lstrip("= ")) for arm in "ABC"]
    assert updates == pytest.approx(state["logits"], abs=0.0005)
    assert [number(text_of(figure, f'cell="policy-{arm}"')) for arm in "ABC"] == pytest.approx(
        state["probabilities"], abs=0.0005
    )
    expect(figure.get_by_role("status")).to_have_text(re.compile("^Drew [ABC], reward .* Policy A 0"))


def test_keyboard_reaches_every_control_and_the_page_keeps_its_chapter(open_site):
    page = open_site()
    figure = first(page)
    page.evaluate("document.addEventListener('keydown', (e) => (window.heard = e.key))")
    slider = figure.locator("input").nth(2)
    slider.focus()
    page.keyboard.press("End")
    assert state_of(page)["settings"]["offset"] == 5
    page.keyboard.press("ArrowLeft")
    assert state_of(page)["settings"]["offset"] == 4.5
    expect(figure.get_by_label("offset added to rewards")).to_have_value("4.5")
    assert page.evaluate("window.heard") == "End"
    for name, key, value in [
        ("exact J(θ)", "baseline", "value"),
        ("16", "batch", 16),
        ("30", "runs", 30),
    ]:
        button(figure, name).focus()
        page.keyboard.press("Space")
        assert state_of(page)["settings"][key] == value
        expect(button(figure, name)).to_have_attribute("aria-pressed", "true")
    button(figure, "16 samples").focus()
    page.keyboard.press("Enter")
    state = state_of(page)
    assert len(state["last"]["samples"]) == 16
    assert {run["step"] for run in state["runs"]} == {1}
    assert len({tuple(run["logits"]) for run in state["runs"]}) == 30


def test_restart_repeats_and_a_new_seed_does_not(open_site):
    page = open_site()
    figure = first(page)
    in_page(page, "figure.sample(20)")
    before = state_of(page)["logits"]
    press(figure, "Restart")
    assert state_of(page)["step"] == 0
    in_page(page, "figure.sample(20)")
    assert state_of(page)["logits"] == before
    press(figure, "30")
    in_page(page, "figure.sample(20)")
    assert state_of(page)["logits"] == before  # the first of many is the one there was
    press(figure, "New seed")
    in_page(page, "figure.sample(20)")
    assert state_of(page)["seed"] == 1
    assert state_of(page)["logits"] != before


def test_exact_steps_climb_and_draw_nothing(open_site):
    page = open_site()
    figure = first(page)
    press(figure, "Exact step")
    state = state_of(page)
    assert state["logits"] == pytest.approx([1 / 60, 0, -1 / 60])
    assert fact(figure, "arm").inner_text() == "–"
    expect(figure.locator(".rule")).to_have_text("Δθ = α ∇J")
    expect(figure.get_by_role("status")).to_contain_text("Exact step.")


def test_spread_is_printed_and_the_offset_blows_it_up(open_site):
    page = open_site()
    figure = first(page)

    def printed():
        return {
            key: number(text_of(figure, f'spread="{key}"')) for key in ("none", "mean", "value", "gradient")
        }

    plain = printed()
    assert plain == pytest.approx({**state_of(page)["spread"], "gradient": 2**0.5 / 6}, abs=0.0005)
    in_page(page, "figure.set({offset: 5})")
    lifted = printed()
    assert lifted["none"] > 5 * plain["none"]
    assert (lifted["value"], lifted["gradient"]) == (plain["value"], plain["gradient"])
    in_page(page, "figure.set({batch: 16})")
    assert printed()["none"] == pytest.approx(lifted["none"] / 4, abs=0.001)


def test_possible_steps_and_arrows_are_drawn(open_site):
    page = open_site()
    figure = first(page)
    exact, estimate, with_baseline, others = "#00734f", "#c04f00", "#0072b2", "#9a4f80"
    assert count_pixels(figure, exact) > 50
    assert count_pixels(figure, estimate) == count_pixels(figure, with_baseline) == 0
    assert count_pixels(figure, others) == 0
    press(figure, "One sample")
    assert count_pixels(figure, estimate) > 50
    press(figure, "running mean")
    press(figure, "Show 200 possible steps")
    assert count_pixels(figure, with_baseline) > 200
    expect(button(figure, "Show 200 possible steps")).to_have_attribute("aria-pressed", "true")
    press(figure, "30")
    in_page(page, "figure.sample(60)")
    assert count_pixels(figure, others) > 200


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_play_goes_at_the_chosen_speed_and_ends(open_site, motion):
    page = open_site(stopped_clock=True, reduced_motion=motion)
    figure = first(page)
    page.clock.run_for(1000)
    assert state_of(page)["step"] == 0  # nothing moves unasked
    press(figure, "Play")
    page.clock.run_for(1000)
    assert state_of(page)["step"] == pytest.approx(20, abs=2)
    press(figure, "Pause")
    page.clock.run_for(1000)
    assert state_of(page)["step"] == pytest.approx(20, abs=2)
    press(figure, "100 steps a second")
    in_page(page, "figure.sample(900)")
    press(figure, "Play")
    page.clock.run_for(2000)
    expect(fact(figure, "step")).to_have_text("step 1000 of 1000")
    expect(figure.get_by_role("status")).to_contain_text("Stopped after 1000 steps. Policy A ")
    expect(button(figure, "One sample")).to_have_attribute("aria-disabled", "true")
    button(figure, "One sample").click(force=True)
    assert state_of(page)["step"] == 1000
    press(figure, "Replay")
    assert state_of(page)["step"] < 100


def test_thirty_runs_part_without_a_baseline(open_site):
    page = open_site()
    nearest = {}
    for baseline in ("none", "value"):
        in_page(page, f"figure.set({{baseline: '{baseline}', runs: 30, offset: 5}})")
        in_page(page, "figure.restart()")
        in_page(page, "figure.sample(1000)")
        nearest[baseline] = state_of(page)["nearest"]
        assert sum(nearest[baseline]) == 30
        told = ", ".join(f"{arm} {count}" for arm, count in zip("ABC", nearest[baseline], strict=True))
        expect(first(page).get_by_role("status")).to_contain_text(f"Runs nearest each corner: {told}.")
    assert nearest["value"][0] >= 29
    assert nearest["none"][0] <= 24


def test_settings_out_of_range_are_told(open_site):
    page = open_site()
    for changes, message in [
        ("{noise: 3}", "noise cannot be 3; allowed: 0 to 2."),
        ("{baseline: 'best'}", "baseline cannot be best; allowed: none, mean, value."),
        ("{gamma: 1}", "There is no setting gamma"),
    ]:
        with pytest.raises(Exception, match=re.escape(message)):
            in_page(page, f"figure.set({changes})")
    assert state_of(page)["settings"]["noise"] == 0.5


def test_touch_and_360_pixels(open_site):
    page = open_site(**PHONE)
    figure = first(page)
    expect_it_fits(figure)
    for name in ("One sample", "Exact step", "running mean", "16", "16 samples", "30", "16 samples"):
        button(figure, name).tap()
        expect_it_fits(figure)
    button(figure, "Show 200 possible steps").tap()
    in_page(page, "figure.set({offset: -5, noise: 2, learning_rate: 1, batch: 1})")
    in_page(page, "figure.sample(30)")
    expect_it_fits(figure)
    beside_the_legends = figure.evaluate(
        """f => [...f.querySelectorAll(".legend > span")].filter((e) =>
            e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right + .5
        ).map((e) => e.outerHTML)"""
    )
    assert beside_the_legends == []
    expect_targets(figure)
    tiny = figure.evaluate(
        """f => [...f.querySelectorAll("*")].filter((e) => parseFloat(getComputedStyle(e).fontSize) < 12)
            .map((e) => e.outerHTML)"""
    )
    assert tiny == []


def test_nothing_moves_when_the_settings_change(open_site):
    page = open_site()
    figure = first(page)

    def layout():
        return figure.evaluate(
            """f => [...f.querySelectorAll("button, canvas, input, tr")].map((e) => {
                const { x, y, width, height } = e.getBoundingClientRect();
                return [x, y, width, height].map(Math.round);
            })"""
        )

    before = layout()
    for script in (
        "sample(1)",
        "set({baseline: 'mean', offset: -5, noise: 2})",
        "sample(5)",
        "cloud(true)",
        "set({batch: 16, runs: 30})",
        "sample(3)",
        "exact(1)",
    ):
        in_page(page, f"figure.{script}")
        assert layout() == before, script


def test_follows_the_theme_of_the_page(open_site):
    page = open_site(color_scheme="dark")
    figure = first(page)
    dark = figure.evaluate("f => getComputedStyle(f).backgroundColor")
    assert count_pixels(figure, "#2fd6a5") > 50
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(figure).not_to_have_css("background-color", dark)
    wait_for_pixels(figure, "#00734f", more_than=50)
    assert count_pixels(figure, "#2fd6a5") == 0


def test_two_figures_do_not_share_state(open_site):
    page = open_site()
    in_page(page, "figure.sample(3)")
    assert state_of(page, 1)["step"] == 0
