"""One self-contained page: template, style, script, data and pictures in one file that loads nothing else.

A dataset's text is untrusted. The page holds it in a JSON block in which every ``<``, ``>`` and ``&`` is escaped, and
the script turns it into text nodes only. As a second line of defense, a content security policy allows only this
style, this script and embedded pictures, and no connection of any kind.
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
    "judgment.js",
    "overview.js",
    "findings.js",
    "player.js",
    "episodes.js",
    "windows.js",
    "main.js",
)
"""In the order in which they use each other; the page joins them to one module."""

_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
_PICTURES = "<!-- pictures -->"


def page(preview: Preview) -> Iterator[str]:
    """Renders a preview as HTML, piece by piece.

    Args:
        preview: The preview.

    Yields:
        Pieces of the page.
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


def _asset(name: str) -> str:
    return (files("lewm_data.viewing") / "page" / name).read_text("utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)
