"""Conversion for a trainer: once per dataset and settings, in a process of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lewm_data.config import ConvertConfig
from lewm_data.conversion.fingerprint import open_with, source_fingerprint
from lewm_data.conversion.output import write_failure
from lewm_data.conversion.work_folder import remove_leftovers
from lewm_data.errors import LewmDataError, OutputError, StalledError, UsageError, error_for_status
from lewm_data.format.schema import safe_name
from lewm_data.format.writer import replace_durably
from lewm_data.locks import exclusive
from lewm_data.paths import expand, is_file, is_folder, local_path
from lewm_data.source.selection import choose_cameras

_SIGKILL_STATUS = -9


def prepare_file(source: str, data_dir: Path, config: ConvertConfig) -> Path:
    """Converts a dataset, or finds the file that an earlier call made.

    The conversion runs in a child process, which returns its memory and whose crash is an exception here. A second
    process that prepares the same dataset waits, then finds the file. A file that exists needs neither a lock nor a
    folder that can be written to.

    Args:
        source: Dataset folder or Hub repo id.
        data_dir: Folder for converted files; made if it does not exist.
        config: The settings.

    Returns:
        The converted file. Its name depends on the source's revision (for a folder: metadata, file sizes and times)
        and on the content settings, so changed data is converted again.

    Raises:
        LewmDataError: Any error of ``conversion.pipeline.convert``.
    """
    data_dir = local_path(data_dir, "data_dir")
    pointer = _pointer(source, data_dir, config)
    output = _output(source, data_dir, config)
    if is_file(output) and _pointed_file(pointer) == output.name:
        remove_leftovers(output)
        return output
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with exclusive(pointer.with_suffix(".lock")):
            output = _output(source, data_dir, config)  # another process may have changed the source meanwhile
            remove_leftovers(output)
            if not is_file(output):
                earlier = data_dir / (_pointed_file(pointer) or output.name)
                reuse = str(earlier) if earlier != output and is_file(earlier) else None
                _convert_in_child(source, output, dataclasses.replace(config, reuse=config.reuse or reuse))
            temporary = pointer.with_suffix(".tmp")
            temporary.write_text(json.dumps({"file": output.name, "source": source}) + "\n", encoding="utf-8")
            replace_durably(temporary, pointer)
    except OSError as error:
        raise write_failure(data_dir, error) from error
    return output


def prepared_file(source: str, data_dir: Path, config: ConvertConfig) -> Path:
    """Finds the file that ``prepare_file`` made for the same arguments. Needs no network.

    Raises:
        OutputError: The file was never made here, or has been removed since.
    """
    data_dir = local_path(data_dir, "data_dir")
    name = _pointed_file(_pointer(source, data_dir, config))
    if name is None:
        raise OutputError(
            f"{source}: not converted yet in {data_dir} with these settings. Call prepare_data() first (a Trainer "
            "does), or give h5_path."
        )
    path = data_dir / name
    if not is_file(path):
        raise OutputError(f"{path}: is gone. Call prepare_data() again to convert {source}.")
    return path


def _pointer(source: str, data_dir: Path, config: ConvertConfig) -> Path:
    """The small file that names the converted file for a request."""
    folder = expand(source)
    where = str(folder.resolve()) if is_folder(folder) else source
    request = json.dumps([where, config.revision, config.content_settings()])
    digest = hashlib.sha256(request.encode()).hexdigest()[:16]
    return data_dir / f"{safe_name(Path(source).name) or 'dataset'}-{digest}.json"


def _pointed_file(pointer: Path) -> str | None:
    """The converted file that a pointer names; None if there is no usable pointer."""
    try:
        record = json.loads(pointer.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # ValueError: not JSON, or not UTF-8
        return None
    name = record.get("file") if isinstance(record, dict) else None
    return name if isinstance(name, str) and Path(name).name == name else None


def _output(source: str, data_dir: Path, config: ConvertConfig) -> Path:
    """The converted file's path, for the source as it is now."""
    name = safe_name(Path(source).name) or "dataset"
    return data_dir / f"{name}-{_fingerprint(source, config)[:12]}.h5"


def _fingerprint(source: str, config: ConvertConfig) -> str:
    opened = open_with(source, config)
    if opened.dataset is None:
        return hashlib.sha256(source.encode()).hexdigest()  # the child refuses it, with the findings
    return source_fingerprint(opened.dataset, choose_cameras(opened.dataset, config), config)


def _convert_in_child(source: str, output: Path, config: ConvertConfig) -> None:
    with tempfile.TemporaryDirectory(prefix="lewm_data-") as folder:
        settings = Path(folder) / "convert.json"
        settings.write_text(json.dumps(config.to_json()))
        command = [sys.executable, "-m", "lewm_data", "convert", source, str(output)]
        child = subprocess.Popen([*command, "--config", str(settings), "--json"], stdout=subprocess.PIPE, text=True)
        try:
            stdout, _ = child.communicate()
        except BaseException:  # Ctrl-C reaches the child too; wait while it saves its finished shards
            child.terminate()
            child.wait()
            raise
    if child.returncode == 0:
        return
    if is_file(output):
        return  # meanwhile, another process converted it under another name of the same revision
    try:
        error = json.loads(stdout)["error"]
    except (ValueError, KeyError, TypeError):
        raise _silent_death(child.returncode, output) from None
    raise error_for_status(child.returncode, error["message"], error.get("findings", ()))


def _silent_death(status: int, output: Path) -> LewmDataError:
    if status == StalledError.exit_status:
        return StalledError(
            f"The conversion to {output} made no progress for longer than watchdog_seconds. The stacks are in the log. "
            "Try again (finished shards are kept), or raise watchdog_seconds for a slow disk."
        )
    if status == UsageError.exit_status:
        return UsageError(f"The conversion to {output} got wrong arguments. See the log.")
    killed = " (killed: probably out of memory; lower micro_batch or image_size)" if status == _SIGKILL_STATUS else ""
    return LewmDataError(
        f"The conversion to {output} died with status {status}{killed}. Run it again; finished shards are kept."
    )
