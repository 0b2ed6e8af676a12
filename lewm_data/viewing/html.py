"""One self-contained page: template, style, script, data and pictures in one file that asks nobody for anything.

Text of a dataset comes from strangers. In the page it stands in a block of JSON, in which every ``<``, ``>`` and ``&``
is escaped, and the page's script turns it into text nodes alone. A content security policy allows this style, this
script and pictures that are in the page, and no connection of any kind; the browser holds to it even where we erred.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator
from importlib.resources import files
from string import Template
from typing import Any

from lewm_data.viewing.summary import Preview

SCRIPTS = (
    "dom.js",
    "values.js",
    "charts.js",
    "overview.js",
    "findings.js",
    "player.js",
    "episodes.js",
    "windows.js",
    "main.js",
)
"""In the order of their use; together they are one module."""

_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def page(preview: Preview) -> Iterator[str]:
    """Writes a page, piece by piece.

    Args:
        preview: What it shows.

    Yields:
        Pieces of HTML.
    """
    style = _asset("style.css")
    script = "".join(_asset(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    template = Template(_asset("page.html")).substitute(
        policy=policy,
        title=html.escape(f"{preview.data['name']}: preview"),
        style=style,
        script=script,
        data=_json(preview.data),
        pictures=_PICTURES,
    )
    before, after = template.split(_PICTURES)
    yield before
    for number, picture in enumerate(preview.pictures):
        yield f'<script id="p{number}" type="text/plain">{picture}</script>\n'
    yield after


_PICTURES = "<!-- pictures -->"


def _asset(name: str) -> str:
    return (files("lewm_data.viewing") / "page" / name).read_text("utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)
