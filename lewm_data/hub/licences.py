"""Under which licence a source is published: what its own card says, never a guess."""

from __future__ import annotations

from collections.abc import Iterable

from lewm_data.format.schema import SourceRecord


def source_licences(sources: Iterable[SourceRecord]) -> dict[str, tuple[str, ...]]:
    """Asks the Hub for the licence on each source's own card, at the revision that was converted.

    Args:
        sources: Where a file's episodes came from.

    Returns:
        Repo id to Hub licence identifiers such as ``apache-2.0``; empty where the card names none, where the source
        is a local folder, or where the card cannot be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    licences: dict[str, tuple[str, ...]] = {}
    for record in sources:
        found: tuple[str, ...] = ()
        if record.revision is not None:
            try:
                card = api.dataset_info(record.repo_id, revision=record.revision).card_data
            except (HfHubHTTPError, HFValidationError):  # gone, private, or renamed: then it is not known
                card = None
            stated = card.get("license") if card is not None else None
            names = stated if isinstance(stated, list) else [stated]
            found = tuple(name for name in names if isinstance(name, str) and name not in ("", "unknown"))
        licences[record.repo_id] = tuple(dict.fromkeys((*licences.get(record.repo_id, ()), *found)))
    return licences
