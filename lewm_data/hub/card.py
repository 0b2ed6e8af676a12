"""The card of a converted file on the Hub, written from the file's own attributes.

Text from the file is untrusted: ``_text`` and ``_code`` keep it from becoming markup.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lewm_data.errors import printable
from lewm_data.findings import HANDLED, group_findings
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import EP_LEN, camera_name
from lewm_data.notation import count_of, episode_ranges

HDF5_SUFFIXES = (".h5", ".hdf5")
"""Suffixes of converted files in a repo, here and in stable-worldmodel."""

_MAX_DIMENSIONS = 64
_MAX_TASKS = 20
_MAX_RANGES = 20
_MAX_LETTERS = 500
_SIZES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B"]
"""The Hub's size categories: up to three digits, then one more digit each."""


_LOADING = """\
## Load it

```
{pull}
```

In a Lightning trainer:

```python
from lewm_data import LeWMDataModule

dm = LeWMDataModule(h5_path={name}, num_steps=4, frameskip=5)
# trainer.fit(model, datamodule=dm)
```

In stable-worldmodel (importing the adapter registers the format; without it, leave out `format`):

```python
from pathlib import Path

import lewm_data.adapters.stable_worldmodel
from stable_worldmodel.data import load_dataset

path = Path({name}).absolute()  # a relative path means its cache folder
dataset = load_dataset(path, format="lewm", num_steps=4, frameskip=5)
```"""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """The facts on a card.

    Attributes:
        name: The file's name in the repo, which ends in ``.h5`` or ``.hdf5``.
        file_bytes: The file's size.
        header: The file's root attributes.
        num_episodes: Number of episodes.
        num_steps: Number of steps.
        columns: Dataset to (dtype, shape), in the file's order.
    """

    name: str
    file_bytes: int
    header: FileHeader
    num_episodes: int
    num_steps: int
    columns: dict[str, tuple[str, tuple[int, ...]]]


def read_facts(path: Path) -> CardFacts:
    """Reads the facts from a file.

    Raises:
        FormatError: The file is not in lewm_data's format.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        lengths = file[EP_LEN][:]
        return CardFacts(
            name=_repo_name(path),
            file_bytes=path.stat().st_size,
            header=header,
            num_episodes=len(lengths),
            num_steps=int(lengths.sum()),
            columns={name: (item.dtype.name, item.shape) for name, item in file.items()},
        )


def dataset_card(facts: CardFacts, *, repo_id: str, licenses: Mapping[str, Sequence[str]]) -> str:
    """Writes the card.

    Args:
        facts: The facts of the file.
        repo_id: The repo that the card is for.
        licenses: Source repo id to the license identifiers on the source's own card; empty if unknown.

    Returns:
        Markdown that begins with the Hub's metadata: the repo's ``README.md``.
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
        viewer=False,  # the Hub's viewer would show every frame as a row of numbers
    ).to_yaml()


def _repo_name(path: Path) -> str:
    """The file's name in the repo; unusual characters, which could break the card's code blocks, become ``_``."""
    name = re.sub(r"[^\w. +-]", "_", path.name)
    return name if name.endswith(HDF5_SUFFIXES) else f"{name}.h5"


def _size_category(num_steps: int) -> str:
    return _SIZES[min(max(0, len(str(num_steps)) - 3), len(_SIZES) - 1)]


def _title(facts: CardFacts, repo_id: str) -> Iterator[str]:
    header = facts.header
    minutes = facts.num_steps / header.fps / 60
    cameras = _text(", ".join(camera_name(key) for key in header.cameras.values()))
    counts = f"{count_of(facts.num_episodes, 'episode')}, {count_of(facts.num_steps, 'step')}"
    yield f"# {repo_id.split('/')[-1]}"
    yield ""
    yield (
        f"A robot dataset, converted from LeRobot's layout to one HDF5 file from which LeWM and other world models "
        f"draw random time windows: **{counts}, {minutes:,.1f} minutes at {header.fps:g} fps**, cameras {cameras} at "
        f"{header.image_height}x{header.image_width}, {facts.file_bytes / 1e6:,.0f} MB. It was made with lewm_data "
        f"{_text(header.lewm_data_version)} in format version {header.format_version}. Every frame has a checksum."
    )


def _loading(facts: CardFacts, repo_id: str) -> Iterator[str]:
    pull = shlex.join(["lewm-data", "pull", repo_id, facts.name])
    yield _LOADING.format(pull=pull, name=json.dumps(facts.name))
    yield ""
    needs = {"lzf": "", "none": "", "jpeg": ", after `lewm_data.format.jpeg_filter.register()`"}
    yield f"Plain `h5py` reads it too{needs.get(facts.header.compression, ', after `import hdf5plugin`')}."
    if facts.header.compression == "jpeg":
        yield "Where lewm_data is not installed, the file's root attribute `reading` says how to decode its frames."
    if facts.header.lossy_quality:
        yield ""
        yield f"**The frames are lossy** ({_text(facts.header.codec_words)}): not the pixels of the recording."


def _sources(header: FileHeader, licenses: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "## Source and license"
    yield ""
    yield "| source | revision | layout | episodes | license on its own card |"
    yield "|---|---|---|---|---|"
    for record in header.sources:
        name = _text(record.repo_id)
        if record.revision is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", record.repo_id):
            name = f"[{name}](https://huggingface.co/datasets/{record.repo_id})"
        yield _row(
            name,
            "local folder" if record.revision is None else _code(record.revision),
            _text(record.codebase_version),
            episode_ranges(sorted(set(record.episodes)), _MAX_RANGES),
            _text(", ".join(licenses.get(record.repo_id, ()))) or "unknown",
        )
    yield ""
    if all(licenses.values()):
        yield "The converted file holds the source's recordings, so the source's license applies to it."
    else:
        yield (
            "**An unknown license does not permit anyone to use this data or pass it on.** Ask its owner. If that is "
            "you, state the license in the `license` field at the top of this card."
        )


def _columns(facts: CardFacts) -> Iterator[str]:
    yield "## Columns"
    yield ""
    yield "| dataset | dtype | shape | dimensions |"
    yield "|---|---|---|---|"
    for name, (dtype, shape) in facts.columns.items():
        names = facts.header.feature_names.get(name, ())
        camera = facts.header.cameras.get(name)
        what = f"RGB frames of {_code(camera)}" if camera else _text(", ".join(names[:_MAX_DIMENSIONS]))
        yield _row(_code(name), dtype, f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})", what)
    yield ""
    yield "The first axis is all steps of all episodes. Each episode begins at `ep_offset` and has `ep_len` steps."


def _settings(header: FileHeader) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield "| setting | value |"
    yield "|---|---|"
    yield _row("frame size", f"{header.image_height}x{header.image_width}, resized by {_code(header.resize)}")
    yield _row("codec of the frames", _code(header.compression) + header.codec_words.removeprefix(header.compression))
    yield _row("end of an episode", _code(header.done_source))
    for label, value in header.corrections():
        yield _row(_text(label), _text(value))
    yield _row("dirty episodes", f"policy {_code(header.dirty_episode_policy)}")
    yield _row("fingerprint", _code(header.fingerprint))


def _statistics(header: FileHeader) -> Iterator[str]:
    if not header.statistics:
        return
    yield "## Statistics"
    yield ""
    yield "Over all steps, for each dimension. A trainer should compute its own over the training episodes only."
    yield ""
    yield "| column | dimension | mean | std | min | max |"
    yield "|---|---|---|---|---|---|"
    for column, stats in header.statistics.items():
        names = header.feature_names.get(column, ())
        for place, values in enumerate(zip(stats.mean, stats.std, stats.min, stats.max, strict=True)):
            if place == _MAX_DIMENSIONS:
                yield _row(_code(column), f"and {len(stats.mean) - place:,} more", "", "", "", "")
                break
            name = _text(names[place]) if place < len(names) else str(place)
            yield _row(_code(column), name, *(f"{value:.6g}" for value in values))


def _findings(header: FileHeader) -> Iterator[str]:
    yield "## Findings"
    yield ""
    if not header.findings:
        yield "None: the recording passed every check of lewm_data."
        return
    yield "What lewm_data found in the source, and what it did about it. The file's attributes list every finding."
    yield ""
    yield "| severity | finding | count | where | handling | example |"
    yield "|---|---|---|---|---|---|"
    for group in group_findings(header.findings):
        first = group.first
        yield _row(
            _text(first.severity),
            _code(first.code),
            f"{group.count:,}",
            group.where(),
            _text(HANDLED.get(first.handling, first.handling)),
            _text(f"expected {first.expected}, found {first.found}"),
        )
    yield ""
    dropped = episode_ranges(header.dropped_episodes, _MAX_RANGES)
    yield f"Dropped episodes: {dropped}." if dropped else "No episodes were dropped."


def _tasks(header: FileHeader) -> Iterator[str]:
    tasks = list(header.tasks.values())
    yield from ("## Tasks", "") if tasks else ()
    yield from (f"- {_text(text)}" for text in tasks[:_MAX_TASKS])
    if len(tasks) > _MAX_TASKS:
        yield f"- and {len(tasks) - _MAX_TASKS:,} more"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Escapes untrusted text, so that Markdown shows it as it is, also in a table or a list."""
    line = " ".join(printable(text).split())[:_MAX_LETTERS]
    escaped = re.sub(r"[\\`*_\[\]<>|#!&~$@]|(?<=:)//|(?<=www)\.", lambda found: f"\\{found[0]}", line)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escaped)  # the start of a list or an underline


def _code(text: str) -> str:
    """Untrusted text as inline code if it is an ordinary name, otherwise as escaped text."""
    return f"`{text}`" if re.fullmatch(r"[\w./:+-]{1,500}", text) else _text(text)
