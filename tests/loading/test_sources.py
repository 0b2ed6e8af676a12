from __future__ import annotations

from pathlib import Path

import pytest

from lewm_data.errors import UsageError
from lewm_data.loading.sources import Sources


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"repo_id": "me/a", "root": None, "h5_path": ""}, Sources("repo_id", ("me/a",))),
        ({"root": Path("x")}, Sources("root", ("x",))),
        ({"h5_path": ["a.h5", Path("b.h5")]}, Sources("h5_path", ("a.h5", "b.h5"))),
        ({"repo_id": {"me/a": 3, "me/b": 0.5}}, Sources("repo_id", ("me/a", "me/b"), (3.0, 0.5))),
    ],
)
def test_every_form_becomes_one(given, expected):
    assert Sources.parse(**given) == expected
    assert str(expected) == ", ".join(expected.names)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"repo_id": None}, "nothing given as the source"),
        ({"repo_id": "a/b", "root": ["c"]}, "repo_id and root given as the source, but it takes exactly one"),
        ({"repo_id": []}, "repo_id is empty. Name one dataset or more"),
        ({"root": ["a", ""]}, "root is empty"),
        ({"repo_id": ["me/a", "me/b", "me/a"]}, r"names me/a twice.* give weights: \{me/a: 2"),
        ({"repo_id": {"me/a": 1, "me/b": 0}}, "gives me/b the weight 0.0, but a weight is a number above 0. Leave out"),
        ({"repo_id": {"me/a": float("nan")}}, "the weight nan"),
        ({"repo_id": {"me/a": float("inf")}}, "the weight inf"),
    ],
)
def test_what_names_no_datasets_is_refused(given, words):
    with pytest.raises(UsageError, match=words):
        Sources.parse(**given)
