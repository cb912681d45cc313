"""*Training outputs* on a page opened from disk, in Chromium, with the network cut off."""

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

from policyopt.widgets import TrainingOutputs

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def figure_site(site_of):
    return site_of(TrainingOutputs(), TrainingOutputs(prompt=3, update=80))


@pytest.fixture(scope="module")
def record():
    return TrainingOutputs().record


@pytest.fixture
def open_figure(open_site):
    """open_figure(**context options) opens the page: the page, and its first figure."""

    def open_page(**options):
        page = open_site(**options)
        return page, first(page)

    return open_page


def token(figure, output, place):
    return figure.locator(".row").nth(output).locator(".token").nth(place)


def slider(figure):
    return figure.get_by_role("slider", name="updates of training")


def shown_outputs(figure):
    return ["".join(row.locator(".token:visible").all_inner_texts()) for row in figure.locator(".row").all()]


def test_starts_before_the_training(open_figure, record):
    page, figure = open_figure()
    assert page.get_by_text("This figure needs JavaScript").count() == 0
    state, other = state_of(page), state_of(page, 1)
    assert (state["update"], state["prompt"], other["update"], other["prompt"]) == (0, 0, 80, 3)
    expect(fact(figure, "moment")).to_have_text("before the first update")
    expect(fact(page.locator(".figure").nth(1), "moment")).to_have_text("after 80 of 80 updates")
    group = record["prompts"][0]["groups"][0]
    assert shown_outputs(figure) == group["outputs"]
    shown = [float(text.replace("−", "-")) for text in figure.locator("[data-advantage]").all_inner_texts()]
    assert shown == pytest.approx(state["advantages"], abs=0.006)
    assert figure.locator("[data-reward]").all_inner_texts() == [
        f"{'✓' if reward else '✗'}{reward}" for reward in group["rewards"]
    ]
    expect(fact(figure, "mean")).to_have_text(f"{sum(group['rewards']) / 8:.3f}")
    expect(fact(figure, "deviation")).to_have_text(f"{state['deviation']:.3f}")
    expect(figure.locator(".verdict")).to_have_text(state["sentence"])
    # at the start the policy is its own reference
    assert all(one["now"] == one["before"] and one["k3"] == 0 for one in state["read"])


def test_the_slider_leads_along_the_training(open_figure, record):
    page, figure = open_figure()
    box = slider(figure).bounding_box()
    where = {}
    for k in (4, 12):
        share = k / 16
        page.mouse.click(box["x"] + 8 + share * (box["width"] - 16), box["y"] + box["height"] / 2)
        state = state_of(page)
        assert state["update"] == 5 * k
        assert shown_outputs(figure) == record["prompts"][0]["groups"][k]["outputs"]
        expect(fact(figure, "reward")).to_have_text(f"here {record['reward'][5 * k]:.2f}")
        expect(figure.get_by_role("status")).to_have_text(f"after {5 * k} of 80 updates: {state['sentence']}")
        where[k] = mark_of(figure)
    # the line in the curve stands over the slider's handle
    for k, x in where.items():
        assert x == pytest.approx(box["x"] + 8 + k / 16 * (box["width"] - 16), abs=2.5)
    press(figure, "after")
    assert state_of(page)["update"] == 80
    expect(button(figure, "after")).to_have_attribute("aria-disabled", "true")
    press(figure, "before")
    assert state_of(page)["update"] == 0


def mark_of(figure):
    """Where on the page the curve's vertical line stands."""
    canvas = figure.locator("canvas")
    share = canvas.evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const ink = getComputedStyle(canvas).color.match(/\\d+/g).map(Number);
            const sums = Array(width).fill(0);
            for (let i = 0; i < data.length; i += 4) {
                sums[(i / 4) % width] += ink.every((value, k) => data[i + k] === value);
            }
            const most = Math.max(...sums);
            return (sums.indexOf(most) + sums.lastIndexOf(most) + 1) / 2 / width;
        }"""
    )
    box = canvas.bounding_box()
    return box["x"] + share * box["width"]


def test_a_group_that_agrees_has_no_colour(open_figure):
    page, figure = open_figure()
    press(figure, "59+48=")
    in_page(page, "figure.go(80)")
    expect(figure.locator(".verdict")).to_contain_text("All 8 outputs are right")
    assert set(figure.locator("[data-advantage]").all_inner_texts()) == {"0"}
    assert figure.locator(".token.up, .token.down").count() == 0
    press(figure, "36+26=")
    in_page(page, "figure.go(30)")
    expect(figure.locator(".verdict")).to_contain_text("All 8 outputs are wrong")
    assert figure.locator(".token.up, .token.down").count() == 0
    in_page(page, "figure.go(0)")
    state = state_of(page)
    for i, advantage in enumerate(state["advantages"]):
        way = "up" if advantage > 0 else "down"
        for place in range(len(state["outputs"][i])):
            expect(token(figure, i, place)).to_have_class(re.compile(rf"\b{way}$"))


def test_a_character_shows_what_else_might_stand_there(open_figure, record):
    page, figure = open_figure()
    in_page(page, "figure.go(20)")
    token(figure, 1, 1).click()
    token(figure, 3, 2).click()
    expect(token(figure, 3, 2)).to_have_attribute("aria-pressed", "true")
    assert figure.locator('.token[aria-pressed="true"]').count() == 1
    state = state_of(page)
    assert state["chosen"] == {"output": 3, "token": 2}
    written = state["outputs"][3]
    expect(fact(figure, "here")).to_have_text("57+77=" + written[:3])
    one, place = record["prompts"][0], record["tokens"].index(written[2])
    now, before = (
        model[written[:2]][place] / 10_000 for model in (one["groups"][4]["policy"], one["reference"])
    )
    read = state["read"][2]
    assert (read["now"], read["before"]) == (now, before)
    row = figure.locator(".chance.written")
    expect(row).to_have_count(1)
    expect(row.locator(".name")).to_have_text(f"{written[2]} ◂")
    page.wait_for_timeout(200)  # the bars move
    widths = [bar.bounding_box()["width"] for bar in row.locator(".bars span").all()]
    full = row.locator(".bars").bounding_box()["width"]
    assert widths == pytest.approx([max(1, chance * full) for chance in (now, before)], abs=0.5)
    names = [text.removesuffix(" ◂") for text in figure.locator(".chance:visible .name").all_inner_texts()]
    assert len(names) == 6
    assert names[-1] == "others"
    share = read["k3"] / sum(each["k3"] for each in state["read"])
    shown = re.search(r"≈ ([\d.]+) nats: ([\d.]+) % of the sum", fact(figure, "share").inner_text())
    assert float(shown[1]) == pytest.approx(read["k3"], rel=0.05)
    assert float(shown[2]) == pytest.approx(100 * share, abs=0.51)
    expect(fact(figure, "whole")).to_contain_text(f"The whole output {written}")
    expect(figure.get_by_role("status")).to_contain_text(f"Character {written[2]}: ")


def test_a_choice_stays_in_the_output_when_the_output_gets_shorter(open_figure):
    page, figure = open_figure()
    token(figure, 2, 3).click()
    press(figure, "36+26=")
    assert state_of(page)["chosen"] == {"output": 2, "token": 2}
    expect(fact(figure, "here")).to_have_text("36+26=" + state_of(page)["outputs"][2])


def test_everything_goes_by_keyboard_and_no_page_turns(open_figure):
    page, figure = open_figure()
    page.evaluate("window.turned = 0; addEventListener('keydown', (e) => (turned += e.key !== 'Tab'))")
    figure.focus()
    assert tab_through(page, 8)[:7] == [
        "57+77=",
        "59+48=",
        "36+26=",
        "35+60=",
        *["updates of training"],
        "before",
        "after",
    ]
    slider(figure).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert state_of(page)["update"] == 75
    expect(slider(figure)).to_have_attribute("aria-valuetext", "after 75 of 80 updates")
    token(figure, 0, 1).focus()
    for key, chosen in [
        ("ArrowRight", (0, 2)),
        ("ArrowDown", (1, 2)),
        ("ArrowLeft", (1, 1)),
        ("ArrowUp", (0, 1)),
        ("ArrowUp", (0, 1)),
    ]:
        page.keyboard.press(key)
        assert tuple(state_of(page)["chosen"].values()) == chosen
        expect(token(figure, *chosen)).to_be_focused()
    assert page.evaluate("turned") == 0


def test_bad_calls_are_named(open_figure):
    page, _ = open_figure()
    for call, message in [
        ("go(3)", "update is 3; there are 0, 5, 10"),
        ("prompt(9)", "prompt is 9; it must be 0 to 3"),
        ("select(0, 7)", "There is no token 7 of output 0 here."),
    ]:
        caught = in_page(
            page, f"(() => {{ try {{ figure.{call}; }} catch (error) {{ return error.message; }} }})()"
        )
        assert caught.startswith(message)


def test_fits_a_phone_and_answers_to_touch(open_figure):
    page, figure = open_figure(**PHONE)
    expect_it_fits(figure)
    expect_targets(figure)
    token(figure, 4, 1).tap()
    assert state_of(page)["chosen"] == {"output": 4, "token": 1}
    button(figure, "35+60=").tap()
    button(figure, "after").tap()
    assert (state_of(page)["prompt"], state_of(page)["update"]) == (3, 80)
    expect_it_fits(figure)


def test_nothing_jumps_along_the_training(open_figure):
    page, figure = open_figure(viewport={"width": 360, "height": 740})
    heights = set()
    for update in range(0, 81, 20):
        in_page(page, f"figure.go({update})")
        heights.add(round(figure.bounding_box()["height"]))
    assert len(heights) == 1


def test_colours_follow_the_page(open_figure):
    page, figure = open_figure(color_scheme="light", reduced_motion="reduce")
    wait_for_pixels(figure, "#00795a", more_than=200)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    wait_for_pixels(figure, "#2fd6a5", more_than=200)
    assert count_pixels(figure, "#00795a") == 0
    assert figure.locator(".bars span").first.evaluate("e => getComputedStyle(e).transitionDuration") == "0s"


def test_two_figures_do_not_share_state(open_figure):
    page, _ = open_figure()
    in_page(page, "figure.go(40)")
    assert state_of(page, 1)["update"] == 80
