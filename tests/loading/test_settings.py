from __future__ import annotations

from pathlib import Path

import pytest

from lewm_data.errors import UsageError
from lewm_data.loading.settings import Sources


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"repo_id": "me/a", "root": None, "h5_path": ""}, Sources("repo_id", ("me/a",))),
        ({"root": Path("x")}, Sources("root", ("x",))),
        ({"h5_path": ["a.h5", Path("b.h5")]}, Sources("h5_path", ("a.h5", "b.h5"))),
        ({"repo_id": {"me/a": 3, "me/b": 0.5}}, Sources("repo_id", ("me/a", "me/b"), (3.0, 0.5))),
    ],
)
def test_all_forms_of_a_source_are_parsed(given, expected):
    assert Sources.parse(**given) == expected
    assert str(expected) == ", ".join(expected.names)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"repo_id": None}, "No source is given. Give exactly one"),
        ({"repo_id": "a/b", "root": ["c"]}, "The source is given by repo_id and root. Give exactly one"),
        ({"repo_id": []}, "repo_id is empty. Name at least one dataset"),
        ({"root": ["a", ""]}, "root is empty"),
        ({"repo_id": ["me/a", "me/b", "me/a"]}, r"names me/a twice.* give weights: \{me/a: 2"),
        (
            {"repo_id": {"me/a": 1, "me/b": 0}},
            "gives me/b the weight 0.0, but a weight is a number above 0",
        ),
        ({"repo_id": {"me/a": float("nan")}}, "the weight nan"),
        ({"repo_id": {"me/a": float("inf")}}, "the weight inf"),
    ],
)
def test_invalid_sources_are_refused(given, words):
    with pytest.raises(UsageError, match=words):
        Sources.parse(**given)
