"""Progress bars of the commands: on stderr, and only if it is a terminal."""

from __future__ import annotations

from rich.console import Console

from lewm_data.cli.tables import show_inspection
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.pipeline import Reporter
from lewm_data.conversion.plan import MEGABYTE
from lewm_data.format.schema import camera_name
from lewm_data.notation import count_of
from lewm_data.progress_bar import StagedProgress as StagedProgress  # offered next to the display that extends it
from lewm_data.resources import resident_memory_bytes


class ConversionDisplay(StagedProgress, Reporter):
    """Draws the progress of a conversion."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._done = 0
        self._total = 0

    def inspecting(self, what: str, done: int, total: int) -> None:
        """Shows how many files are inspected."""
        self(f"inspect {what}", done, total)

    def planned(self, inspection: Inspection) -> None:
        """Prints the inspection."""
        self.stop()
        show_inspection(self.console, inspection)
        assert inspection.plan is not None
        self._total = inspection.plan.num_frames

    def resumed(self, num_frames: int) -> None:
        """Counts the frames of an earlier run."""
        self.console.print(f"resuming an earlier run: {count_of(num_frames, 'frame')} already converted")
        self._done += num_frames

    def frames(self, episode: int, camera: str, count: int) -> None:
        """Shows how many frames are written."""
        self._done += count
        memory = f"{resident_memory_bytes() / MEGABYTE:,.0f} MB"
        self("convert", self._done, self._total, f"episode {episode} {camera_name(camera)}, {memory}", "frames")

    def joining(self, what: str, done: int, total: int) -> None:
        """Shows how many shards are copied."""
        self(what, done, total)

    def waiting(self) -> None:
        """Says that another process is converting."""
        self.console.print("another process is writing the same output; waiting for it")


def quiet_hub_bars(console: Console) -> None:
    """Keeps huggingface_hub's own progress bars out of log files."""
    if not console.is_terminal:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
