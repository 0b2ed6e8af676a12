"""Conversion as a trainer wants it: once, in a process of its own, found again by what was asked for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lewm_data.config import ConvertConfig
from lewm_data.conversion.lock import exclusive
from lewm_data.conversion.work_folder import remove_leftovers
from lewm_data.errors import LewmDataError, OutputError, StalledError, UsageError, error_for_status
from lewm_data.format.schema import safe_name
from lewm_data.format.writer import replace_durably
from lewm_data.source.open import identity, needed_files, open_source
from lewm_data.source.selection import choose_cameras

_SIGKILL_STATUS = -9


def prepare_file(source: str, data_dir: Path, config: ConvertConfig) -> Path:
    """Converts a dataset unless that was done before.

    The conversion runs in a child process: its memory is given back, and its crash is an exception here. A second
    process that prepares the same dataset waits, then finds the work done.

    Args:
        source: Dataset folder or Hub repo id.
        data_dir: Where converted files are kept; made if need be.
        config: The settings.

    Returns:
        The converted file. It is keyed by the source's revision (a folder's metadata, file sizes and times) and the
        content settings, so that changed data is converted again.

    Raises:
        LewmDataError: Whatever ``conversion.pipeline.convert`` raises.
    """
    data_dir = Path(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{data_dir}: cannot be made ({error.strerror}). Choose another data_dir.") from error
    pointer = _pointer(source, data_dir, config)
    with exclusive(pointer.with_suffix(".lock")):
        fingerprint = _fingerprint(source, config)
        name = safe_name(Path(source).name) or "dataset"
        output = data_dir / f"{name}-{fingerprint[:12]}.h5"
        remove_leftovers(output)
        if not output.is_file():
            _convert_in_child(source, output, config)
        temporary = pointer.with_suffix(".tmp")
        temporary.write_text(json.dumps({"file": output.name, "fingerprint": fingerprint, "source": source}) + "\n")
        replace_durably(temporary, pointer)
    return output


def prepared_file(source: str, data_dir: Path, config: ConvertConfig) -> Path:
    """Finds the file that ``prepare_file`` left for the same arguments; asks nobody over the network.

    Raises:
        OutputError: It was never prepared here, or has been removed since.
    """
    pointer = _pointer(source, Path(data_dir), config)
    try:
        path = Path(data_dir) / json.loads(pointer.read_text())["file"]
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(
            f"{source}: not converted yet in {data_dir} with these settings. Call prepare_data() first (a Trainer "
            "does), or give h5_path."
        ) from error
    if not path.is_file():
        raise OutputError(f"{path}: is gone. Call prepare_data() again to convert {source}.")
    return path


def _pointer(source: str, data_dir: Path, config: ConvertConfig) -> Path:
    """The small file that says which converted file answers a request."""
    where = str(Path(source).resolve()) if Path(source).exists() else source
    request = json.dumps([where, config.revision, config.content_fingerprint("")])
    digest = hashlib.sha256(request.encode()).hexdigest()[:16]
    return data_dir / f"{safe_name(Path(source).name) or 'dataset'}-{digest}.json"


def _fingerprint(source: str, config: ConvertConfig) -> str:
    opened = open_source(source, revision=config.revision, episodes=config.episodes)
    if opened.dataset is None:
        return hashlib.sha256(source.encode()).hexdigest()  # the child refuses it, with the findings
    cameras = tuple(choose_cameras(opened.dataset, config).values())
    return config.content_fingerprint(identity(opened.dataset, needed_files(opened.dataset, cameras)))


def _convert_in_child(source: str, output: Path, config: ConvertConfig) -> None:
    with tempfile.TemporaryDirectory(prefix="lewm_data-") as folder:
        settings = Path(folder) / "convert.json"
        settings.write_text(json.dumps(config.to_json()))
        command = [sys.executable, "-m", "lewm_data", "convert", source, str(output)]
        child = subprocess.Popen([*command, "--config", str(settings), "--json"], stdout=subprocess.PIPE, text=True)
        try:
            stdout, _ = child.communicate()
        except BaseException:  # Ctrl-C reaches the child as well: let it keep its finished shards
            child.terminate()
            child.wait()
            raise
    if child.returncode == 0:
        return
    if output.is_file():
        return  # somebody else made it meanwhile, under another name of the same revision
    try:
        error = json.loads(stdout)["error"]
    except (ValueError, KeyError, TypeError):
        raise _wordless_death(child.returncode, output) from None
    raise error_for_status(child.returncode, error["message"], error.get("findings", ()))


def _wordless_death(status: int, output: Path) -> LewmDataError:
    if status == StalledError.exit_status:
        return StalledError(
            f"Converting to {output} made no progress for longer than watchdog_seconds; the stacks are in the log. "
            "Try again (it goes on from its finished shards), or raise watchdog_seconds for a slow disk."
        )
    if status == UsageError.exit_status:
        return UsageError(f"The conversion to {output} was called wrongly; see the log.")
    killed = " (killed: probably out of memory; lower micro_batch or image_size)" if status == _SIGKILL_STATUS else ""
    return LewmDataError(
        f"The conversion to {output} died with status {status}{killed}. Run it again; finished shards are kept."
    )
