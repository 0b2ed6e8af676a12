"""Is it any good: the one sentence at the top of a page, and what to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from lewm_data.findings import Finding, Verdict
from lewm_data.viewing.recording import Recording


def verdict(recording: Recording) -> Verdict:
    """Judges a recording by its findings."""
    errors = [found for found in recording.findings if found.severity == "error"]
    num_warnings = len(recording.findings) - len(errors)
    source = shlex.quote(recording.handle)
    if recording.is_converted:
        open_it = f"LeWMDataModule(h5_path={json.dumps(recording.handle)})"
        if errors:
            kept = [found for found in errors if found.handling == "kept"]
            dropped = {found.episode for found in errors if found.handling == "dropped"}
            parts = [f"{_count(len(dropped), 'episode')} with errors left out"] * bool(dropped)
            parts += [f"{_count(len(kept), 'error')} kept on request"] * bool(kept)
            return Verdict("fair", f"Converted, {' and '.join(parts) or 'with errors on record'}.", open_it)
        if num_warnings:
            return Verdict("fair", f"Whole, with {_count(num_warnings, 'warning')} worth a look.", open_it)
        return Verdict("good", "Clean: nothing wrong was found when it was converted.", open_it)
    camera = f" --camera {shlex.quote(next(iter(recording.cameras.values())))}" if len(recording.cameras) > 1 else ""
    convert = f"lewm-data convert {source} OUTPUT.h5{camera}"
    if recording.refused:
        episodes = {found.episode for found in errors}
        is_skippable = None not in episodes and len(episodes) < len(recording.numbers)
        command = f"{convert} --dirty_episode_policy skip" if is_skippable else f"lewm-data inspect {source}"
        sentence = f"Not to be trained on as it is: {_count(len(errors), 'error')} in {_where(errors)}."
        return Verdict("bad", sentence, command)
    if errors or num_warnings:
        return Verdict(
            "fair", f"It can be converted; {_count(len(recording.findings), 'finding')} worth a look.", convert
        )
    return Verdict("good", "Clean: nothing wrong in the metadata, the rows and the video headers.", convert)


def _where(errors: Sequence[Finding]) -> str:
    episodes = {found.episode for found in errors}
    if None in episodes:
        return "the dataset as a whole"
    if len(episodes) == 1:
        return f"episode {next(iter(episodes))}"
    return f"{len(episodes)} episodes"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
