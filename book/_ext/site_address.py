"""Derive the address of the published pages from ``repository.url``, the one place that names it."""

from urllib.parse import urlsplit


def pages_url(repository_url):
    """Address at which GitHub Pages serves the book of ``repository_url``, with a closing slash.

    >>> pages_url("https://github.com/someone/a-course")
    'https://someone.github.io/a-course/'
    """
    parts = urlsplit(repository_url)
    path = parts.path.strip("/").removesuffix(".git").split("/")
    if parts.scheme != "https" or parts.netloc != "github.com" or len(path) != 2 or not all(path):
        raise ValueError(
            f"repository.url in _config.yml is {repository_url!r}, "
            "but it has to look like https://github.com/OWNER/REPOSITORY"
        )
    owner, repository = path
    return f"https://{owner.lower()}.github.io/{repository}/"


def set_addresses(app, config):
    address = pages_url(config.html_theme_options.get("repository_url", ""))
    config.html_baseurl = address
    config.ogp_site_url = address


def fill_in(app, docname, source):
    """Pages write ``{{ repository_url }}`` and ``{{ repository_name }}``, in code blocks as well."""
    url = app.config.html_theme_options["repository_url"]
    source[0] = source[0].replace("{{ repository_url }}", url)
    source[0] = source[0].replace("{{ repository_name }}", url.rstrip("/").rpartition("/")[2])


def setup(app):
    app.connect("config-inited", set_addresses)
    app.connect("source-read", fill_in)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
