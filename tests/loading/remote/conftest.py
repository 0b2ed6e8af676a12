"""A bucket on a real S3 server, behind a proxy that injects faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loading.remote import object_store
from tests.loading.remote.object_store import Bucket


@pytest.fixture(scope="session")
def s3() -> Iterator[tuple[int, Any]]:
    with object_store.server() as running:
        yield running


@pytest.fixture
def bucket(s3: tuple[int, Any], request: pytest.FixtureRequest) -> Iterator[Bucket]:
    port, client = s3
    name = f"robots-{abs(hash(request.node.name)) % 10**9}"
    client.create_bucket(Bucket=name)
    with object_store.proxy_of(port) as proxy:
        yield Bucket(proxy, client, name)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
