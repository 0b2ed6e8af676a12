"""Which files may be joined, into one file or one batch, and which of their episodes are the same recording."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lewm_data.errors import UsageError
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import DONE, DONE_RUN, is_pixels
from lewm_data.format.segments import Column
from lewm_data.notation import episode_ranges

type Joined = Literal["file", "batch"]
"""``merge`` makes one file out of several. Training on several files draws each batch from all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file that is to be joined with others.

    Attributes:
        name: Its path or address.
        columns: The columns that are joined, by name.
        header: Its header; None if another program wrote it.
    """

    name: str
    columns: Mapping[str, Column]
    header: FileHeader | None


def check_joinable(members: Sequence[Member], *, into: Joined) -> None:
    """Checks that the columns of several files mean the same.

    What a file does not state is not compared.

    ==========================================  ==================  ==================
    what                                        in one file         in one batch
    ==========================================  ==================  ==================
    columns, their shapes and dtypes            must agree          must agree
    frame size, camera of each frame column     must agree          must agree
    fps, resize                                 must agree          must agree
    shift of a camera, in files of one source   must agree          must agree
    shift of a camera, kept steps, otherwise    may differ          may differ
    dimensions of a column: the same, reordered must agree         must agree
    dimensions of a column: other names         must agree          may differ, warns
    compression and its quality, done_source    must agree          may differ
    source, revision, episodes, tasks           may differ          may differ
    scaler version                              may differ          may differ
    findings, statistics, dirty episode policy  may differ          may differ
    ==========================================  ==================  ==================

    Args:
        members: The files.
        into: What they are joined into.

    Raises:
        UsageError: Something differs that must agree; names both values and both files.

    Warns:
        UserWarning: Files for one batch name the dimensions of a column differently.
    """
    problems = _differences(members, [_stated(member) for member in members])
    if into == "file":
        problems |= _differences(members, [_stated_once(member) for member in members])
    names = _differences(members, [_dimensions(member, is_complete=into == "file") for member in members])
    for what, found in names.items():
        if into == "file" or len({tuple(sorted(value.split(", "))) for value in found}) == 1:
            problems[what] = found
        else:
            warnings.warn(f"{_words(what, found)}. Make sure that they mean the same.", UserWarning, stacklevel=3)
    if problems:
        words = "; ".join(itertools.starmap(_words, problems.items()))
        raise UsageError(
            f"These files cannot be joined: {words}. Leave one out, or convert all of them with the same settings "
            "(image_size, resize, camera, cameras, compression, quality, shift, extra_columns)."
        )


def _stated(member: Member) -> dict[str, str]:
    """What a file states about itself that must agree wherever it is joined."""
    stated = {"columns": ", ".join(sorted(member.columns))}
    for name, column in member.columns.items():
        shape = column.shape
        if is_pixels(name):
            stated[name] = f"{shape[0]}x{shape[1]} pixels"
        else:
            width = "one number" if not shape else f"{shape[0]} wide" if len(shape) == 1 else f"of shape {shape}"
            stated[name] = f"{width} ({column.dtype})"
    header = member.header
    if header is not None:
        stated |= {"fps": f"{header.fps:g}", "resize": header.resize}
        stated |= {f"camera of {name}": key for name, key in header.cameras.items() if name in member.columns}
        for record in header.sources:
            for name in filter(header.cameras.__contains__, member.columns):
                shift = record.shifts.get(name, 0)
                stated[f"shift of {name} in {record.repo_id}"] = f"{shift:+d} frames" if shift else "none"
    return stated


def _stated_once(member: Member) -> dict[str, str]:
    """Values that the header of one file can hold only once."""
    header = member.header
    if header is None:
        return {}
    done_source = header.done_source
    if done_source == DONE_RUN:  # the same flags as in a file without such an episode
        done_source = next(iter(header.columns.get(DONE, ())), done_source)
    compression = header.codec_words if header.lossy_quality else header.compression
    return {"compression": compression, "done_source": done_source}


def _dimensions(member: Member, *, is_complete: bool) -> dict[str, str]:
    """The names of each column's dimensions; with ``is_complete``, a column without names is stated too."""
    names = member.header.feature_names if member.header is not None else {}
    stated = {column: ", ".join(names.get(column, ())) for column in member.columns}
    return {f"the dimensions of {column}": text or "none" for column, text in stated.items() if text or is_complete}


def _differences(members: Sequence[Member], stated: Sequence[Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Statements on which files differ: each value, to the first file that states it."""
    found = {}
    for what in dict.fromkeys(itertools.chain.from_iterable(stated)):
        values: dict[str, str] = {}
        for member, of_member in zip(members, stated, strict=True):
            if what in of_member:
                values.setdefault(of_member[what], member.name)
        if len(values) > 1:
            found[what] = values
    return found


def _words(what: str, values: Mapping[str, str]) -> str:
    return f"{what}: " + ", but ".join(f"{value} in {name}" for value, name in values.items())


class SourceEpisode(NamedTuple):
    """One recorded episode, whichever files it was converted to.

    Attributes:
        repo_id: Hub repo id, or the folder's name of a local dataset.
        revision: Commit sha on the Hub; None for a local folder.
        episode: The source's episode_index.
    """

    repo_id: str
    revision: str | None
    episode: int

    @property
    def recording(self) -> tuple[str, int]:
        """What a split keeps together: a later revision of a repo still contains the earlier recordings."""
        return self.repo_id, self.episode


def source_episodes(header: FileHeader | None) -> list[SourceEpisode]:
    """The source of each episode of a file, in file order; empty if another program wrote the file."""
    return [
        SourceEpisode(record.repo_id, record.revision, episode)
        for record in (header.sources if header is not None else ())
        for episode in record.episodes
    ]


def duplicates(files: Mapping[str, Sequence[SourceEpisode]]) -> dict[SourceEpisode, tuple[str, ...]]:
    """Finds source episodes that occur more than once in some files.

    Args:
        files: Name of each file, to the source of each of its episodes.

    Returns:
        Each source episode that occurs more than once, to the names of the files that hold it, one per occurrence.

    Example:
        >>> first, second = ([SourceEpisode("me/cube", None, e) for e in r] for r in (range(3), range(2, 5)))
        >>> duplicates({"a.h5": first, "b.h5": second})
        {SourceEpisode(repo_id='me/cube', revision=None, episode=2): ('a.h5', 'b.h5')}
    """
    found: dict[SourceEpisode, list[str]] = {}
    for name, episodes in files.items():
        for episode in episodes:
            found.setdefault(episode, []).append(name)
    return {episode: tuple(names) for episode, names in found.items() if len(names) > 1}


def refuse_duplicates(files: Mapping[str, Sequence[SourceEpisode]], *, remedy: str) -> None:
    """Refuses files in which a source episode occurs twice.

    Args:
        files: Name of each file, to the source of each of its episodes.
        remedy: How the user accepts them anyway, as the end of "..., or {remedy}."

    Raises:
        UsageError: An episode occurs twice; names the source, its episodes and the files.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for source, names in duplicates(files).items():
        revision = f" (revision {source.revision})" if source.revision else ""
        groups.setdefault((f"{source.repo_id}{revision}", tuple(dict.fromkeys(names))), []).append(source.episode)
    if not groups:
        return
    found = "; ".join(
        f"episode {episode_ranges(sorted(episodes))} of {source} "
        + (f"is in {names[0]} twice" if len(names) == 1 else f"is in {' and in '.join(names)}")
        for (source, names), episodes in groups.items()
    )
    raise UsageError(
        f"The same recording would count twice: {found}. Convert one file without these episodes (--episodes), or "
        f"{remedy}."
    )
