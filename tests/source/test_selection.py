from __future__ import annotations

import pytest

from lewm_data.errors import UsageError
from lewm_data.source.selection import check_columns


def test_the_text_of_a_task_is_asked_for_by_its_index() -> None:
    with pytest.raises(UsageError, match="Write task_index instead; the file's header has the texts"):
        check_columns(["next.reward", "task"], ["action", "next.reward", "task_index"])
    check_columns(["task"], ["action", "task"])  # a column of the dataset's own
