"""What is shown on a terminal, and text of others on its way there."""

from __future__ import annotations

import os

from rich.console import Console
from rich.markup import escape as escape_markup

from lewm_data.errors import printable


class StderrConsole(Console):
    """Standard error. Where nobody reads it any more, the work goes on in silence; rich's own console would end it."""

    def __init__(self) -> None:
        super().__init__(stderr=True, soft_wrap=False)

    def on_broken_pipe(self) -> None:
        """Says no more."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


def escape(text: str) -> str:
    """Text for a rich console: no markup, and nothing that a terminal would obey."""
    return escape_markup(printable(text))
