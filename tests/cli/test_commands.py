"""The commands as people and scripts use them: messages, exit statuses, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from lewm_data.cli import commands as cli
from lewm_data.cli.parser import parse
from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert

pytestmark = pytest.mark.usefixtures("own_signal_handlers")


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Runs a command in this process; returns its status, stdout and stderr."""
    with pytest.raises(SystemExit) as done:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, " ".join(err.split())


@pytest.fixture
def small(recorded: Path, tmp_path: Path) -> Path:
    convert(str(recorded), tmp_path / "small.h5", ConvertConfig(camera="front", image_size=32))
    return tmp_path / "small.h5"


def test_inspect_prints_one_json_object(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("inspect", recorded, "--json", "--camera", "front", capsys=capsys)
    answer = json.loads(out)
    assert status == 0
    assert answer["num_episodes"] == 5
    assert answer["cameras"] == ["observation.images.front", "observation.images.top"]
    assert answer["columns"] == {"pixels": "observation.images.front"}
    assert answer["plan"]["num_frames"] == 54
    assert [found["code"] for found in answer["findings"]] == ["episode_short"] * 4


def test_inspect_lists_the_cameras_if_none_is_chosen(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("inspect", recorded, capsys=capsys)
    assert status == 0
    assert out == ""
    assert "front → pixels_front, top → pixels_top" in err
    assert "Choose a camera: front or top could each be 'pixels'." in err
    assert f"lewm-data convert {recorded} recorded.h5 --camera top" in err


def test_convert_says_what_it_made(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("convert", recorded, tmp_path / "out.h5", "--camera=front", "--json", capsys=capsys)
    answer = json.loads(out)
    assert status == 0
    assert (answer["num_episodes"], answer["num_steps"]) == (5, 54)
    assert answer["file_bytes"] == (tmp_path / "out.h5").stat().st_size
    assert "5 episodes, 54 steps" in err


def test_convert_says_how_a_camera_was_shifted(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--camera=front", "--image_size=32", "--shift", "front=+2", "--trim-idle", "--json")
    status, out, err = run("convert", recorded, tmp_path / "out.h5", *flags, capsys=capsys)
    result = json.loads(out)
    assert status == 0, err
    assert result["num_steps"] == 54 - 5 * 2
    assert result["shifts"] == {"pixels": 2}
    assert "shift front by +2, as requested" in err
    assert "trim 0 idle steps at the head and tail of episodes" in err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--trim_idle"], True),
        (["--trim-idle", "--json"], True),
        (["--trim_idle", "true"], True),
        (["--trim_idle=false"], False),
        ([], False),
    ],
)
def test_a_switch_needs_no_value(flags: list[str], expected: bool) -> None:
    assert parse(["convert", *flags, "recording", "out.h5"]).convert.trim_idle is expected
    assert parse(["convert", "recording", "out.h5", "--follow_links", *flags]).convert.follow_links is True


def test_every_setting_is_a_flag_and_a_key(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("camera: top\nimage_size: 48x64\nextra_columns: [task_index]\ncompression: zstd\n")
    status, _, err = run(
        "convert", recorded, tmp_path / "out.h5", "--config", settings, "--compression=none", capsys=capsys
    )
    assert status == 0, err
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["pixels"].shape[1:] == (48, 64, 3)
        assert file["pixels"].compression is None
        assert "task_index" in file
    with pytest.raises(SystemExit) as done:
        cli.main(["convert", "--help"])
    assert done.value.code == 0
    answer = capsys.readouterr().out
    assert [name for name in ConvertConfig.__dataclass_fields__ if f"--{name}" not in answer] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "{recorded}", "{tmp}/out.h5"], "has 2 cameras: front, top"),
        (["convert", "{tmp}", "{tmp}/out.h5"], "not a LeRobot dataset"),
        (["convert", "nobody/nothing", "{tmp}/out.h5"], "nobody/nothing: the Hub cannot be reached"),
        (["convert", "{recorded}", "{tmp}/out.h5", "--camera=front", "--image_size=huge"], "image_size is 'huge'"),
        (["convert", "{recorded}", "{tmp}/out.h5", "--camera=front", "--episodes=7"], "has episodes 0 to 4"),
        (["convert", "{recorded}", "{tmp}/out.h5", "--camera=front", "--revision=v1"], "has no revisions"),
        (["convert", "{recorded}", "{tmp}/out.h5", "--compression=zip"], "compression"),
        (["verify", "{tmp}/none.h5"], "no such file"),
        (["verify", "{tmp}/text.h5"], "not a readable HDF5 file"),
        (["verify", "{tmp}/foreign.h5"], "not a lewm_data file"),
        (["verify", "{tmp}/newer.h5"], "format version 99"),
        (["merge", "{tmp}/text.h5"], "at least one input and an output"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(
    arguments: list[str], words: str, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    for name, attributes in (("foreign", {}), ("newer", {"format_version": 99, "lewm_data_version": "9"})):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs.update(attributes)
    before = set(os.listdir(tmp_path))
    filled = [argument.format(recorded=recorded, tmp=tmp_path) for argument in arguments]
    status, _, err = run(*filled, capsys=capsys)
    assert status == 2
    assert words in err
    assert "Traceback" not in err
    assert set(os.listdir(tmp_path)) == before


def test_errors_are_json_too(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("convert", recorded, tmp_path / "out.h5", "--json", capsys=capsys)
    error = json.loads(out)["error"]
    assert (status, error["status"], error["type"]) == (2, 2, "UsageError")
    assert "has 2 cameras" in error["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "source", "--json"], "OUTPUT is missing"),
        (["convert", "source", "out.h5", "--compresion", "lz4", "--json"], "there is no --compresion"),
        (["verify", "a.h5", "b.h5", "--json"], "'b.h5' is one argument too many"),
        (["inspect", "source", "--config", "none.yaml", "--json"], "none.yaml', but there is no such file"),
        (["inspect", "source", "--config", "a: [", "--json"], "config is not valid YAML or JSON"),
    ],
)
def test_a_typing_mistake_is_json_too(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(*arguments, capsys=capsys)
    error = json.loads(out)["error"]
    assert (status, error["status"], error["type"]) == (2, 2, "UsageError")
    assert words in error["message"]
    assert words in err


def test_json_has_no_numbers_that_are_not_json(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"mean": float("nan"), "range": (float("-inf"), 2.5), "deep": [{"max": float("inf")}]}
    monkeypatch.setitem(cli._COMMANDS, "verify", lambda options, console: (0, found))
    _, out, _ = run("verify", small, "--json", capsys=capsys)
    assert json.loads(out, parse_constant=pytest.fail) == {
        "mean": None, "range": [None, 2.5], "deep": [{"max": None}]
    }  # fmt: skip


def test_exhausted_memory_is_json_too(
    small: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def exhaust(options: object, console: object) -> None:
        raise MemoryError

    monkeypatch.setitem(cli._COMMANDS, "verify", exhaust)
    status, out, err = run("verify", small, "--json", capsys=capfd)
    assert (status, json.loads(out)["error"]["status"]) == (4, 4)
    assert err.startswith("error: out of memory.")


def test_dirty_data_is_status_3_with_a_table(
    recorded: Path, copy_of, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(recorded)
    next((root / "videos" / "observation.images.front").rglob("*.mp4")).unlink()
    status, _, err = run("convert", root, tmp_path / "out.h5", "--camera=front", capsys=capsys)
    assert status == 3
    assert "file_missing" in err
    assert "better no data than toxic data" in err
    assert run("inspect", root, "--camera=front", capsys=capsys)[0] == 3
    assert not (tmp_path / "out.h5").exists()


def test_verify_finds_a_flipped_bit(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", small, capsys=capsys)[0] == 0
    with h5py.File(small) as file:
        offset = file["pixels"].id.get_chunk_info(20).byte_offset
    data = bytearray(small.read_bytes())
    data[offset + 5] ^= 1
    small.write_bytes(data)
    status, out, err = run("verify", small, "--json", capsys=capsys)
    assert status == 6
    assert "episode 2 step 1: 'pixels' is damaged" in err
    assert json.loads(out)["error"]["status"] == 6


def test_verify_against_another_recording_finds_differences(
    small: Path, recorded: Path, copy_of, capsys: pytest.CaptureFixture[str]
) -> None:
    import av

    from tests.recording import reencode

    assert run("verify", small, "--against", recorded, capsys=capsys)[0] == 0
    other = copy_of(recorded)
    reencode(other, crf=51)
    assert av  # reencoding is PyAV's
    status, _, err = run("verify", small, "--against", other, capsys=capsys)
    assert status == 6
    assert "'pixels' differs from the source" in err


def test_merge_joins_files(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, episodes in (("a", "0:2"), ("b", "2:5"), ("all", "0:5")):
        convert(str(recorded), tmp_path / f"{name}.h5", ConvertConfig(camera="front", image_size=32, episodes=episodes))
    status, out, _ = run("merge", *(tmp_path / f"{n}.h5" for n in ("a", "b", "ab")), "--json", capsys=capsys)
    assert status == 0
    assert json.loads(out)["num_episodes"] == 5
    assert run("verify", tmp_path / "ab.h5", capsys=capsys)[0] == 0
    with h5py.File(tmp_path / "ab.h5") as merged, h5py.File(tmp_path / "all.h5") as whole:
        assert set(merged) == set(whole)
        for name in whole:
            assert (merged[name][:] == whole[name][:]).all(), name
    convert(str(recorded), tmp_path / "c.h5", ConvertConfig(camera="front", image_size=16))
    status, _, err = run("merge", *(tmp_path / f"{n}.h5" for n in ("a", "c", "ac")), capsys=capsys)
    assert status == 2
    assert "pixels: 32x32 pixels in" in err
    assert "but 16x16 pixels in" in err
    assert not (tmp_path / "ac.h5").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_status_130_and_the_next_run_resumes(number: int, tmp_path: Path, recorded: Path) -> None:
    output = tmp_path / "out.h5"
    command = [sys.executable, "-m", "lewm_data", "convert", str(recorded), str(output), "--camera=front"]
    slow = "import time; from lewm_data.source import decode as d; run = d.Decoder.run\n"
    slow += "def slowly(self, job):\n    for event in run(self, job):\n        time.sleep(0.05)\n        yield event\n"
    slow += "d.Decoder.run = slowly\nfrom lewm_data.cli.commands import main\nimport sys\nmain(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *command[3:], "--shard_bytes=1"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out.h5.partial/shard-*.h5")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again" in " ".join(err.split())
    assert not output.exists()
    again = subprocess.run([*command, "--shard_bytes=1"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming an earlier run" in again.stderr
    assert os.listdir(tmp_path) == ["out.h5"]


def test_merge_refuses_files_with_different_cameras(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for camera in ("front", "top"):
        convert(str(recorded), tmp_path / f"{camera}.h5", ConvertConfig(camera=camera, image_size=16))
    status, _, err = run("merge", tmp_path / "front.h5", tmp_path / "top.h5", tmp_path / "both.h5", capsys=capsys)
    assert status == 2
    assert "camera of pixels: observation.images.front in" in err
    assert "but observation.images.top in" in err
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir(tmp_path))
    status, _, err = run("merge", tmp_path / "top.h5", tmp_path / "folder", "--overwrite", capsys=capsys)
    assert (status, sorted(os.listdir(tmp_path))) == (2, before)
    assert "is a folder, but the output is one file" in err


def test_a_closed_output_does_not_fail_the_command(recorded: Path, tmp_path: Path) -> None:
    lewm = f"{sys.executable} -m lewm_data.cli.commands"
    piped = subprocess.run(
        f"set -o pipefail; {lewm} inspect {recorded} --json 2>{tmp_path}/err | true", shell=True, executable="/bin/bash"
    )
    assert piped.returncode == 0
    assert "Traceback" not in (tmp_path / "err").read_text()
    settings = "--camera=front --image_size=16"
    for number, where in enumerate(("2>&-", ">&- --json", "2>&1 >/dev/null | head -c 1 >/dev/null")):
        output = tmp_path / f"{number}.h5"
        unseen = subprocess.run(
            f"set -o pipefail; {lewm} convert {recorded} {output} {settings} {where}",
            shell=True,
            executable="/bin/bash",
            stderr=subprocess.PIPE,
        )
        assert (unseen.returncode, output.exists()) == (0, True), where
        assert b"Traceback" not in unseen.stderr


def test_a_closed_pipe_does_not_hide_a_failure(recorded: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m lewm_data.cli.commands verify {recorded}/meta/info.json --json | true",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
    )
    assert done.returncode == 2


def test_verify_of_damaged_structure_is_status_6_or_2(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = small.read_bytes()
    for number in range(40):
        spoilt = bytearray(whole)
        spoilt[(number * 7919) % 20_000] ^= 1 << number % 8  # HDF5 keeps its own structure at the front
        small.write_bytes(spoilt)
        status, _, err = run("verify", small, capsys=capsys)
        assert status in (0, 2, 6), err
        assert "Traceback" not in err


def test_verify_against_another_dataset_names_the_right_one(
    small: Path, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(str(recorded), tmp_path / "last.h5", ConvertConfig(camera="front", image_size=16, episodes="4"))
    from tests.recording import record_v3

    other = record_v3(tmp_path / "other", episode_lengths=(4,), cameras=("front", "top"))
    status, _, err = run("verify", tmp_path / "last.h5", "--against", other, capsys=capsys)
    assert status == 2
    assert "has none of the file's episodes, which were converted from recorded" in err


def test_preview_makes_a_page_and_a_sheet(
    small: Path, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run("preview", small, tmp_path / "page.html", "--json", "--num_steps=2", capsys=capsys)
    answer = json.loads(out)
    assert status == 0
    assert (answer["num_episodes"], answer["num_episodes_shown"], answer["verdict"]) == (5, 5, "fair")
    assert "page.html: 5 of 5 episodes with pictures" in err
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert run("preview", recorded, tmp_path / "sheet.png", capsys=capsys)[0] == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = run("preview", small, tmp_path / "page.html", capsys=capsys)
    assert (status, "exists already" in err) == (2, True)
    assert run("preview", small, tmp_path / "page.html", "--overwrite", capsys=capsys)[0] == 0
    assert run("preview", small, tmp_path / "page.txt", capsys=capsys)[0] == 2
    assert run("preview", tmp_path / "none.h5", tmp_path / "other.html", capsys=capsys)[0] == 2


def test_view_saves_an_episode_or_names_the_missing_extra(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")
    status, out, err = run("view", small, "--episode=3", "--save", tmp_path / "3.rrd", "--json", capsys=capsys)
    assert (status, json.loads(out)["num_steps"]) == (0, 21)
    assert f"rerun {tmp_path / '3.rrd'}" in err
    assert (tmp_path / "3.rrd").stat().st_size > 10_000
    assert run("view", small, "--episode=9", "--save", tmp_path / "9.rrd", capsys=capsys)[0] == 2
    monkeypatch.setitem(sys.modules, "rerun", None)
    status, _, err = run("view", small, capsys=capsys)
    assert status == 2
    assert "pip install 'lewm_data[view]'" in err


@pytest.mark.parametrize(("typed", "words"), [
    (("convrt", "x"), "error: there is no convrt. Did you mean convert? Choose from: inspect, assess, convert,"),
    (("convert",), "error: SOURCE and OUTPUT are missing. See: lewm-data convert --help"),
    (("convert", "x", "y", "--camra", "front"), "error: there is no --camra. Did you mean --camera?"),
    (("inspect", "a", "b"), "error: 'b' is one argument too many. See: lewm-data inspect --help"),
    (("convert", "x", "y", "--compression=foo"), "compression is 'foo', but must be one of lzf, none, lz4,"),
    (("convert", "x", "y", "--micro_batch=abc"), "micro_batch is 'abc', but must be a whole number."),
    (("completion", "fish"), "there is no fish. Choose from: bash, zsh."),
])  # fmt: skip
def test_a_typing_mistake_gets_one_sentence(
    typed: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(*typed, capsys=capsys)
    assert status == 2
    assert err.startswith("error: ")
    assert words in err
    assert "usage" not in err


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys=capsys)
    assert status == 0
    assert "check every checksum" in out


def test_flags_may_have_hyphens(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("inspect", recorded, "--image-size", "48x80", "--camera", "front", "--json", capsys=capsys)
    assert (status, json.loads(out)["plan"]["height"]) == (0, 48)
