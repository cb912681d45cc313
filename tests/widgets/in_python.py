"""What the tests of the figures' Python side share."""

import json
import re

import pytest


def embedded(figure):
    """The data that a figure's placeholder carries."""
    return json.loads(re.search(r'<script type="application/json">(.*)</script>', figure.page_html())[1])


def expect_refused(make, name, value, message, trait=None):
    """The value is refused with the message, a pattern, both as an argument and when it is assigned."""
    with pytest.raises(ValueError, match=message):
        make(**{name: value})
    figure = make()
    with pytest.raises(ValueError, match=message):
        setattr(figure, trait or name, value)
