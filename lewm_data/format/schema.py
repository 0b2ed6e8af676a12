"""File format version 1 and the batch contract: names, dtypes and shapes.

One HDF5 file holds all steps of all episodes, episode after episode, along the first axis N. Its root holds
column datasets of shape (N, ...), ``ep_len`` and ``ep_offset`` of shape (E,), and root attributes; no groups and
no other datasets, so that stable-worldmodel's ``HDF5Dataset`` reads it unchanged.

=============================  =======  ==============  =========================================
dataset                        dtype    shape           chunk
=============================  =======  ==============  =========================================
``pixels``, ``pixels_<name>``  uint8    (N, H, W, 3)    (1, H, W, 3): one RGB frame
``action``                     float32  (N, A)          many rows; or float64
``state``                      float32  (N, S)          many rows; or float64, or absent
``done``                       bool     (N,)            many rows
``episode_idx``, ``step_idx``  int32    (N,)            many rows; position in this file, 0-based
extra columns                  any      (N, ...)        many rows
``ep_len``                     int32    (E,)
``ep_offset``                  int64    (E,)
=============================  =======  ==============  =========================================

A frame chunk passes through its codec, then through HDF5's fletcher32 filter. A chunk that the codec could not
shrink is stored raw, with the codec's bit set in its filter mask.

A batch of windows (``num_steps`` = T, ``frameskip`` = K, first step t0 of one episode):

==========  =======  ==================================  ==================================================
key         dtype    shape                               meaning
==========  =======  ==================================  ==================================================
``pixels``  uint8    (B, T, 3, H, W), channels last      frames at t0 + k*K
``action``  float32  (B, T, K*A)                         all actions of [t0 + k*K, t0 + (k+1)*K), in order
``state``   float32  (B, T, S)                           at the kept frames; both float64 where the file has that
``done``    bool     (B, T)                              the episode ends within [t0 + k*K, t0 + (k+1)*K)
==========  =======  ==================================  ==================================================

key              dtype    shape                        meaning
===============  =======  ===========================  =========================================================
``goal_pixels``  uint8    (B, 1, 3, H, W)              the frame at the goal; likewise ``goal_pixels_<name>``
``goal_state``   float32  (B, 1, S)                    the state at the goal
``goal_steps``   int64    (B,)                         steps from the window's last kept frame to the goal; 0 if the
                                                       episode ends with that frame, which is its own goal then
===============  =======  ===========================  =========================================================
=======
Further columns that the file stores are in every batch, at the kept frames. On request, a batch also says where its
windows come from:

===============  ==========  =======  ==================================================
key              dtype       shape    meaning
===============  ==========  =======  ==================================================
``episode_idx``  int32       (B, T)   position of the episode in the file; counts on through several files
``step_idx``     int32       (B, T)   step of the episode in the file
``task_idx``     int32       (B, T)   number of the task
``task``         list[str]   B        text of the task at the first kept frame; brings ``task_idx``
``dataset_idx``  int64       (B,)     which of several files
===============  ==========  =======  ==================================================

With ``goal``, each window also has a goal: a later step of its episode. Every column of the batch but ``action`` and
``done`` comes at the goal too, with ``goal_`` before its name and one frame in place of T:

===============  =======  ===========================  ==================================================
"""

from __future__ import annotations

from collections.abc import Collection

PIXELS = "pixels"
ACTION = "action"
STATE = "state"
DONE = "done"
EPISODE_IDX = "episode_idx"
STEP_IDX = "step_idx"
GOAL_PREFIX = "goal_"
GOAL_STEPS = "goal_steps"
EP_LEN = "ep_len"
EP_OFFSET = "ep_offset"

ROW_DTYPES: dict[str, str] = {
    ACTION: "float32",
    STATE: "float32",
    DONE: "bool",
    EPISODE_IDX: "int32",
    STEP_IDX: "int32",
}
"""dtype of each column that the format defines besides frames. A file may have no ``state``."""

FLOAT_DTYPES = ("float32", "float64")
"""dtypes that ``action`` and ``state`` may have; the second one with ``--state_dtype float64``."""

EPISODE_DTYPES: dict[str, str] = {EP_LEN: "int32", EP_OFFSET: "int64"}
DONE_RUN = "run"
"""``done_source`` of a source that flags several last steps of an episode: the last of them is its end."""

RESERVED_NAMES = frozenset({PIXELS, *ROW_DTYPES, *EPISODE_DTYPES})
ROWS_PER_CHUNK = 4096
"""Maximum rows in a chunk of a small column: a few hundred kilobytes for wide states."""

CHUNK_BYTES = 1 << 20
"""Maximum size of a chunk of a small column, unless one row is larger. HDF5's chunk cache has this size; it reads,
checks and writes a larger chunk again for every episode."""


def rows_per_chunk(row_bytes: int) -> int:
    """Rows in a chunk of a small column.

    Args:
        row_bytes: Bytes of one row.
    """
    return max(1, min(ROWS_PER_CHUNK, CHUNK_BYTES // max(1, row_bytes)))


def is_pixels(column: str) -> bool:
    """Whether a column holds frames: ``pixels`` or ``pixels_<camera>``."""
    return column == PIXELS or column.startswith(PIXELS + "_")


def pixels_column(camera: str) -> str:
    """The column of an additional camera.

    Args:
        camera: LeRobot's feature key, such as ``observation.images.top``.

    Returns:
        ``pixels_<name>``, the name being the key's part after ``observation.images.`` (else the whole key), with
        every character other than letters, digits, ``_`` and ``-`` replaced by ``_``.
    """
    return f"{PIXELS}_{safe_name(camera_name(camera))}"


def is_value(column: str) -> bool:
    """Whether a column holds recorded values per step: no frames, no indices, no episode table."""
    return not is_pixels(column) and column not in (EPISODE_IDX, STEP_IDX, *EPISODE_DTYPES)


def has_goal(column: str) -> bool:
    """Whether a batch with goals holds this column at the goal, too, as ``goal_<column>``."""
    return column not in (ACTION, DONE)


def columns_of_batch(keys: Collection[str]) -> dict[str, str]:
    """The column behind each key of a batch.

    Args:
        keys: The batch's keys.

    Returns:
        Key to column. In a batch with goals, ``state`` and ``goal_state`` both hold ``state``.
    """
    if GOAL_STEPS not in keys:
        return {key: key for key in keys}
    return {key: key if key == GOAL_STEPS else key.removeprefix(GOAL_PREFIX) for key in keys}


def camera_name(camera: str) -> str:
    """The short name of a camera key: ``observation.images.top`` is ``top`` (LeRobot's convention)."""
    for prefix in ("observation.images.", "observation.image."):
        if camera.startswith(prefix):
            return camera[len(prefix) :]
    return camera.removeprefix("observation.")


def safe_name(name: str) -> str:
    """Replaces characters that HDF5 paths and batch keys should not have with ``_``."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
