"""nginx as an object store, read with boto3."""

from __future__ import annotations

import time
from pathlib import Path

import boto3
import pytest

from benchmarks import compiled_server

pytestmark = pytest.mark.skipif(not compiled_server.is_available(), reason=compiled_server.HINT)


def test_objects_ranges_listings_and_traffic(tmp_path: Path) -> None:
    (tmp_path / "t.lance" / "_versions").mkdir(parents=True)
    (tmp_path / "a.h5").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "t.lance" / "_versions" / "1.manifest").write_bytes(b"manifest")
    (tmp_path / "t.lance" / "data.lance").write_bytes(b"data")
    options = {"aws_access_key_id": "me", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    with compiled_server.serve(tmp_path) as store:
        client = boto3.client("s3", endpoint_url=store.endpoint, **options)
        requests, num_bytes = store.traffic()
        found = client.get_object(Bucket="benchmark", Key="a.h5", Range="bytes=5-14")
        assert found["Body"].read() == bytes(range(5, 15))
        assert found["ETag"] == client.head_object(Bucket="benchmark", Key="a.h5")["ETag"]
        assert store.traffic() == (requests + 2, num_bytes + 10)
        listed = client.list_objects_v2(Bucket="benchmark", Prefix="t.lance/_versions/")["Contents"]
        assert [item["Key"] for item in listed] == ["t.lance/_versions/1.manifest"]


def test_responses_are_delayed(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"data")
    options = {"aws_access_key_id": "me", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    with compiled_server.serve(tmp_path, latency_seconds=0.2) as store:
        client = boto3.client("s3", endpoint_url=store.endpoint, **options)
        began = time.perf_counter()
        assert client.get_object(Bucket="benchmark", Key="a.h5")["Body"].read() == b"data"
        assert time.perf_counter() - began > 0.2
