"""Check that contenders return the same windows: compare them with a plain h5py loop over a window's definition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import Arrays, Settings
from lewm_data.format.schema import ACTION, DONE, PIXELS, STATE


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How many windows were compared, which columns are equal, and the PSNR of the frames (None if equal, too)."""

    windows: int
    columns: tuple[str, ...]
    psnr_db: float | None

    def __str__(self) -> str:
        return "equal" if self.psnr_db is None else f"{self.psnr_db:.1f} dB"


def reference_windows(path: Path, num_windows: int, settings: Settings) -> Arrays:
    """The first windows of the order, read from our uncompressed file by a plain h5py loop."""
    import h5py

    from lewm_data.loading.sampler import WindowOrder

    span, skip = settings.num_steps * settings.frameskip, settings.frameskip
    read: dict[str, list[NDArray[Any]]] = {PIXELS: [], ACTION: [], STATE: [], DONE: []}
    with h5py.File(path) as file:
        starts = [
            offset + start
            for length, offset in zip(file["ep_len"][:].tolist(), file["ep_offset"][:].tolist(), strict=True)
            for start in range(length - span + 1)
        ]
        order = WindowOrder(num_windows=len(starts), batch_size=num_windows, seed=settings.seed)
        for window in order.batch(0, 0):
            rows = slice(starts[window], starts[window] + span)
            read[PIXELS].append(file[PIXELS][rows][::skip])
            read[STATE].append(file[STATE][rows][::skip])
            read[ACTION].append(file[ACTION][rows].reshape(settings.num_steps, -1))
            read[DONE].append(file[DONE][rows].reshape(settings.num_steps, skip).any(1))
    return {name: np.stack(values) for name, values in read.items()}


def compare(reference: Arrays, given: Arrays, *, least_psnr_db: float | None = None) -> Comparison:
    """Compares a contender's windows with the reference, which may have more windows and columns.

    Raises:
        ValueError: A column differs, or a frame if ``least_psnr_db`` is None, or the frames' PSNR is below it.
    """
    num_windows = len(given[PIXELS])
    columns = tuple(name for name in given if name != PIXELS)
    for name in columns:
        if not np.array_equal(given[name], reference[name][:num_windows]):
            raise ValueError(f"column {name!r} differs from the reference")
    wanted = reference[PIXELS][:num_windows]
    if least_psnr_db is None:
        if not np.array_equal(given[PIXELS], wanted):
            raise ValueError("the frames differ from the reference")
        return Comparison(windows=num_windows, columns=(PIXELS, *columns), psnr_db=None)
    found = psnr_db(given[PIXELS], wanted)
    if found < least_psnr_db:
        raise ValueError(f"the frames are {found:.1f} dB from the reference, but must reach {least_psnr_db} dB")
    return Comparison(windows=num_windows, columns=columns, psnr_db=round(found, 2))


def psnr_db(given: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio over all 8-bit frames together; 138 if they are equal."""
    error = float(np.mean((given.astype(np.float64) - wanted) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
