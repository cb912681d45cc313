"""Every page as a reader sees it: opened from disk in Chromium, with the network cut off."""

import re
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from playwright.sync_api import expect

from policyopt.envs import GridWorld
from policyopt.tabular import tabular_model, value_iteration

pytestmark = pytest.mark.browser

READER_SEES = """selector => {
  const skip = 'code, pre, script, style, mjx-assistive-mml, textarea, .policyopt-widget';
  const walker = document.createTreeWalker(document.querySelector(selector), NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const text = walker.currentNode, parent = text.parentElement;
    if (!parent.closest(skip) && text.data.trim() && parent.checkVisibility()) texts.push(text);
  }
  return texts;
}"""

# WCAG 2 contrast of each text with the nearest painted background behind it.
LOW_CONTRAST = (
    "() => { const texts = ("
    + READER_SEES
    + """)('body');
  const channels = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below) => {
    const alpha = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(i => alpha * top[i] + (1 - alpha) * below[i]);
  };
  const known = new Map([[null, [255, 255, 255]]]);
  const background = element => {
    if (!known.has(element)) {
      const own = channels(getComputedStyle(element).backgroundColor);
      known.set(element, over(own, background(element.parentElement)));
    }
    return known.get(element);
  };
  const low = new Set();
  for (const text of texts) {
    const element = text.parentElement, style = getComputedStyle(element);
    if (style.opacity < 0.1 || style.visibility === 'hidden' || element.closest('.headerlink')) continue;
    const back = background(element), front = over(channels(style.color), back);
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    const large = parseFloat(style.fontSize) >= 24
      || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    const ratio = (light + 0.05) / (dark + 0.05);
    const where = `${element.tagName}.${element.className}: ${text.data.trim()}`;
    if (ratio < (large ? 3 : 4.5)) low.add(`${ratio.toFixed(2)} ${where}`);
  }
  return [...low];
}"""
)


@contextmanager
def served(folder):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_page_shows_its_mathematics_and_its_images(open_page, path):
    page = open_page(path)
    visible = page.evaluate(f"() => ({READER_SEES})('body').map(text => text.data)")
    assert visible
    raw = [
        text for text in visible if re.search(r"\\[(\[]|\$\$|\\begin\{|\\(frac|hat|theta|pi|mathbb)\b", text)
    ]
    assert raw == []
    widths = page.locator(".math").evaluate_all(
        "all => all.map(one => one.querySelector('mjx-container > svg')?.getBBox().width ?? 0)"
    )
    assert all(width > 0 for width in widths)
    images = page.locator("img").evaluate_all(
        "all => Promise.all(all.map(async one => {"
        " await one.decode().catch(() => {});"
        " return [one.getAttribute('src'), one.naturalWidth, one.alt]; }))"
    )
    assert [src for src, width, alt in images if not width or not alt.strip()] == []


def test_page_never_scrolls_sideways(open_page, path):
    page = open_page(path, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size({"width": 768, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 768


def test_page_is_legible_in_light_and_dark(open_page, path):
    page = open_page(path, color_scheme="light", reduced_motion="reduce")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", scheme)
        assert page.evaluate(LOW_CONTRAST) == []


def test_the_mathematics_needs_no_script(open_page):
    page = open_page("book/appendix/notation.html", java_script_enabled=False)
    formula = page.locator("div.math svg").first
    expect(formula).to_be_visible()
    assert formula.bounding_box()["width"] > 80


def test_an_equation_is_numbered_and_referred_to(open_page):
    page = open_page("book/appendix/notation.html")
    reference = page.locator("a[href='#equation-eq-notation-ratio']").first
    number = page.locator("[id='equation-eq-notation-ratio'] .eqno")
    assert reference.inner_text().strip() == number.inner_text().strip().rstrip("#")


def test_the_switch_turns_the_page_dark_and_the_next_page_too(open_page):
    page = open_page("book/intro.html", color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    switch = page.locator(".theme-switch-button:visible").first
    html = page.locator("html")
    for _ in range(3):
        mode = html.get_attribute("data-mode")
        if mode == "dark":
            break
        switch.click()
        expect(html).not_to_have_attribute("data-mode", mode)
    expect(html).to_have_attribute("data-theme", "dark")
    assert page.evaluate(paper) != light
    page.locator(".prev-next-footer a.right-next").click()
    page.wait_for_url(lambda url: not url.endswith("intro.html"))
    expect(html).to_have_attribute("data-theme", "dark", timeout=30_000)


def test_previous_and_next_lead_through_the_whole_book(open_page, book):
    page = open_page("book/intro.html")
    steps = 0
    while page.locator("a.right-next").count():
        page.locator("a.right-next").click()
        page.wait_for_load_state()
        steps += 1
        assert steps < 60
    assert page.url.endswith("book/appendix/bibliography.html")
    page.locator("a.left-prev").click()
    assert page.url.endswith("book/appendix/api_language.html")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_trained_agent_rests_for_readers_who_ask_for_it(open_page, motion):
    page = open_page("book/intro.html", reduced_motion=motion)
    shown = page.locator("figure.animation img").evaluate("image => image.currentSrc")
    assert shown.endswith("cartpole_still.png" if motion == "reduce" else "cartpole_trained.gif")


@pytest.mark.parametrize("source", ["disk", "server"])
def test_search_finds_the_advantage(open_page, book, source):
    with served(book.folder) as address:
        page = open_page("book/intro.html", server=address if source == "server" else None)
        page.keyboard.press("Control+k")
        page.keyboard.type("advantage")
        page.keyboard.press("Enter")
        results = page.locator("#search-results")
        expect(results.locator("a", has_text="Glossary").first).to_be_visible()
        # Over HTTP each result brings the sentence it was found in; wait for the last to arrive.
        page.wait_for_load_state("networkidle")
        summaries = results.locator("p.context").count()
        assert summaries > 0 if source == "server" else summaries == 0


@pytest.mark.parametrize("source", ["disk", "server"])
def test_balance_it_yourself_is_played_on_its_chapters_page(open_page, book, source):
    """The figure's own tests play it on a page of their own; here it runs in the published chapter."""
    with served(book.folder) as address:
        page = open_page(
            "book/rl_basics/agent_environment.html", server=address if source == "server" else None
        )
        figure = page.locator(".policyopt-widget .figure")
        expect(figure).to_have_count(1)
        figure.scroll_into_view_if_needed()
        figure.locator(".stage").focus()
        page.keyboard.press("ArrowRight")
        expect(figure).to_have_attribute("data-phase", "ended")
        expect(figure.locator(".message")).to_contain_text("Terminated: the pole fell")
        steps = figure.locator('[data-fact="step"]').inner_text()
        assert 8 <= int(steps) <= 10  # a cart pushed one way
        expect(figure.locator('[data-fact="return"]')).to_have_text(steps)
        figure.get_by_role("button", name="PPO network", exact=True).click()
        figure.get_by_role("button", name="eight times real time", exact=True).click()
        expect(figure).to_have_attribute("data-phase", "ended")
        expect(figure.locator('tr[data-driver="ppo"] [data-score="best"]')).to_have_text("500")


def test_every_figure_of_a_chapter_runs_in_its_page(open_page, chapter):
    page = open_page(f"{chapter}.html")
    mounted = page.locator(".policyopt-widget").evaluate_all(
        "all => all.map(one => !!one.policyopt?.state())"
    )
    assert all(mounted)
    parts = ("rl_basics", "policy_gradients", "grpo", "ppo")
    if any(f"/{part}/" in chapter for part in parts):
        assert mounted, "a chapter has at least one interactive figure"


def test_gridworld_plans_on_its_chapters_page(open_page):
    page = open_page("book/rl_basics/values.html")
    figure = page.locator('.policyopt-widget[data-widget="gridworld"]').first
    state = figure.evaluate("one => { one.policyopt.sweep(500); return one.policyopt.state(); }")
    settings = state["settings"]
    world = GridWorld(state["layout"], slip=settings["slip"], step_reward=settings["step_reward"])
    values, _ = value_iteration(tabular_model(world), settings["gamma"])
    assert state["values"] == pytest.approx(values.tolist(), abs=1e-6)


def test_bandit_climbs_on_its_chapters_page(open_page):
    page = open_page("book/policy_gradients/reinforce.html")
    figure = page.locator('.policyopt-widget[data-widget="bandit"]').first
    before = figure.evaluate("one => one.policyopt.state()")
    p, r = np.array(before["probabilities"]), np.array(before["rewards"])
    assert before["exact"] == pytest.approx((p * (r - p @ r)).tolist())
    figure.get_by_role("button", name="Exact step", exact=True).click()
    after = figure.evaluate("one => one.policyopt.state()")
    assert np.dot(after["probabilities"], r) > p @ r


def test_gae_explorer_adds_up_on_its_chapters_page(open_page):
    page = open_page("book/policy_gradients/actor_critic.html")
    figure = page.locator('.policyopt-widget[data-widget="gae_explorer"]').first
    figure.evaluate("one => one.policyopt.show('episode')")
    state = figure.evaluate("one => one.policyopt.state()")
    deltas, decay = state["deltas"], state["gamma"] * state["lambda"]
    expected = [sum(decay**k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]
    assert state["advantages"] == pytest.approx(expected)


def test_an_exercises_solution_has_the_numbers_of_its_figure(open_page):
    """It asks for what the GAE explorer shows, so no cell prints them."""
    page = open_page("book/policy_gradients/actor_critic.html")
    figure = page.locator('.policyopt-widget[data-widget="gae_explorer"]').first
    figure.evaluate("one => { one.policyopt.show('many'); one.policyopt.critic('badly off'); }")

    def shown(name, **settings):
        figure.evaluate("(one, settings) => one.policyopt.set(settings)", settings)
        return float(figure.get_by_role("row").filter(has_text=name).locator("td").inner_text())

    bests = []
    numbers = {"variance at this λ": [], "bias² at this λ": []}
    for gamma in (0.95, 0.5):
        for name, gae_lambda in (("variance at this λ", 1), ("bias² at this λ", 0)):
            numbers[name].append(shown(name, gamma=gamma, **{"lambda": gae_lambda}))
        bests.append(figure.evaluate("one => one.policyopt.state().best"))
    solution = page.locator("#ex-actor-critic-figure ~ details").first.text_content()
    for start, end in numbers.values():
        assert f"from {start:.3f} to {end:.3f}" in solution
    assert f"from {bests[0]:.2f} to {bests[1]:.2f}" in solution


def test_a_notebooks_page_offers_binder_its_source_and_a_download(open_page):
    page = open_page("book/rl_basics/agent_environment.html")
    links = page.locator(".article-header-buttons a").evaluate_all("links => links.map(link => link.href)")
    assert any(re.match(r"https://mybinder\.org/v2/gh/.*agent_environment\.ipynb", link) for link in links)
    assert any(re.search(r"/edit/main/book/rl_basics/agent_environment\.ipynb$", link) for link in links)
    assert any(link.endswith("_sources/book/rl_basics/agent_environment.ipynb") for link in links)
