"""*Four models* on a page opened from disk, in Chromium, with the network cut off."""

import re

import pytest
from in_browser import (
    PHONE,
    button,
    expect_it_fits,
    expect_targets,
    fact,
    first,
    in_page,
    press,
    state_of,
    tab_through,
)
from playwright.sync_api import expect

from policyopt.widgets import FourModels

pytestmark = pytest.mark.browser

PPO = [
    "prompts",
    "outputs",
    "reference",
    "rewards",
    "values",
    "tokenRewards",
    "advantages",
    "loss",
    "update",
]
GRPO = [*PPO[:4], "statistics", *PPO[6:]]
MEASURED = [
    {"label": "3 million", "part": part, "ppo": ppo, "grpo": grpo}
    for part, ppo, grpo in [
        ("policy", 48_000_000, 48_000_000),
        ("value model", 48_000_000, 0),
        ("reference", 12_000_000, 12_000_000),
        ("activations", 52_000_000, 60_000_000),
    ]
]


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(FourModels(), FourModels("grpo", 0, (0, 1, 0, 1), MEASURED))


@pytest.fixture
def open_figure(open_site):
    """open_figure(**context options) opens the page: the page, and its first figure."""

    def open_page(**options):
        page = open_site(**options)
        return page, first(page)

    return open_page


def in_use(figure):
    """The boxes and the arrows that are marked."""
    boxes = figure.locator(".box.now").evaluate_all("all => all.map((e) => e.dataset.box)")
    arrows = figure.locator(".arrow.now").evaluate_all("all => all.map((e) => e.dataset.arrow)")
    return sorted(boxes), sorted(arrows)


def box(figure, name):
    return figure.locator(f'[data-box="{name}"]')


def cells(figure, i):
    return figure.locator(f'[data-cell^="{i} "]').all_inner_texts()


def test_starts_at_the_prompts_of_ppo(open_figure):
    page, figure = open_figure()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    state = state_of(page)
    assert (state["algorithm"], state["step"], state["steps"]) == ("ppo", "prompts", PPO)
    assert in_use(figure) == (["prompts"], [])
    expect(fact(figure, "place")).to_have_text("1 of 9")
    expect(figure.locator(".flow")).to_have_attribute(
        "aria-label",
        "PPO, step 1 of 9: Prompts. In use: prompts q. The policy and the value model learn; the reference "
        "is frozen.",
    )
    assert figure.locator(".box small").all_inner_texts()[:4] == ["learns", "frozen", "frozen", "learns"]
    second = page.locator(".figure").nth(1)
    assert state_of(page, 1)["steps"] == GRPO
    expect(box(second, "value")).to_have_text("value modelnot there")
    expect(box(second, "reference")).to_have_text("reference modelnot needed")
    expect(box(second, "values")).to_have_count(0)


def test_what_learns_has_a_thick_frame_and_what_is_missing_a_dashed_one(open_figure):
    _, figure = open_figure()

    def frame(name):
        return box(figure, name).evaluate(
            "e => [getComputedStyle(e).borderTopWidth, getComputedStyle(e).borderTopStyle]"
        )

    assert [frame(name) for name in ("policy", "value")] == [["4px", "solid"]] * 2
    assert frame("reference")[0] in ("1px", "1.5px")
    press(figure, "GRPO")
    assert frame("policy") == ["4px", "solid"]
    assert frame("value")[1] == "dashed"
    press(figure, "reference model")
    assert frame("reference")[1] == "dashed"
    expect(box(figure, "referenceLogProbs")).to_have_count(0)
    press(figure, "learned reward model")
    expect(box(figure, "reward")).to_have_text("checkera program")
    assert frame("reward")[1] == "solid"
    assert figure.locator(".box.learns").count() == 1


def test_next_goes_through_all_steps_and_back(open_figure):
    page, figure = open_figure()
    height = figure.bounding_box()["height"]
    expect(button(figure, "← Back")).to_have_attribute("aria-disabled", "true")
    button(figure, "← Back").dispatch_event("click")
    seen = {}
    for step in PPO:
        assert state_of(page)["step"] == step
        seen[step] = in_use(figure)
        expect(figure.locator('[aria-current="step"]')).to_have_count(1)
        expect(figure.locator('[aria-current="step"]')).to_have_attribute("data-go", step)
        assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)  # nothing jumps
        button(figure, "Next →").dispatch_event("click")
    expect(button(figure, "Next →")).to_have_attribute("aria-disabled", "true")
    assert seen["values"] == (["value", "values"], ["outputs-value", "value-values"])
    assert seen["tokenRewards"][1] == [
        "outputs-tokenRewards",
        "referenceLogProbs-tokenRewards",
        "rewards-tokenRewards",
    ]
    assert seen["update"] == (["policy", "value"], ["loss-policy", "loss-value"])
    expect(figure.locator(".done.box")).to_have_count(10)
    press(figure, "← Back")
    assert state_of(page)["step"] == "loss"
    expect(figure.get_by_role("status")).to_contain_text("PPO, step 8 of 9: Loss. The policy reads")


def test_steps_by_the_list_a_box_and_keys(open_figure):
    page, figure = open_figure()
    page.evaluate("window.turned = 0; addEventListener('keydown', (e) => (turned += e.key !== 'Tab'))")
    button(figure, "Step 7: Advantages").click()
    assert state_of(page)["step"] == "advantages"
    expect(fact(figure, "flow")).to_have_text(
        "What flows: Ât, advantage of each token. Shape Q × G × T, here 1 × 4 × 3."
    )
    page.keyboard.press("ArrowLeft")
    assert state_of(page)["step"] == "tokenRewards"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+ArrowRight")
    assert state_of(page)["step"] == "loss"
    assert page.evaluate("turned") <= 1  # the one with Control, and its Control
    box(figure, "value").click()
    assert state_of(page)["step"] == "values"
    figure.get_by_label("β, what a nat of drift costs").focus()
    page.keyboard.press("ArrowRight")  # the slider's own
    state = state_of(page)
    assert (state["step"], state["beta"]) == ("values", 0.11)


def test_the_numbers_follow_the_rewards_and_beta(open_figure):
    page, figure = open_figure()
    in_page(page, "figure.go('advantages')")
    assert cells(figure, 0) == ["+0.537", "+0.423", "+0.096"]
    assert cells(figure, 3)[2] == ""
    before = state_of(page)["numbers"]["advantages"]
    toggler = button(figure, "output 3 is right")
    expect(toggler).to_have_attribute("aria-pressed", "false")
    toggler.click()
    expect(toggler).to_have_attribute("aria-pressed", "true")
    state = state_of(page)
    after = state["numbers"]["advantages"]
    assert (state["rewards"], state["chosen"]) == ([1, 0, 1, 0], 2)
    assert after[2] == pytest.approx([before[2][0] + 0.95**2, before[2][1] + 0.95, before[2][2] + 1])
    assert [after[i] for i in (0, 1, 3)] == [before[i] for i in (0, 1, 3)]
    assert cells(figure, 2) == [f"{value:+.3f}" for value in after[2]]
    expect(figure.locator(".working li").nth(2)).to_have_text(f"Â₂ = {after[2][2]:.3f}")
    press(figure, "GRPO")
    assert cells(figure, 2) == ["+0.866"] * 3  # 0.5 / (√(1/3) + 0.0001)
    assert cells(figure, 3) == ["−0.866", "−0.866", ""]
    for number in (2, 4):
        button(figure, f"output {number} is right").click()
    assert cells(figure, 2) == ["0"] * 3
    expect(figure.get_by_role("status")).to_have_text(re.compile("Â₄ = 0, as all rewards are equal"))
    press(figure, "PPO")
    in_page(page, "figure.go('tokenRewards')")
    slider = figure.get_by_label("β, what a nat of drift costs")
    slider.fill("0.5")
    assert cells(figure, 0) == ["−0.075", "−0.090", "0.980"]
    slider.fill("0")
    assert cells(figure, 0) == ["0.000", "0.000", "1.000"]
    expect(box(figure, "reference")).to_contain_text("not needed")
    expect(button(figure, "reference model")).to_have_attribute("aria-pressed", "false")
    press(figure, "reference model")
    assert state_of(page)["beta"] == 0.5  # as before


def test_the_algorithms_have_steps_of_their_own(open_figure):
    page, figure = open_figure()
    height = figure.bounding_box()["height"]
    for step, other in [("values", "statistics"), ("tokenRewards", "statistics"), ("loss", "loss")]:
        in_page(page, f"figure.set({{algorithm: 'ppo'}}), figure.go('{step}')")
        press(figure, "GRPO")
        assert state_of(page)["step"] == other
        assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)
    assert state_of(page)["steps"] == GRPO
    assert in_use(figure)[1] == ["advantages-loss", "outputs-loss", "referenceLogProbs-loss"]
    in_page(page, "figure.go('update')")
    assert in_use(figure) == (["policy"], ["loss-policy"])
    expect(fact(figure, "sentence")).to_contain_text("only the policy learns")
    assert figure.locator(".held").all_inner_texts() == ["1\n1.205", "2\n0.652", "end\n0.618"]
    mark = "e => getComputedStyle(e.querySelector('span'), '::after').content"
    assert figure.locator(".held").evaluate_all(f"all => all.map({mark})") == ['" ✕"'] * 3
    in_page(page, "figure.go('statistics')")
    press(figure, "PPO")
    assert state_of(page)["step"] == "values"


def test_memory_by_arithmetic(open_figure):
    page, figure = open_figure(reduced_motion="reduce")
    totals = figure.locator("[data-total]")
    assert totals.all_inner_texts() == ["280 GB", "168 GB"]
    expect(fact(figure, "saving")).to_contain_text("168 GB instead of 280 GB: 40\u00a0% less")
    stacks = figure.locator(".stack")
    widths = (
        stacks.nth(0).locator("span").evaluate_all("all => all.map((e) => e.getBoundingClientRect().width)")
    )
    assert [width / sum(widths) for width in widths] == pytest.approx([0.4, 0.4, 0.1, 0.1], abs=0.005)
    assert stacks.nth(1).locator("span").count() == 3
    press(figure, "frozen models in half, 2 bytes a parameter")
    assert totals.all_inner_texts() == ["252 GB", "140 GB"]
    press(figure, "learned reward model")
    press(figure, "reference model")
    assert totals.all_inner_texts() == ["224 GB", "112 GB"]
    expect(fact(figure, "saving")).to_contain_text("50\u00a0% less. Exactly half")
    expect(figure.get_by_role("status")).to_contain_text("112 GB instead of 224 GB")
    figure.get_by_label("Parameters of a model").select_option("30 million")
    assert totals.all_inner_texts() == ["960 MB", "480 MB"]
    assert state_of(page)["memory"]["saved"] == 0.5


def test_measured_memory_stands_first(open_figure):
    page, _ = open_figure()
    figure = page.locator(".figure").nth(1)
    select = figure.get_by_label("Parameters of a model")
    expect(select).to_have_value("3 million")
    assert figure.locator("[data-total]").all_inner_texts() == ["148 MB", "108 MB"]
    expect(figure.locator('[data-bytes="activations grpo"]')).to_have_text("60 MB")
    expect(figure.locator(".rule")).to_contain_text("Measured")
    press(figure, "reference model")
    assert figure.locator("[data-total]").all_inner_texts() == ["160 MB", "120 MB"]
    expect(fact(figure, "saving")).to_have_text("GRPO takes 120 MB instead of 160 MB: 25\u00a0% less.")
    expect(button(figure, "frozen models in half, 2 bytes a parameter")).to_have_attribute(
        "aria-disabled", "true"
    )
    select.select_option("7 billion")
    expect(figure.locator('[data-bytes="activations grpo"]')).to_be_hidden()
    expect(figure.locator(".rule")).to_contain_text("Reckoned: 16 bytes")


def test_touch_and_360_pixels(open_figure):
    page, figure = open_figure(**PHONE)
    expect_it_fits(figure)
    expect_targets(figure)
    height = figure.bounding_box()["height"]
    for algorithm, steps in [("PPO", PPO), ("GRPO", GRPO)]:
        button(figure, algorithm).tap()
        for step in steps:
            figure.locator(f'[data-go="{step}"]').tap()
            assert state_of(page)["step"] == step
            expect_it_fits(figure)
            assert figure.bounding_box()["height"] == pytest.approx(height, abs=1)
    tight = figure.evaluate(
        "f => [...f.querySelectorAll('.box')].filter((e) => e.scrollWidth > e.clientWidth + 1 || "
        "e.scrollHeight > e.clientHeight + 1).map((e) => e.dataset.box)"
    )
    assert tight == []
    small = figure.evaluate(
        "f => [...f.querySelectorAll('*')].filter((e) => e.offsetParent && e.tagName !== 'SUB' && "
        "[...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && "
        "parseFloat(getComputedStyle(e).fontSize) < 12).map((e) => e.outerHTML)"
    )
    assert small == []
    box(figure, "prompts").tap()
    assert state_of(page)["step"] == "prompts"


def test_follows_the_theme_of_the_page(open_figure):
    page, figure = open_figure(color_scheme="light")
    in_page(page, "figure.go('rewards')")
    arrow = figure.locator('[data-arrow="reward-rewards"]')
    expect(arrow).to_have_css("stroke", "rgb(0, 114, 178)")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    expect(arrow).to_have_css("stroke", "rgb(86, 180, 233)")
    expect(box(figure, "rewards")).to_have_css("background-color", "rgb(29, 52, 72)")


def test_arrows_grow_but_not_with_reduced_motion(open_figure):
    for motion, name in [("no-preference", "grow"), ("reduce", "none")]:
        page, figure = open_figure(reduced_motion=motion)
        in_page(page, "figure.go('rewards')")
        expect(figure.locator('[data-arrow="reward-rewards"]')).to_have_css("animation-name", name)
        expect(figure.locator('[data-arrow="loss-policy"]')).to_have_css("animation-name", "none")


def test_wrong_settings_are_named(open_figure):
    page, _ = open_figure()
    for code, message in [
        ("figure.go('gae')", 'There is no step "gae"; there are: prompts, outputs'),
        ("figure.go('statistics')", 'There is no step "statistics"; there are: prompts'),
        ("figure.set({beta: 2})", "beta is 2; it must be a number from 0 to 0.5"),
        ("figure.set({beta: '0.1'})", "beta is 0.1; it must be a number"),
        ("figure.set({algorithm: 'a2c'})", 'There is no algorithm "a2c"; there are: ppo, grpo'),
        ("figure.set({rewards: [1, 0, 0]})", "rewards are 1,0,0; they must be 4 numbers, each 0 or 1"),
        ("figure.set({frozenBytes: 3})", 'There is no number of bytes "3"; there are: 2, 4'),
        ("figure.set({size: 'huge'})", 'There is no size "huge"; there are: 30 million'),
        ("figure.set({gamma: 1})", 'There is no setting "gamma"; there are: algorithm, beta'),
        ("figure.toggle(4)", "There is no output 4; there are 0 to 3"),
    ]:
        with pytest.raises(Exception, match=message):
            in_page(page, code)
    state = state_of(page)
    assert (state["step"], state["beta"], state["rewards"]) == ("prompts", 0.1, [1, 0, 0, 0])


def test_everything_is_reached_by_keyboard(open_figure):
    page, figure = open_figure()
    button(figure, "PPO").focus()
    assert tab_through(page, 26) == [
        "GRPO",
        "← Back",
        "Next →",
        *(f"Step {k}: {title}" for k, title in enumerate(figure.locator(".list span").all_inner_texts(), 1)),
        *(f"output {k} is right" for k in (1, 2, 3, 4)),
        "β, what a nat of drift costs",
        "Parameters of a model",
        "reference model",
        "learned reward model",
        "frozen models in half, 2 bytes a parameter",
        "frozen models in float32, 4 bytes a parameter",
        *["PPO", "GRPO", "← Back", "Next →"],
    ]
