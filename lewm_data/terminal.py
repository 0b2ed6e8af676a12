"""Text of others on its way to a terminal."""

from __future__ import annotations

from rich.markup import escape as escape_markup

from lewm_data.errors import printable


def escape(text: str) -> str:
    """Text for a rich console: no markup, and nothing that a terminal would obey."""
    return escape_markup(printable(text))
