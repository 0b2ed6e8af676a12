"""Windows without motion are drawn less often. The oracle looks at every row of every window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.loading.idle_windows import ThinnedPart, Thinning
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.sampler import WindowOrder
from lewm_data.loading.windows import WindowIndex
from tests.loading import files

SPAN = 6


@st.composite
def parts(draw: st.DrawFn) -> tuple[ThinnedPart, set[int], float]:
    """A dataset with rests, the idle windows as found row by row, and the weight."""
    lengths = np.array(draw(st.lists(st.integers(1, 30), min_size=1, max_size=6)))
    span = draw(st.integers(1, 7))
    rest = np.array(draw(st.lists(st.booleans(), min_size=int(lengths.sum()), max_size=int(lengths.sum()))))
    rest = np.repeat(rest, 3)[: len(rest)]  # so that runs are long enough
    weight = draw(st.floats(0, 1))
    offsets = np.cumsum(lengths) - lengths
    index = WindowIndex.build(lengths, offsets, num_steps=span, frameskip=1)
    idle = {w for w, row in enumerate(index.rows(np.arange(len(index))).tolist()) if rest[row : row + span].all()}
    return ThinnedPart.of(index, rest, weight), idle, weight


@given(made=st.lists(parts(), min_size=1, max_size=3), key=st.integers(0, 1000))
def test_an_epoch_draws_each_moving_window_once_and_a_share_of_the_idle_ones(
    made: list[tuple[ThinnedPart, set[int], float]], key: int
) -> None:
    thinning = Thinning(tuple(part for part, _, _ in made))
    drawn = thinning.windows(np.arange(sum(thinning.num_draws)), key).tolist()
    assert len(drawn) == len(set(drawn))
    begin = 0
    for part, idle, weight in made:
        mine = {window - begin for window in drawn if begin <= window < begin + part.num_windows}
        begin += part.num_windows
        assert mine - idle == set(range(part.num_windows)) - idle
        assert len(mine & idle) == round(weight * len(idle))


def order_of(part: ThinnedPart, **options: Any) -> WindowOrder:
    thinning = Thinning((part,))
    defaults: dict[str, Any] = {"num_windows": part.num_draws, "batch_size": 4, "seed": 1, "thinning": thinning}
    return WindowOrder(**(defaults | options))


def resting_part(weight: float = 0.25) -> ThinnedPart:
    rest = np.zeros(400, np.bool_)
    rest[100:300] = True
    index = WindowIndex.build([400], [0], num_steps=5, frameskip=1)
    return ThinnedPart.of(index, rest, weight)


def test_each_epoch_draws_other_idle_windows_and_ranks_share_them() -> None:
    part = resting_part()
    assert (part.num_idle, part.num_idle_draws, part.num_draws) == (196, 49, 396 - 196 + 49)
    epochs = []
    for epoch in range(2):
        ranks = [order_of(part, rank=rank, world_size=2, drop_last=False) for rank in range(2)]
        windows = [w for order in ranks for p in order.positions() for w in order.batch(epoch, p).tolist()]
        assert len(windows) == len(set(windows)) >= part.num_draws - 1
        epochs.append({window for window in windows if 100 <= window < 296})
    assert len(epochs[0] & epochs[1]) < 25  # by chance 12


def test_a_mixture_draws_its_quota_of_each_thinned_dataset() -> None:
    part, still = resting_part(0.5), resting_part(0.0)
    thinning = Thinning((part, still))
    mixture = Mixture.weighted(thinning.num_draws, [1, 3])
    order = WindowOrder(
        num_windows=mixture.num_draws, batch_size=1, drop_last=False, mixture=mixture, thinning=thinning
    )
    windows = np.concatenate([order.batch(0, position) for position in order.positions()])
    assert [int((windows < 396).sum()), int((windows >= 396).sum())] == list(mixture.quotas)
    others = windows[windows >= 396] - 396
    assert not ((others >= 100) & (others < 296)).any()


def test_orders_of_other_thinnings_are_told_apart() -> None:
    orders = [order_of(resting_part(weight)) for weight in (0.25, 0.25, 0.5)]
    assert orders[0].fingerprint == orders[1].fingerprint != orders[2].fingerprint


# --- through the data module


LENGTHS = (120, 90, 150)
REST = {0: [(40, 80)], 1: [], 2: [(0, 60), (120, 150)]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> files.Written:
    """An arm that rests in some rows; each frame shows the number of its row."""
    made = files.write(tmp_path_factory.mktemp("rest") / "a.h5", LENGTHS, height=8, width=8)
    moving = np.ones(sum(LENGTHS), np.bool_)
    for episode, runs in REST.items():
        for start, stop in runs:
            moving[made.offsets[episode] + start : made.offsets[episode] + stop] = False
    phase = np.cumsum(moving) * 0.2
    random = np.random.default_rng(0)
    with h5py.File(made.path, "r+") as file:
        for name, width in (("action", 2), ("state", 3)):
            noise = random.normal(0, 1e-3, (len(phase), width))
            file[name][:] = np.sin(phase[:, None] * (1 + 0.2 * np.arange(width))) + noise
        rows = np.arange(len(phase))
        file["pixels"][:] = np.stack([rows // 256, rows % 256, rows * 0], axis=1)[:, None, None, :].astype(np.uint8)
    return made


def module(path: Any, **options: Any) -> LeWMDataModule:
    defaults: dict[str, Any] = {
        "h5_path": path, "num_steps": 3, "frameskip": 2, "batch_size": 4, "num_workers": 1, "val_episodes": "1",
        "cache": "none", "normalize": False, "idle_weight": 0.25,
    }  # fmt: skip
    made = LeWMDataModule(**(defaults | options))
    made.setup()
    return made


def rows_of(batches: Any) -> list[int]:
    """First row of each window, read from its first frame."""
    return [
        int(frame[0, 0, 0]) * 256 + int(frame[1, 0, 0]) for batch in batches for frame in batch["pixels"][:, 0].numpy()
    ]


def is_idle(row: int, margin: int) -> bool:
    offsets = np.cumsum(LENGTHS) - LENGTHS
    return any(
        offsets[episode] + start + margin <= row <= offsets[episode] + stop - SPAN - margin
        for episode, runs in REST.items()
        for start, stop in runs
    )


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_training_draws_windows_without_motion_less_often(written: files.Written, worker_type: str) -> None:
    data = module(written.path, worker_type=worker_type)
    drawn = rows_of(data.train_dataloader())
    everything = set(rows_of(module(written.path, idle_weight=1.0, batch_size=1).train_dataloader()))
    assert len(everything) == 120 - SPAN + 1 + 150 - SPAN + 1
    missing = everything - set(drawn)
    assert len(drawn) == len(set(drawn))
    moving = [row for row in missing if not is_idle(row, -4)]  # rest is judged over 0.3 s
    assert len(moving) < data.batch_size  # only the last batch, which is not full, is dropped
    share = [row in missing for row in everything if is_idle(row, 3)]
    assert 0.6 < np.mean(share) < 0.9
    assert data.splits.num_train_draws < len(data.splits.train)
    validated = rows_of(data.val_dataloader())
    assert validated == list(range(120, 120 + 90 - SPAN + 1))
    data.teardown()


def test_a_resumed_run_draws_the_very_next_window(written: files.Written) -> None:
    whole = module(written.path).train_dataloader()
    expected = [rows_of(whole), rows_of(whole)]
    first = module(written.path).train_dataloader()
    batches = iter(first)
    begun = rows_of(next(batches) for _ in range(7))
    state = first.state_dict()
    resumed = module(written.path, num_workers=2, worker_type="process").train_dataloader()
    resumed.load_state_dict(state)
    assert begun + rows_of(resumed) == expected[0]
    assert rows_of(resumed) == expected[1]
    resumed.close()


def test_a_weight_of_one_looks_at_nothing(written: files.Written, monkeypatch: pytest.MonkeyPatch) -> None:
    from lewm_data import converted_files

    monkeypatch.setattr(converted_files, "find_resting_rows", None)
    assert module(written.path, idle_weight=1.0).splits.thinning is None


def test_several_datasets_are_thinned_each_by_itself(written: files.Written, tmp_path: Path) -> None:
    other = files.write(tmp_path / "b.h5", [40, 50], height=8, width=8, sources=files.sources("me/other", 2))
    data = module([written.path, other.path], val_episodes=None, val_fraction=0.0)
    assert data.splits.thinning is not None
    first, second = data.splits.thinning.parts
    assert first.num_idle > 60
    assert (second.num_idle, second.num_windows) == (0, 40 - SPAN + 1 + 50 - SPAN + 1)
    assert any("the robot stands still in" in line for line in data.splits.describe())


def test_a_weight_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="idle_weight is 1.5, but must lie in"):
        LeWMDataModule(h5_path="a.h5", idle_weight=1.5)
