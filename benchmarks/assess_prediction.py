"""Does the score of ``assess`` predict how blind a model will be?

Recordings of a small arm, graded at random in how clearly the camera shows it, in sensor noise, lag, size of movements,
and in how much of the motion the actions tell. Each is assessed, and then LeWM is trained on it, small but with the
classes of ``train.py``. Its error on episodes that it never saw, as a share of the better of two predictions that need
no model (the last frame, and the mean), is compared with the score by rank.

    python -m benchmarks.assess_prediction            12 recordings: 20 minutes of one core
    python -m benchmarks.assess_prediction --full     36 recordings
    python -m benchmarks.assess_prediction --quick    3 recordings and a few steps: shows that it works
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.arm import FPS, Arm, make_arm
from benchmarks.harness import log
from benchmarks.runner import Benchmark, Option
from lewm_data.format.header import FileHeader, SourceRecord
from lewm_data.format.writer import FileShape, FileWriter
from lewm_data.quality.assess.answers import answer
from lewm_data.quality.assess.footage import THUMBNAIL_SIZE, Footage
from lewm_data.quality.assess.judge import judge

FRAMESKIP = 5
GRADES: dict[str, tuple[float, ...]] = {
    "contrast": (1.0, 0.5, 0.2, 0.08, 0.02, 0.0),
    "sensor_noise": (1.5, 4.0, 10.0, 25.0),
    "late_frames": (-3, -1, 0, 0, 1, 3),
    "amplitude": (1.0, 0.6, 0.3, 0.12),
    "obedience": (1.0, 0.8, 0.5, 0.2),
}
"""Each recording has one value of each; over the recordings of a seed, each value is used equally often."""

OPTIONS = {
    "seeds": Option("of grades, recordings and models", (10,), (10,), (10, 11, 12)),
    "recordings": Option("recordings of each seed", 3, 12, 12),
    "episodes": Option("episodes of each", 6, 20, 20),
    "steps": Option("training steps on each", 4, 600, 600),
    "accelerator": Option("to train on", "cpu"),
}


def grades(num_recordings: int, seed: int) -> list[dict[str, Any]]:
    """The grades of each recording."""
    random = np.random.default_rng(seed)
    columns = {
        name: random.permutation(np.resize(np.array(values), num_recordings)).tolist()
        for name, values in GRADES.items()
    }
    return [{name: column[number] for name, column in columns.items()} for number in range(num_recordings)]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Makes, assesses and trains on each recording."""
    rows = []
    for seed in options.seeds:
        for number, grade in enumerate(grades(options.recordings, seed)):
            own_seed = 1000 * seed + number
            footage = make_arm(Arm(seed=own_seed, num_episodes=options.episodes, length=120, **grade))
            judged = judge(footage, answer(footage), source="arm", frameskip=FRAMESKIP)
            trained = train(footage, steps=options.steps, seed=own_seed, accelerator=options.accelerator)
            row = {
                "seed": seed,
                "grade": grade,
                "score": judged.score,
                "verdict": judged.verdict,
                "codes": [found.code for found in judged.findings],
                "cameras": judged.to_dict()["cameras"],
                "following": judged.answers.response.following,
                "model": trained,
                "error": max(trained["blindness"], trained["versus_mean"]),
            }
            log(f"{seed}, {number + 1}: {grade}: score {row['score']}, error {row['error']:.2f}, {judged.verdict}")
            rows.append(row)
    settings = {name: getattr(options, name) for name in OPTIONS}
    return {"settings": {"frameskip": FRAMESKIP, **settings}, "rows": rows, **summary(rows)}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation of the score with the model's success, and a 95 % interval from resampled recordings.

    An error of 1 or more is blind, as the diagnostics of training say; how far above 1 it is, is chance. So such errors
    count as equal. The correlation of the errors as they are is there, too.
    """
    score = np.array([row["score"] or 0.0 for row in rows])
    error = np.array([row["error"] for row in rows])
    capped = np.minimum(error, 1.0)
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(rows), len(rows)) for _ in range(2000)]
    resampled = [rank_correlation(score[d], -capped[d]) for d in drawn]
    known = [value for value in resampled if np.isfinite(value)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (float("nan"), float("nan"))
    return {
        "rank_correlation": rank_correlation(score, -capped),
        "rank_correlation_low": float(low),
        "rank_correlation_high": float(high),
        "rank_correlation_uncapped": rank_correlation(score, -error),
    }


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's; ties share their mean rank."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    levels, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse])


def write(footage: Footage, path: Path) -> None:
    """Writes a recording as a converted file of its thumbnails."""
    [track] = footage.cameras.values()
    columns: dict[str, tuple[str, int | None]] = {
        "action": ("float32", footage.action.shape[1]),
        "state": ("float32", footage.state.shape[1]),
        "done": ("bool", None),
    }
    shape = FileShape(("pixels",), THUMBNAIL_SIZE, THUMBNAIL_SIZE, columns, "none")
    blocks = footage.blocks()
    with FileWriter(path, shape, num_rows=len(footage.episode)) as writer:
        for steps in blocks:
            done = np.arange(len(steps)) == len(steps) - 1
            writer.write_rows({"action": footage.action[steps], "state": footage.state[steps], "done": done})
            chunks = (writer.encode(np.ascontiguousarray(frame)).result() for frame in track.thumbnails[steps])
            writer.write_chunks("pixels", chunks, start=0)
            writer.end_episode(len(steps))
        source = SourceRecord(repo_id="arm", revision=None, codebase_version="v3.0", episodes=tuple(range(len(blocks))))
        writer.finish(
            FileHeader(
                lewm_data_version="0",
                sources=(source,),
                fps=FPS,
                cameras={"pixels": "observation.images.top"},
                image_height=THUMBNAIL_SIZE,
                image_width=THUMBNAIL_SIZE,
                resize="stretch",
                compression="none",
                done_source="last_step",
                feature_names={name: footage.names[name] for name in ("action", "state")},
            )
        )


def train(footage: Footage, *, steps: int, seed: int, accelerator: str) -> dict[str, float]:
    """Trains LeWM on a recording, and returns what its diagnostics say."""
    import lightning
    import torch

    from lewm_data.datamodule import LeWMDataModule
    from lewm_data.training.diagnostics import Diagnostics
    from lewm_data.training.lewm import LeWMModule

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory(prefix="lewm-data-prediction-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "arm.h5"
        write(footage, path)
        data = LeWMDataModule(
            h5_path=str(path), frameskip=FRAMESKIP, batch_size=64, val_fraction=0.25, num_workers=1, seed=seed
        )
        diagnostics = Diagnostics(dirpath=folder)
        module = LeWMModule(
            embed_dim=32, encoder_dim=64, encoder_depth=2, encoder_heads=2, patch_size=8, predictor_depth=2,
            predictor_heads=4, predictor_head_dim=16, predictor_mlp_dim=128, projector_dim=128, sigreg_projections=128,
            learning_rate=1e-3, seed=seed,
        )  # fmt: skip
        trainer = lightning.Trainer(
            accelerator=accelerator, devices=1, max_steps=steps, val_check_interval=steps, check_val_every_n_epoch=None,
            limit_val_batches=1, gradient_clip_val=1.0, callbacks=[diagnostics], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, data)
    found = diagnostics.diagnosis
    assert found is not None
    return {name: float(getattr(found, name)) for name in ("blindness", "versus_mean", "action_gain", "mean_r2")}


BENCHMARK = Benchmark(
    name="assess_prediction", doc=__doc__, options=OPTIONS, measure=measure,
    distributions=("torch", "stable-worldmodel", "transformers"),
)  # fmt: skip
main = BENCHMARK.main

if __name__ == "__main__":
    main()
