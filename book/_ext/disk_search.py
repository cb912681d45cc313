"""Search a book opened from disk: list the pages found, without fetching their text for a summary.

A browser lets no page read a file beside it, so each summary would be an error in its console.
"""

SCRIPT = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'


def add_script(app, pagename, templatename, context, doctree):
    if pagename == "search":
        app.add_js_file(None, body=SCRIPT)


def setup(app):
    app.connect("html-page-context", add_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
