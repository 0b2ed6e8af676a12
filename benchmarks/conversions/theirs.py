"""stable-worldmodel's conversion, one whole process: its LeRobot adapter into its HDF5 writer.

    python -m benchmarks.conversions.theirs SOURCE OUTPUT.h5 CAMERA

This is the loop of ``stable_worldmodel.data.convert``, which itself opens only datasets of the Hub. It keeps frames at
their native size, holds whole episodes, and prints one JSON object: frames, seconds and peak memory.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings


def main() -> None:
    """Converts, and prints what it took."""
    source, output, camera = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_HOME=home, HF_HUB_OFFLINE="1", SVT_LOG="1")
        warnings.simplefilter("ignore")
        from stable_worldmodel.data.formats.hdf5 import HDF5Writer
        from stable_worldmodel.data.formats.lerobot import LeRobotAdapter
        from stable_worldmodel.data.utils import _episode_to_step_lists

        from lewm_data.resources import peak_memory_bytes

        began = time.perf_counter()
        columns = ["pixels", "action", "proprio"]
        adapter = LeRobotAdapter(
            "benchmark/source",
            root=source,
            primary_camera_key=f"observation.images.{camera}",
            keys_to_load=columns,
        )
        with HDF5Writer(output, mode="overwrite") as writer:
            writer.write_episodes(
                _episode_to_step_lists(adapter.load_episode(episode), int(length))
                for episode, length in enumerate(adapter.lengths)
            )
        seconds = time.perf_counter() - began
        print(
            json.dumps(
                {
                    "frames": int(sum(adapter.lengths)),
                    "seconds": seconds,
                    "peak_memory_bytes": peak_memory_bytes(),
                }
            )
        )


if __name__ == "__main__":
    main()
