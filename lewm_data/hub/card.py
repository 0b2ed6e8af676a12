"""The card of a converted file on the Hub, written from the file's own attributes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lewm_data.findings import HANDLED, episode_ranges, group_findings
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import EP_LEN, camera_name

HDF5_SUFFIXES = (".h5", ".hdf5")
"""Names by which a converted file is known in a repo, here and in stable-worldmodel."""

_MOST_DIMENSIONS = 64
_MOST_TASKS = 20
_MOST_RANGES = 20
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER_SIZES = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What a card tells of a file.

    Attributes:
        name: The file's name in the repo, which ends in ``.h5`` or ``.hdf5``.
        file_bytes: Its size.
        header: Its root attributes.
        num_episodes: Episodes in it.
        num_steps: Steps in it.
        columns: Dataset to (dtype, shape), in the file's order.
    """

    name: str
    file_bytes: int
    header: FileHeader
    num_episodes: int
    num_steps: int
    columns: dict[str, tuple[str, tuple[int, ...]]]


def read_facts(path: Path) -> CardFacts:
    """Reads what a card tells.

    Raises:
        FormatError: Not a file of this format.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        lengths = file[EP_LEN][:]
        return CardFacts(
            name=path.name if path.suffix in HDF5_SUFFIXES else f"{path.name}.h5",
            file_bytes=path.stat().st_size,
            header=header,
            num_episodes=len(lengths),
            num_steps=int(lengths.sum()),
            columns={name: (item.dtype.name, item.shape) for name, item in file.items()},
        )


def dataset_card(facts: CardFacts, *, repo_id: str, licenses: Mapping[str, Sequence[str]]) -> str:
    """Writes the card.

    Args:
        facts: Of the file.
        repo_id: Where it will be.
        licenses: Source repo id to the Hub's license identifiers on its own card; empty where that is unknown.

    Returns:
        Markdown with the Hub's metadata in front (``README.md`` of the repo).
    """
    sections = (
        _title(facts, repo_id),
        _loading(facts, repo_id),
        _sources(facts.header, licenses),
        _columns(facts),
        _settings(facts.header),
        _statistics(facts.header),
        _findings(facts.header),
        _tasks(facts.header),
    )
    body = "\n\n".join("\n".join(section) for section in map(list, sections) if section)
    return f"---\n{_metadata(facts, repo_id, licenses)}\n---\n\n{body}\n"


def _metadata(facts: CardFacts, repo_id: str, licenses: Mapping[str, Sequence[str]]) -> str:
    from huggingface_hub import DatasetCardData

    known = all(licenses.values())
    names = sorted({name for stated in licenses.values() for name in stated})
    sources = sorted({record.repo_id for record in facts.header.sources if record.revision is not None})
    return DatasetCardData(
        pretty_name=repo_id.split("/")[-1],
        license=(names[0] if len(names) == 1 else names) if known and names else "unknown",
        task_categories=["robotics"],
        size_categories=[_size_category(facts.num_steps)],
        source_datasets=sources or None,
        tags=["lewm_data", "hdf5", "world-model", "jepa", "robotics"],
        viewer=False,  # the Hub's viewer would take every frame for a row of numbers
    ).to_yaml()


def _size_category(num_steps: int) -> str:
    for limit, name in (*_SIZES, *_LARGER_SIZES):
        if num_steps < limit:
            return name
    return "1B<n<10B"


def _title(facts: CardFacts, repo_id: str) -> Iterator[str]:
    header = facts.header
    minutes = facts.num_steps / header.fps / 60
    cameras = ", ".join(camera_name(key) for key in header.cameras.values())
    yield f"# {repo_id.split('/')[-1]}"
    yield ""
    yield (
        f"A robot dataset converted from LeRobot's layout to one HDF5 file, ready for random time windows (LeWM and "
        f"other world models): **{facts.num_episodes:,} episodes, {facts.num_steps:,} steps, {minutes:,.1f} minutes "
        f"at {header.fps:g} fps**, cameras {cameras} at {header.image_height}x{header.image_width}, "
        f"{facts.file_bytes / 1e6:,.0f} MB. Made with lewm_data {header.lewm_data_version}, format version "
        f"{header.format_version}; every frame carries a checksum."
    )


def _loading(facts: CardFacts, repo_id: str) -> Iterator[str]:
    yield "## Load it"
    yield ""
    yield "```"
    yield shlex.join(["lewm-data", "pull", repo_id, facts.name])
    yield "```"
    yield ""
    yield "In a Lightning trainer:"
    yield ""
    yield "```python"
    yield "from lewm_data import LeWMDataModule"
    yield ""
    yield f"dm = LeWMDataModule(h5_path={json.dumps(facts.name)}, num_steps=4, frameskip=5)"
    yield "# trainer.fit(model, datamodule=dm)"
    yield "```"
    yield ""
    yield "In stable-worldmodel (importing the adapter registers the format; without it, `format` may be left out):"
    yield ""
    yield "```python"
    yield "from pathlib import Path"
    yield ""
    yield "import lewm_data.adapters.stable_worldmodel"
    yield "from stable_worldmodel.data import load_dataset"
    yield ""
    yield f"path = Path({json.dumps(facts.name)}).absolute()  # a relative one means its own cache folder"
    yield 'dataset = load_dataset(path, format="lewm", num_steps=4, frameskip=5)'
    yield "```"
    yield ""
    yield "Plain `h5py` reads it as well" + (
        "." if facts.header.compression in ("lzf", "none") else ", after `import hdf5plugin`."
    )


def _sources(header: FileHeader, licenses: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "## Source and license"
    yield ""
    yield "| source | revision | layout | episodes | license on its own card |"
    yield "|---|---|---|---|---|"
    for record in header.sources:
        is_hub = record.revision is not None
        link = f"[{record.repo_id}](https://huggingface.co/datasets/{record.repo_id})" if is_hub else record.repo_id
        revision = f"`{record.revision}`" if is_hub else "local folder"
        stated = ", ".join(licenses.get(record.repo_id, ())) or "unknown"
        yield _row(
            link if is_hub else _text(link),
            revision,
            record.codebase_version,
            episode_ranges(sorted(set(record.episodes)), _MOST_RANGES),
            stated,
        )
    yield ""
    if all(licenses.values()):
        yield "The converted file holds the source's recordings, so the source's license goes on to hold."
    else:
        yield (
            "**Where the license is unknown, nobody has said that this data may be used or passed on.** Ask whoever "
            "recorded it; if that is you, state it in the `license` field at the top of this card."
        )


def _columns(facts: CardFacts) -> Iterator[str]:
    yield "## Columns"
    yield ""
    yield "| dataset | dtype | shape | dimensions |"
    yield "|---|---|---|---|"
    for name, (dtype, shape) in facts.columns.items():
        names = facts.header.feature_names.get(name, ())
        camera = facts.header.cameras.get(name)
        what = f"RGB frames of `{camera}`" if camera else _text(", ".join(names[:_MOST_DIMENSIONS]))
        yield _row(f"`{name}`", dtype, f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})", what)
    yield ""
    yield "All steps follow each other along the first axis; `ep_len` and `ep_offset` say where each episode lies."


def _settings(header: FileHeader) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield "| setting | value |"
    yield "|---|---|"
    yield _row("frame size", f"{header.image_height}x{header.image_width}, resized by `{header.resize}`")
    yield _row("codec of the frames", f"`{header.compression}`, lossless")
    yield _row("end of an episode", f"`{header.done_source}`")
    yield _row("dirty episodes", f"policy `{header.dirty_episode_policy}`")
    yield _row("fingerprint", f"`{header.fingerprint}`")


def _statistics(header: FileHeader) -> Iterator[str]:
    if not header.statistics:
        return
    yield "## Statistics"
    yield ""
    yield "Over all steps, per dimension; a trainer should use those of its training episodes only."
    yield ""
    yield "| column | dimension | mean | std | min | max |"
    yield "|---|---|---|---|---|---|"
    for column, stats in header.statistics.items():
        names = header.feature_names.get(column, ())
        for place, values in enumerate(zip(stats.mean, stats.std, stats.min, stats.max, strict=True)):
            if place == _MOST_DIMENSIONS:
                yield _row(f"`{column}`", f"and {len(stats.mean) - place} more", "", "", "", "")
                break
            name = _text(names[place]) if place < len(names) else str(place)
            yield _row(f"`{column}`", name, *(f"{value:.6g}" for value in values))


def _findings(header: FileHeader) -> Iterator[str]:
    yield "## Findings"
    yield ""
    if not header.findings:
        yield "None: every check that lewm_data makes of a recording passed."
        return
    yield "What lewm_data found in the source, and what it did about it; the file's attributes hold each one."
    yield ""
    yield "| severity | finding | count | where | handling | example |"
    yield "|---|---|---|---|---|---|"
    for group in group_findings(header.findings):
        first = group.first
        yield _row(
            first.severity,
            f"`{first.code}`",
            f"{group.count:,}",
            group.where(),
            HANDLED[first.handling],
            _text(f"expected {first.expected}, found {first.found}"),
        )
    yield ""
    dropped = episode_ranges(header.dropped_episodes, _MOST_RANGES)
    yield f"Dropped episodes: {dropped}." if dropped else "No episode was dropped."


def _tasks(header: FileHeader) -> Iterator[str]:
    if not header.tasks:
        return
    yield "## Tasks"
    yield ""
    for text in list(header.tasks.values())[:_MOST_TASKS]:
        yield f"- {_text(text)}"
    if len(header.tasks) > _MOST_TASKS:
        yield f"- and {len(header.tasks) - _MOST_TASKS:,} more"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Somebody else's words, so that they neither break a table nor become markup."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else c for c in " ".join(text.split()))
    return escaped[:500]
