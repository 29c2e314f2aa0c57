"""How Sphinx builds these pages into a site: `make docs`. Nothing in it comes from another host.

The pages are plain Markdown without directives, as code hosts show them too; which of them stand
where in the site's navigation is said here. A page that is not listed fails the build.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

project = "Tetrad"
html_title = "Tetrad"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["images", "_static"]

NAVIGATION = {
    "Begin": "quickstart concepts playground",
    "Use it": "grpc errors embeddings audio lossless",
    "Run it": (
        "configuration operating routing limits tls security usage metrics monitoring traces mesh"
        " performance benchmarks"
    ),
    "Move to it": "opengatellm litellm interop",
    "Extend it": "providers",
}
"""Caption -> pages. One that is not there is left out."""

_HERE = Path(__file__).resolve().parent


def _with_navigation(app: Any, page: str, source: list[str]) -> None:
    if page != "index":
        return
    for caption, names in NAVIGATION.items():
        there = [name for name in names.split() if (_HERE / f"{name}.md").exists()]
        options = f":hidden:\n:caption: {caption}\n"
        source[0] += "\n```{toctree}\n" + options + "\n".join(["", *there]) + "\n```\n"


def setup(app: Any) -> None:
    """Sphinx's hook."""
    app.connect("source-read", _with_navigation)
