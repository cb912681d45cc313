"""What the tests in Chromium do with a figure and ask of it."""

import pytest

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "device_scale_factor": 3}


def first(page):
    return page.locator(".figure").first


def in_page(page, code, index=0):
    """What ``code`` gives, with ``figure`` the object for scripts of a figure."""
    figure = "document.querySelectorAll('.policyopt-widget')[i].policyopt"
    return page.evaluate(f"i => {{ const figure = {figure}; return {code}; }}", index)


def state_of(page, index=0):
    return in_page(page, "figure.state()", index)


def button(figure, name):
    return figure.get_by_role("button", name=name, exact=True)


def press(figure, name):
    button(figure, name).click()


def fact(figure, name):
    return figure.locator(f'[data-fact="{name}"]')


def expect_it_fits(figure, width=360, but=".hidden, .meter"):
    """The page does not scroll sideways, and no part of the figure is beyond its edge, ``but`` for some."""
    assert figure.page.evaluate("document.documentElement.scrollWidth") <= width
    assert figure.evaluate("f => f.scrollWidth <= f.clientWidth")
    beyond = figure.evaluate(
        """(f, but) => [...f.querySelectorAll("*")].filter((e) => !e.closest(but) &&
            e.getBoundingClientRect().right > f.getBoundingClientRect().right).map((e) => e.outerHTML)""",
        but,
    )
    assert beyond == []


def expect_targets(figure):
    """Every control that is seen is large enough for a finger."""
    small = figure.evaluate(
        """f => [...f.querySelectorAll("button, input, select")].filter((e) => {
            const { width, height } = e.getBoundingClientRect();
            return e.offsetParent && Math.min(width, height) < 38;
        }).map((e) => e.outerHTML)"""
    )
    assert small == []


def count_pixels(figure, colour):
    """How many pixels of the figure's first visible canvas have exactly the colour, such as "#0072b2"."""
    return figure.locator("canvas:visible").first.evaluate(
        """(canvas, rgb) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let found = 0;
            for (let i = 0; i < data.length; i += 4) found += rgb.every((value, k) => data[i + k] === value);
            return found;
        }""",
        list(bytes.fromhex(colour[1:])),
    )


def wait_for_pixels(figure, colour, more_than):
    """Waits until more than so many pixels have the colour: a change of the theme reaches a canvas late."""
    for _ in range(200):
        if (found := count_pixels(figure, colour)) > more_than:
            return
        figure.page.wait_for_timeout(50)
    pytest.fail(f"{found} pixels are {colour}, not more than {more_than}")


def tab_through(page, count):
    """The names of what has the focus after each of so many tab keys."""
    focused = """() => {
        let element = document.activeElement;
        while (element.shadowRoot) element = element.shadowRoot.activeElement;
        return element.getAttribute("aria-label") ?? element.textContent;
    }"""
    names = []
    for _ in range(count):
        page.keyboard.press("Tab")
        names.append(page.evaluate(focused))
    return names
