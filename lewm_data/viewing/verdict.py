"""The verdict at the top of a page: one sentence, and the command to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from lewm_data.findings import Finding, Verdict
from lewm_data.notation import count_of
from lewm_data.quality.policy import advised_policy
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
            parts = [f"{count_of(len(dropped), 'episode')} with errors left out"] * bool(dropped)
            parts += [f"{count_of(len(kept), 'error')} kept as requested"] * bool(kept)
            return Verdict("fair", f"Converted, {' and '.join(parts) or 'with errors recorded'}.", open_it)
        if num_warnings:
            return Verdict("fair", f"Whole, with {count_of(num_warnings, 'warning')} worth a look.", open_it)
        return Verdict("good", "Clean: the conversion found nothing wrong.", open_it)
    camera = f" --camera {shlex.quote(next(iter(recording.cameras.values())))}" if len(recording.cameras) > 1 else ""
    convert = f"lewm-data convert {source} OUTPUT.h5{camera}"
    if recording.refused:
        policy = advised_policy(recording.findings, len(recording.numbers))
        command = f"{convert} --dirty_episode_policy {policy}" if policy else f"lewm-data inspect {source}"
        sentence = f"Do not train on it as it is: {count_of(len(errors), 'error')} in {_where(errors)}."
        return Verdict("bad", sentence, command)
    if errors or num_warnings:
        return Verdict(
            "fair", f"It can be converted; {count_of(len(recording.findings), 'finding')} worth a look.", convert
        )
    return Verdict("good", "Clean: nothing is wrong in the metadata, the rows and the video headers.", convert)


def _where(errors: Sequence[Finding]) -> str:
    episodes = {found.episode for found in errors}
    if None in episodes:
        return "the dataset as a whole"
    if len(episodes) == 1:
        return f"episode {next(iter(episodes))}"
    return count_of(len(episodes), "episode")
