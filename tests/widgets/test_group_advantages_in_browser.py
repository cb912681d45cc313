"""*Group advantages* on a page opened from disk, in Chromium, with the network cut off."""

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

from policyopt.widgets import GroupAdvantages

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(GroupAdvantages(), GroupAdvantages((0.5, -0.5, 1.5), form="rloo"))


@pytest.fixture
def open_figure(open_site):
    """open_figure(**context options) opens the page: the page, and its first figure."""

    def open_page(**options):
        page = open_site(**options)
        return page, first(page)

    return open_page


def texts(figure, name):
    return figure.locator(f"[data-{name}]:visible").all_inner_texts()


def slider(figure, number):
    return figure.get_by_role("slider", name=f"reward of output {number}", exact=True)


def toggle(figure, number):
    return button(figure, f"output {number} is right")


def place_of(track, reward):
    """Where on a slider a reward stands: its thumb of 12 pixels stays inside."""
    box = track.bounding_box()
    return box["x"] + 6 + (box["width"] - 12) * (reward + 0.5) / 2, box["y"] + box["height"] / 2


def test_starts_with_two_of_eight_right(open_figure):
    page, figure = open_figure()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    state, other = state_of(page), state_of(page, 1)
    assert (state["rewards"], state["form"]) == ([1, 0, 0, 1, 0, 0, 0, 0], "grpo")
    assert texts(figure, "reward") == ["1", "0", "0", "1", "0", "0", "0", "0"]
    assert texts(figure, "advantage") == ["+1.62", "−0.54", "−0.54", "+1.62", *["−0.54"] * 4]
    assert texts(figure, "push") == ["0.875", "0.188", "0.245"]
    assert texts(figure, "working") == ["(1 − 0.25) / 0.463", "1 − 0.25", "1 − 0.143"]
    assert texts(figure, "result") == ["= +1.62", "= +0.75", "= +0.86"]
    expect(figure.locator(".rule")).to_have_text(
        "Âi = (Ri − R) / (σR + 0.0001)mean R = 0.25standard deviation σR = 0.463"
    )
    expect(figure.locator(".verdict")).to_have_text(state["sentence"])
    expect(figure.locator("canvas")).to_have_attribute(
        "aria-label", re.compile("GRPO's is 0.875 from 1 to 7 right.*This group: GRPO 0.875, Dr. GRPO 0.188")
    )
    assert other["form"] == "rloo"
    assert other["advantages"]["rloo"] == pytest.approx([0, -1.5, 1.5])


def test_bars_and_mean_stand_where_the_numbers_say(open_figure):
    _, figure = open_figure(reduced_motion="reduce")
    press(figure, "Dr. GRPO")
    for number, reward, advantage in [(1, 1, 0.75), (2, 0, -0.25)]:
        track = slider(figure, number)
        row = track.locator("xpath=../..")
        mean = row.locator(".mean").bounding_box()
        assert mean["x"] + 1 == pytest.approx(place_of(track, 0.25)[0], abs=0.6)
        gap = row.locator(".gap").bounding_box()
        ends = sorted([place_of(track, 0.25)[0], place_of(track, reward)[0]])
        assert [gap["x"], gap["x"] + gap["width"]] == pytest.approx(ends, abs=0.6)
        lane, bar = row.locator(".advantage").bounding_box(), row.locator(".advantage .fill").bounding_box()
        middle = lane["x"] + lane["width"] / 2
        end = middle + advantage / 2.5 * lane["width"] / 2
        assert [bar["x"], bar["x"] + bar["width"]] == pytest.approx(sorted([middle, end]), abs=0.6)
    expect(figure.locator(".fill.down")).to_have_count(6)  # hollow, too, and not only to the left


def test_an_output_is_right_or_wrong_by_a_click(open_figure):
    page, figure = open_figure()
    expect(toggle(figure, 2)).to_have_attribute("aria-pressed", "false")
    toggle(figure, 2).click()
    expect(toggle(figure, 2)).to_have_attribute("aria-pressed", "true")
    expect(toggle(figure, 2)).to_have_text("o2✓")
    assert state_of(page)["rewards"] == [1, 1, 0, 1, 0, 0, 0, 0]
    expect(figure.get_by_role("status")).to_contain_text("The 3 right outputs get +1.21 each")
    expect(figure.locator(".label").filter(has_text="in all three")).to_have_text("Output o2 in all three")
    toggle(figure, 2).click()
    expect(toggle(figure, 2)).to_have_text("o2✗")
    assert state_of(page)["rewards"] == [1, 0, 0, 1, 0, 0, 0, 0]


def test_a_reward_is_dragged(open_figure):
    page, figure = open_figure()
    track = slider(figure, 3)
    page.mouse.move(*place_of(track, 0))
    page.mouse.down()
    for reward in (0.2, 0.4, 0.61):
        page.mouse.move(*place_of(track, reward))
    page.mouse.up()
    assert state_of(page)["rewards"] == [1, 0, pytest.approx(0.6, abs=0.051), 1, 0, 0, 0, 0]
    reward = state_of(page)["rewards"][2]
    assert reward * 20 == round(reward * 20)
    assert texts(figure, "reward")[2] == f"{reward:g}"
    assert state_of(page)["chosen"] == 2
    expect(figure.get_by_role("status")).to_contain_text("Of 8 outputs 3 are above the mean")
    expect(toggle(figure, 3)).to_have_text("o3")


def test_everything_goes_by_keyboard_and_no_page_turns(open_figure):
    page, figure = open_figure()
    page.evaluate("window.turned = 0; addEventListener('keydown', (e) => (turned += e.key !== 'Tab'))")
    button(figure, "one output fewer").focus()
    assert tab_through(page, 12) == [
        "one output more",
        "2 of 8 right",
        "one right",
        "one wrong",
        "all equal",
        "graded rewards",
        "GRPO",
        "Dr. GRPO",
        "RLOO",
        "output 1 is right",
        "reward of output 1",
        "output 2 is right",
    ]
    track = slider(figure, 2)
    track.focus()
    for key, reward in [
        ("ArrowRight", 0.05),
        ("ArrowUp", 0.1),
        ("PageUp", 0.35),
        ("ArrowLeft", 0.3),
        ("PageDown", 0.05),
        ("End", 1.5),
        ("ArrowRight", 1.5),
        ("Home", -0.5),
        ("ArrowDown", -0.5),
    ]:
        page.keyboard.press(key)
        assert state_of(page)["rewards"][1] == reward, key
    assert page.evaluate("turned") == 0
    for key, reward in [("1", 1), ("0", 0)]:
        page.keyboard.press(key)
        assert state_of(page)["rewards"][1] == reward
    expect(track).to_have_attribute("aria-valuetext", "0, advantage −0.54")
    toggle(figure, 2).focus()
    page.keyboard.press("Space")
    assert state_of(page)["rewards"][1] == 1


def test_ready_made_groups(open_figure):
    page, figure = open_figure()
    for name, first_words in [
        ("one right", "The one right output gets +2.47, the 7 wrong outputs get −0.35 each; their sum is 0."),
        ("one wrong", "The 7 right outputs get +0.35 each, the one wrong output gets −2.47; their sum is 0."),
        ("all equal", "All 8 rewards are equal, so every advantage is exactly 0. Nothing is learned"),
        ("graded rewards", "Of 8 outputs 4 are above the mean and pushed up, 4 are below it and pushed down"),
    ]:
        press(figure, name)
        expect(figure.locator(".verdict")).to_contain_text(first_words)
        expect(figure.get_by_role("status")).to_contain_text(first_words)
    press(figure, "all equal")
    assert texts(figure, "advantage") == ["0"] * 8
    assert texts(figure, "push") == ["0.000"] * 3
    in_page(page, "figure.size(3)")
    press(figure, "2 of 8 right")
    assert state_of(page)["rewards"] == [1, 0, 0, 1, 0, 0, 0, 0]


def test_the_group_grows_and_shrinks(open_figure):
    page, figure = open_figure()
    press(figure, "one output more")
    assert state_of(page)["rewards"] == [1, 0, 0, 1, 0, 0, 0, 0, 0]
    expect(fact(figure, "size")).to_have_text("G = 9 outputs")
    in_page(page, "figure.size(16)")
    assert len(texts(figure, "advantage")) == 16
    more = button(figure, "one output more")
    expect(more).to_have_attribute("aria-disabled", "true")
    more.click(force=True)
    assert len(state_of(page)["rewards"]) == 16
    in_page(page, "figure.size(3)")
    press(figure, "one output fewer")
    assert state_of(page)["rewards"] == [1, 0]
    expect(button(figure, "one output fewer")).to_have_attribute("aria-disabled", "true")
    button(figure, "one output fewer").click(force=True)
    assert texts(figure, "advantage") == ["+0.71", "−0.71"]


def test_changing_all_rewards(open_figure):
    page, figure = open_figure()
    before = state_of(page)
    press(figure, "add 0.2 to all rewards")
    lifted = state_of(page)
    assert lifted["rewards"] == [1.2, 0.2, 0.2, 1.2, *[0.2] * 4]
    for form, advantages in before["advantages"].items():
        assert lifted["advantages"][form] == pytest.approx(advantages)
    expect(figure.locator(".note")).to_have_text(
        "0.2 was added to all. The mean went along, and no advantage changed."
    )
    press(figure, "halve all rewards")
    halved = state_of(page)
    assert halved["advantages"]["grpo"] == pytest.approx(before["advantages"]["grpo"], rel=1e-3)
    assert halved["advantages"]["dr_grpo"] == pytest.approx(
        [advantage / 2 for advantage in before["advantages"]["dr_grpo"]]
    )
    expect(figure.get_by_role("status")).to_contain_text("So was σ, and GRPO's advantages stay.")
    press(figure, "double all rewards")
    press(figure, "subtract 0.2 from all rewards")
    assert state_of(page)["rewards"] == before["rewards"]
    double = button(figure, "double all rewards")
    expect(double).to_have_attribute("aria-disabled", "true")  # 2 is out of range
    double.click(force=True)
    assert state_of(page)["rewards"] == before["rewards"]
    toggle(figure, 1).click()
    expect(figure.locator(".note")).to_contain_text("Guess first")
    for _ in range(9):
        button(figure, "halve all rewards").click(force=True)
    assert max(state_of(page)["rewards"]) == 1 / 64  # the 0.0001 does not begin to count
    press(figure, "all equal")
    press(figure, "subtract 0.2 from all rewards")
    expect(figure.locator(".note")).to_contain_text("still equal, and every advantage is still 0")


def test_the_form_is_chosen(open_figure):
    page, figure = open_figure()
    for name, form, formula, numbers in [
        ("Dr. GRPO", "dr_grpo", "Ri − R", ["+0.75", "−0.25"]),
        ("RLOO", "rloo", "Ri − mean of the other rewards", ["+0.86", "−0.29"]),
        ("GRPO", "grpo", "(Ri − R) / (σR + 0.0001)", ["+1.62", "−0.54"]),
    ]:
        press(figure, name)
        expect(button(figure, name)).to_have_attribute("aria-pressed", "true")
        assert state_of(page)["form"] == form
        expect(figure.locator(".rule b")).to_have_text(f"Âi = {formula}")
        assert texts(figure, "advantage")[:2] == numbers
        expect(figure.locator("tr.current")).to_have_text([re.compile(name), re.compile(name)])


def test_settings_out_of_range_are_told(open_figure):
    page, _ = open_figure()
    for code, message in [
        ("reward(0, 2)", "reward is 2; it must be a number in [-0.5,1.5]"),
        ("reward(8, 1)", "There is no output 8; there are 0 to 7."),
        ("toggle(-1)", "There is no output -1"),
        ("size(17)", "size is 17; it must be an integer from 2 to 16"),
        ("set([1])", "rewards are 1; they must be 2 to 16 numbers"),
        ("shift(1)", "rewards are 2,1,1,2,1,1,1,1; they must be"),
        ("scale(NaN)", "they must be 2 to 16 numbers in [-0.5,1.5]"),
        ("form('ppo')", 'There is no form "ppo"; there are: grpo, dr_grpo, rloo.'),
        ("preset('best')", 'There is no preset "best"'),
    ]:
        with pytest.raises(Exception, match=re.escape(message)):
            in_page(page, f"figure.{code}")
    assert state_of(page)["rewards"] == [1, 0, 0, 1, 0, 0, 0, 0]
    in_page(page, "figure.shift(-0.5)")
    in_page(page, "figure.scale(0.1)")
    assert state_of(page)["rewards"][:2] == [0.05, -0.05]


def test_touch_and_360_pixels(open_figure):
    page, figure = open_figure(**PHONE)
    # the inputs lie over their tracks, which are narrower than a finger is long but 38 pixels high
    expect_it_fits(figure)
    expect_targets(figure)
    toggle(figure, 2).tap()
    assert state_of(page)["rewards"][1] == 1
    track = slider(figure, 3)
    x, _ = place_of(track, 0.5)
    track.tap(position={"x": x - track.bounding_box()["x"], "y": 19})
    assert state_of(page)["rewards"][2] == pytest.approx(0.5, abs=0.051)
    for code in (
        "size(16)",
        "preset('graded')",
        "form('rloo')",
        "set([-0.125, -0.375, -0.4375, -0.3125, -0.0625])",
        "form('grpo')",
        "set(Array.from({length: 16}, (_, i) => i % 2 ? 1.5 : -0.5))",
        "preset('one_right')",
    ):
        in_page(page, f"figure.{code}")
        expect_it_fits(figure)
        expect_targets(figure)
    tiny = figure.evaluate(
        """f => [...f.querySelectorAll("*")].filter((e) => e.childElementCount === 0 && e.textContent &&
            e.tagName !== "SUB" && parseFloat(getComputedStyle(e).fontSize) < 12).map((e) => e.outerHTML)"""
    )
    assert tiny == []


@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_moves_when_the_rewards_change(open_figure, width):
    page, figure = open_figure(viewport={"width": width, "height": 900}, reduced_motion="reduce")

    def layout():
        return figure.evaluate(
            """f => [...f.querySelectorAll("button, canvas, input, tr, .note, .verdict")].filter((e) =>
                e.offsetParent).map((e) => {
                const { x, y, width, height } = e.getBoundingClientRect();
                const down = Math.round(y - f.getBoundingClientRect().y);
                return [e.tagName, Math.round(x), down, Math.round(width), Math.round(height)];
            })"""
        )

    in_page(page, "figure.toggle(1)")
    before = layout()
    for script in (
        "preset('equal')",
        "preset('graded')",
        "form('dr_grpo')",
        "form('rloo')",
        "shift(-0.2)",
        "set([0.625, 0.625, -0.375, -0.375, -0.375, -0.375, -0.375, -0.375])",
        "form('grpo')",
        "reward(2, -0.375)",
        "reward(0, -0.5)",
    ):
        in_page(page, f"figure.{script}")
        assert layout() == before, script
    for name in ("halve all rewards", "add 0.2 to all rewards"):
        press(figure, name)
        assert layout() == before, name


def test_follows_the_theme_of_the_page(open_figure):
    page, figure = open_figure(color_scheme="dark")
    dark = figure.evaluate("f => getComputedStyle(f).backgroundColor")
    wait_for_pixels(figure, "#ff8b47", more_than=100)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(figure).not_to_have_css("background-color", dark)
    wait_for_pixels(figure, "#c04f00", more_than=100)
    assert count_pixels(figure, "#ff8b47") == 0


def test_the_curve_marks_the_group(open_figure):
    page, figure = open_figure()
    few = count_pixels(figure, "#c04f00")
    press(figure, "Dr. GRPO")  # its line is thicker now, and GRPO's thinner
    assert count_pixels(figure, "#c04f00") < few
    where = """canvas => {
        const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const sums = {};
        for (let i = 0; i < data.length; i += 4) {
            if (data[i] !== 0xc0 || data[i + 1] !== 0x4f || data[i + 2] !== 0) continue;
            const x = (i / 4) % width;
            sums[x] = (sums[x] ?? 0) + 1;
        }
        const most = Math.max(...Object.values(sums));
        const columns = Object.keys(sums).filter((x) => sums[x] === most).map(Number);
        return columns[Math.floor(columns.length / 2)] / width;
    }"""
    left, right = 30, 14
    width = figure.locator("canvas").bounding_box()["width"]
    for rewards, share in [([1, 0, 0, 0], 0.25), ([0.5, 0.5, 0.5, 0], 0.75), ([0.4, 0, 0.2], 0.5)]:
        in_page(page, f"figure.set({rewards})")
        found = figure.locator("canvas").evaluate(where) * width
        assert found == pytest.approx(left + share * (width - left - right), abs=2), rewards


def test_two_figures_do_not_share_state(open_figure):
    page, _ = open_figure()
    in_page(page, "figure.preset('equal')")
    assert state_of(page, 1)["rewards"] == [0.5, -0.5, 1.5]
