"""Arithmetic of the plan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lewm_data.config import ConvertConfig
from lewm_data.conversion.plan import Plan, Sample, cut_shards, make_plan, shortfalls

SAMPLE = Sample(frames=8, bytes_per_frame=100_000.0, frames_per_second=400.0, source_height=480, source_width=640)


def plan(**changes: object) -> Plan:
    settings = {
        "lengths": [100, 200],
        "num_cameras": 1,
        "row_bytes": 100,
        "height": 224,
        "width": 224,
        "sample": SAMPLE,
        "compression": "lzf",
        "micro_batch": 64,
        "shard_bytes": 1 << 30,
    }
    return make_plan(**{**settings, **changes})  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 1000), max_size=50), st.floats(1, 1e6), st.integers(1, 10**8))
def test_shards_cover_all_episodes_in_order_and_keep_their_size(
    lengths: list[int], step_bytes: float, shard_bytes: int
) -> None:
    shards = cut_shards(lengths, step_bytes=step_bytes, shard_bytes=shard_bytes)
    assert [position for shard in shards for position in shard] == list(range(len(lengths)))
    for number, shard in enumerate(shards):
        size = sum(lengths[position] for position in shard) * step_bytes
        assert len(shard) == 1 or size <= shard_bytes
        if number + 1 < len(shards):  # it was closed only because the next one would not fit
            assert size + lengths[shard.stop] * step_bytes > shard_bytes


def test_what_it_takes_grows_as_it_should() -> None:
    base = plan()
    assert (base.num_steps, base.num_frames, base.num_episodes, base.num_shards) == (300, 300, 2, 1)
    assert base.seconds == 300 / 400
    assert 300 * 100_100 <= base.output_bytes <= 1.1 * 300 * 100_100 + 65536
    assert plan(num_cameras=2).num_frames == 600
    assert plan(num_cameras=2).output_bytes > 1.9 * base.output_bytes
    longer = plan(lengths=[100, 200] * 1000)
    assert longer.peak_memory_bytes == base.peak_memory_bytes  # memory does not grow with the dataset
    assert plan(micro_batch=640).peak_memory_bytes > base.peak_memory_bytes


def test_shards_need_the_output_twice() -> None:
    assert plan().temporary_bytes == plan().output_bytes
    sharded = plan(shard_bytes=1)
    assert (sharded.num_shards, sharded.temporary_bytes) == (2, 2 * sharded.output_bytes)


def shortfalls_of(made: Plan, config: ConvertConfig) -> list[str]:
    return shortfalls(made, config=config, available_memory_bytes=1 << 20, free_disk_bytes=1 << 20)


def test_a_plan_that_does_not_fit_names_its_remedies() -> None:
    config = ConvertConfig()
    assert shortfalls(plan(), config=config, available_memory_bytes=1 << 40, free_disk_bytes=1 << 40) == []
    memory, disk = shortfalls_of(plan(shard_bytes=1, num_cameras=2), config)
    assert memory.startswith("memory: ")
    assert memory.endswith(
        "1 MB are available. What helps: a lower --micro_batch, a smaller --image_size, fewer --cameras at a time or "
        "closing other programs."
    )
    assert disk.endswith(
        "1 MB are free. What helps: a smaller --image_size, --compression blosc2 (the smallest files), fewer --cameras "
        "at a time, fewer --episodes, --layout sharded (no second copy) or another disk."
    )


def test_a_remedy_that_is_set_already_is_not_suggested() -> None:
    config = ConvertConfig(micro_batch=1, compression="blosc2", layout="sharded", episodes="3")
    memory, disk = shortfalls_of(plan(lengths=[100], shard_bytes=1, stays_sharded=True, micro_batch=1), config)
    assert memory.endswith("What helps: a smaller --image_size or closing other programs.")
    assert disk.endswith("What helps: a smaller --image_size or another disk.")
