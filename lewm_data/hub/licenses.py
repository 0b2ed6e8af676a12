"""The license of a source: what its own card on the Hub says, never a guess."""

from __future__ import annotations

from collections.abc import Iterable

from lewm_data.format.header import SourceRecord


def source_licenses(sources: Iterable[SourceRecord]) -> dict[str, tuple[str, ...]]:
    """Reads the license on each source's own card on the Hub, at the converted revision.

    Args:
        sources: The sources of a file's episodes.

    Returns:
        Repo id to Hub license identifiers such as ``apache-2.0``; empty if the card names none, if the source is a
        local folder, or if the card cannot be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    licenses: dict[str, tuple[str, ...]] = {}
    for record in sources:
        found: tuple[str, ...] = ()
        if record.revision is not None:
            try:
                card = api.dataset_info(record.repo_id, revision=record.revision).card_data
            except (HfHubHTTPError, HFValidationError):  # deleted, private or renamed: unknown
                card = None
            stated = card.get("license") if card is not None else None
            names = stated if isinstance(stated, list) else [stated]
            found = tuple(name for name in names if isinstance(name, str) and name not in ("", "unknown"))
        licenses[record.repo_id] = tuple(dict.fromkeys((*licenses.get(record.repo_id, ()), *found)))
    return licenses
