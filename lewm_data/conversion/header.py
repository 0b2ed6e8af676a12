"""The root attributes of a converted file, from what was inspected and what decoding found."""

from __future__ import annotations

from collections.abc import Sequence

import lewm_data
from lewm_data.config import parse_part
from lewm_data.conversion.inspect import Inspection
from lewm_data.findings import Finding
from lewm_data.format.schema import FileHeader, SourceRecord


def file_header(inspection: Inspection, *, episodes: Sequence[int], findings: Sequence[Finding]) -> FileHeader:
    """Makes the root attributes of a file, or of a shard of it; ``finish`` of the writer adds the statistics.

    Args:
        inspection: The source and the settings.
        episodes: The source's episode_index of each episode in the file, in order.
        findings: What the file shall tell of, each with its handling.
    """
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    assert inspection.image_size is not None
    features = {name: dataset.features[key] for name, key in dataset.row_columns(config.extra_columns).items()}
    dropped = {found.episode for found in findings if found.handling == "dropped" and found.episode is not None}
    return FileHeader(
        lewm_data_version=lewm_data.__version__,
        sources=(
            SourceRecord(
                repo_id=dataset.repo_id,
                revision=dataset.revision,
                codebase_version=dataset.codebase_version,
                episodes=tuple(episodes),
            ),
        ),
        fps=dataset.fps,
        cameras=dict(inspection.cameras),
        image_height=inspection.image_size[0],
        image_width=inspection.image_size[1],
        resize=config.resize,
        compression=config.compression,
        done_source=dataset.done_source,
        feature_names={name: feature.names for name, feature in features.items() if feature.names},
        tasks=dataset.tasks,
        dirty_episode_policy=config.dirty_episode_policy,
        findings=tuple(findings),
        dropped_episodes=tuple(sorted(dropped)),
        fingerprint=inspection.fingerprint,
        part="/".join(map(str, parse_part(config.shard))) if config.shard else "",
    )
