"""*Policy gradient on a bandit* on a page opened from disk, in Chromium, with the network cut off."""

import re
from functools import partial

import pytest
from playwright.sync_api import expect

from policyopt.widgets import BanditGradient

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def bandit_site(tmp_path_factory, build_pages):
    folder = tmp_path_factory.mktemp("bandit")
    lifted = BanditGradient(offset=5, baseline="value", runs=30, seed=3)
    code, _ = build_pages(folder, [BanditGradient().page_html(), lifted.page_html()])
    assert code == 0
    return folder / "html"


@pytest.fixture
def open_bandit(open_folder, bandit_site):
    return partial(open_folder, bandit_site)


def first(page):
    return page.locator(".figure").first


def in_page(page, script, index=0):
    return page.evaluate(f"i => document.querySelectorAll('.policyopt-widget')[i].policyopt.{script}", index)


def state_of(page, index=0):
    return in_page(page, "state()", index)


def button(figure, name):
    return figure.get_by_role("button", name=name, exact=True)


def text_of(figure, name):
    return figure.locator(f"[data-{name}]").inner_text()


def number(text):
    return float(text.replace("−", "-"))


def test_starts_in_the_middle_with_the_settings_of_the_figure(open_bandit):
    page = open_bandit()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    state, other = state_of(page), state_of(page, 1)
    assert state["probabilities"] == pytest.approx([1 / 3] * 3)
    assert (state["step"], state["last"], state["playing"]) == (0, None, False)
    assert (len(state["runs"]), len(other["runs"])) == (1, 30)
    assert (other["settings"]["baseline"], other["seed"]) == ("value", 3)
    assert other["rewards"] == [6, 5.5, 5]
    assert state["exact"] == pytest.approx([1 / 6, 0, -1 / 6])
    assert other["exact"] == pytest.approx(state["exact"])
    expect(first(page).locator("canvas")).to_have_attribute(
        "aria-label", "Triangle of policies. After 0 steps the policy is A 0.33, B 0.33, C 0.33."
    )


def test_one_sample_is_written_out(open_bandit):
    page = open_bandit()
    figure = first(page)
    button(figure, "One sample").click()
    state = state_of(page)
    [sample] = state["last"]["samples"]
    assert state["step"] == 1
    assert text_of(figure, 'fact="arm"') == "ABC"[sample["arm"]]
    assert number(text_of(figure, 'fact="reward"')) == pytest.approx(sample["reward"], abs=0.005)
    assert text_of(figure, 'fact="baseline"') == "0.00"
    updates = [number(text_of(figure, f'update="{arm}"').lstrip("= ")) for arm in "ABC"]
    assert updates == pytest.approx(state["logits"], abs=0.0005)
    assert [number(text_of(figure, f'cell="policy-{arm}"')) for arm in "ABC"] == pytest.approx(
        state["probabilities"], abs=0.0005
    )
    expect(figure.get_by_role("status")).to_have_text(re.compile("^Drew [ABC], reward .* Policy A 0"))


def test_keyboard_reaches_every_control_and_the_page_keeps_its_chapter(open_bandit):
    page = open_bandit()
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


def test_restart_repeats_and_a_new_seed_does_not(open_bandit):
    page = open_bandit()
    figure = first(page)
    in_page(page, "sample(20)")
    before = state_of(page)["logits"]
    button(figure, "Restart").click()
    assert state_of(page)["step"] == 0
    in_page(page, "sample(20)")
    assert state_of(page)["logits"] == before
    button(figure, "30").click()
    in_page(page, "sample(20)")
    assert state_of(page)["logits"] == before  # the first of many is the one there was
    button(figure, "New seed").click()
    in_page(page, "sample(20)")
    assert state_of(page)["seed"] == 1
    assert state_of(page)["logits"] != before


def test_exact_steps_climb_and_draw_nothing(open_bandit):
    page = open_bandit()
    figure = first(page)
    button(figure, "Exact step").click()
    state = state_of(page)
    assert state["logits"] == pytest.approx([1 / 60, 0, -1 / 60])
    assert text_of(figure, 'fact="arm"') == "–"
    expect(figure.locator(".rule")).to_have_text("Δθ = α ∇J")
    expect(figure.get_by_role("status")).to_contain_text("Exact step.")


def test_spread_is_printed_and_the_offset_blows_it_up(open_bandit):
    page = open_bandit()
    figure = first(page)

    def printed():
        return {
            key: number(text_of(figure, f'spread="{key}"')) for key in ("none", "mean", "value", "gradient")
        }

    plain = printed()
    assert plain == pytest.approx({**state_of(page)["spread"], "gradient": 2**0.5 / 6}, abs=0.0005)
    in_page(page, "set({offset: 5})")
    lifted = printed()
    assert lifted["none"] > 5 * plain["none"]
    assert (lifted["value"], lifted["gradient"]) == (plain["value"], plain["gradient"])
    in_page(page, "set({batch: 16})")
    assert printed()["none"] == pytest.approx(lifted["none"] / 4, abs=0.001)


def count_pixels(figure, colour):
    return figure.locator("canvas").evaluate(
        """(canvas, rgb) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let found = 0;
            for (let i = 0; i < data.length; i += 4) found += rgb.every((value, k) => data[i + k] === value);
            return found;
        }""",
        list(bytes.fromhex(colour[1:])),
    )


def test_possible_steps_and_arrows_are_drawn(open_bandit):
    page = open_bandit()
    figure = first(page)
    exact, estimate, with_baseline, others = "#00734f", "#c04f00", "#0072b2", "#9a4f80"
    assert count_pixels(figure, exact) > 50
    assert count_pixels(figure, estimate) == count_pixels(figure, with_baseline) == 0
    assert count_pixels(figure, others) == 0
    button(figure, "One sample").click()
    assert count_pixels(figure, estimate) > 50
    button(figure, "running mean").click()
    button(figure, "Show 200 possible steps").click()
    assert count_pixels(figure, with_baseline) > 200
    expect(button(figure, "Show 200 possible steps")).to_have_attribute("aria-pressed", "true")
    button(figure, "30").click()
    in_page(page, "sample(60)")
    assert count_pixels(figure, others) > 200


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_play_goes_at_the_chosen_speed_and_ends(open_bandit, motion):
    page = open_bandit(stopped_clock=True, reduced_motion=motion)
    figure = first(page)
    page.clock.run_for(1000)
    assert state_of(page)["step"] == 0  # nothing moves unasked
    button(figure, "Play").click()
    page.clock.run_for(1000)
    assert state_of(page)["step"] == pytest.approx(20, abs=2)
    button(figure, "Pause").click()
    page.clock.run_for(1000)
    assert state_of(page)["step"] == pytest.approx(20, abs=2)
    button(figure, "100 steps a second").click()
    in_page(page, "sample(900)")
    button(figure, "Play").click()
    page.clock.run_for(2000)
    expect(figure.locator('[data-fact="step"]')).to_have_text("step 1000 of 1000")
    expect(figure.get_by_role("status")).to_contain_text("Stopped after 1000 steps. Policy A ")
    expect(button(figure, "One sample")).to_have_attribute("aria-disabled", "true")
    button(figure, "One sample").click(force=True)
    assert state_of(page)["step"] == 1000
    button(figure, "Replay").click()
    assert state_of(page)["step"] < 100


def test_thirty_runs_part_without_a_baseline(open_bandit):
    page = open_bandit()
    nearest = {}
    for baseline in ("none", "value"):
        in_page(page, f"set({{baseline: '{baseline}', runs: 30, offset: 5}})")
        in_page(page, "restart()")
        in_page(page, "sample(1000)")
        nearest[baseline] = state_of(page)["nearest"]
        assert sum(nearest[baseline]) == 30
        told = ", ".join(f"{arm} {count}" for arm, count in zip("ABC", nearest[baseline], strict=True))
        expect(first(page).get_by_role("status")).to_contain_text(f"Runs nearest each corner: {told}.")
    assert nearest["value"][0] >= 29
    assert nearest["none"][0] <= 24


def test_settings_out_of_range_are_told(open_bandit):
    page = open_bandit()
    for changes, message in [
        ("{noise: 3}", "noise cannot be 3; allowed: 0 to 2."),
        ("{baseline: 'best'}", "baseline cannot be best; allowed: none, mean, value."),
        ("{gamma: 1}", "There is no setting gamma"),
    ]:
        with pytest.raises(Exception, match=re.escape(message)):
            in_page(page, f"set({changes})")
    assert state_of(page)["settings"]["noise"] == 0.5


def test_touch_and_360_pixels(open_bandit):
    page = open_bandit(viewport={"width": 360, "height": 740}, has_touch=True, device_scale_factor=3)
    figure = first(page)

    def expect_it_fits():
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        beyond = figure.evaluate(
            """f => [...f.querySelectorAll("*")].filter((e) => !e.closest(".hidden, .meter") &&
                e.getBoundingClientRect().right > f.getBoundingClientRect().right).map((e) => e.outerHTML)"""
        )
        assert beyond == []

    expect_it_fits()
    for name in ("One sample", "Exact step", "running mean", "16", "16 samples", "30", "16 samples"):
        button(figure, name).tap()
        expect_it_fits()
    button(figure, "Show 200 possible steps").tap()
    in_page(page, "set({offset: -5, noise: 2, learning_rate: 1, batch: 1})")
    in_page(page, "sample(30)")
    expect_it_fits()
    small = figure.evaluate(
        """f => [...f.querySelectorAll("button, input")].filter((e) => {
            const { width, height } = e.getBoundingClientRect();
            return Math.min(width, height) < 38;
        }).map((e) => e.outerHTML)"""
    )
    assert small == []
    tiny = figure.evaluate(
        """f => [...f.querySelectorAll("*")].filter((e) => parseFloat(getComputedStyle(e).fontSize) < 12)
            .map((e) => e.outerHTML)"""
    )
    assert tiny == []


def test_nothing_moves_when_the_settings_change(open_bandit):
    page = open_bandit()
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
        in_page(page, script)
        assert layout() == before, script


def test_follows_the_theme_of_the_page(open_bandit):
    page = open_bandit(color_scheme="dark")
    figure = first(page)
    dark = figure.evaluate("f => getComputedStyle(f).backgroundColor")
    assert count_pixels(figure, "#2fd6a5") > 50
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(figure).not_to_have_css("background-color", dark)
    page.wait_for_timeout(100)
    assert count_pixels(figure, "#00734f") > 50
    assert count_pixels(figure, "#2fd6a5") == 0


def test_two_figures_do_not_share_state(open_bandit):
    page = open_bandit()
    in_page(page, "sample(3)")
    assert state_of(page, 1)["step"] == 0
