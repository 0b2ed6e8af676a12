"""Faults of a running conversion."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.faults.campaign import Fault, Lost, Site, TooLate, contents, difference, expect, finish, is_root

# --- signals, at random instants of the whole life of the process


def _signal(number: signal.Signals, *statuses: int, starting: float = 0.0) -> Callable[[Site, random.Random, int], str]:
    """A signal at a random instant; in a share ``starting`` of the trials before the conversion has made any file.

    One that comes while the interpreter shuts down, after the work is done, ends the process by its own number.
    """

    def trial(site: Site, rng: random.Random, _: int) -> str:
        folder = site.new_folder()
        process = site.start(folder)
        if rng.random() < starting:
            time.sleep(rng.uniform(0, site.seconds - site.writing_seconds))
        else:
            _wait_for(process, lambda: any(folder.iterdir()))
            time.sleep(rng.uniform(0, site.writing_seconds))
        process.send_signal(number)
        ended = expect(finish(process), *statuses, -number)
        site.check_goes_on(folder)
        return ended

    return trial


def _wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    while not condition():
        if process.poll() is not None:
            expect(finish(process))
        time.sleep(0.0005)


# --- at each operation on files


class _Operations:
    """Numbers of a conversion's file operations, in an order that covers all of them before any comes twice."""

    def __init__(self) -> None:
        self._count = 0

    def pick(self, site: Site, rng: random.Random, number: int) -> int:
        if not self._count:
            done = finish(site.start_with({}, site.new_folder()))
            self._count = int(done.stderr.split("operations: ")[1].split()[0])
        order = list(range(1, self._count + 1))
        random.Random(0).shuffle(order)
        return order[number % len(order)]


_operations = _Operations()


def _kill_at_operation(site: Site, rng: random.Random, number: int) -> str:
    folder = site.new_folder()
    plan = {"kill_at": _operations.pick(site, rng, number)}
    ended = expect(finish(site.start_with(plan, folder)), -signal.SIGKILL)
    site.check_goes_on(folder)
    return ended


def _fail_at_operation(code: int, *statuses: int) -> Callable[[Site, random.Random, int], str]:
    def trial(site: Site, rng: random.Random, number: int) -> str:
        folder = site.new_folder()
        plan = {"fail_at": _operations.pick(site, rng, number), "errno": code}
        done = finish(site.start_with(plan, folder))
        if done.returncode == 0:  # an operation that may fail, such as taking leftovers away
            site.check_whole_or_absent(folder)
            raise TooLate
        ended = expect(done, *statuses)
        site.check_goes_on(folder)
        return ended

    return trial


# --- loss of power


def _power(site: Site, rng: random.Random, number: int) -> str:
    """One recorded conversion gives many pictures of the disk; each is a trial of its own."""
    images = site.folder / "power"
    if not images.exists():
        expect_done = finish(site.start_with({"power": str(images)}, site.new_folder()))
        if expect_done.returncode != 0:
            raise Lost(f"the recorded run ended with status {expect_done.returncode}: {expect_done.stderr[-1000:]}")
    last = next(images.glob("*-end"))
    others = sorted(image for image in images.iterdir() if image != last)
    random.Random(0).shuffle(others)
    image = last if number == 0 else others[(number - 1) % len(others)]
    folder = site.new_folder()
    shutil.copytree(image, folder, dirs_exist_ok=True)
    if number == 0 and not site.check_whole_or_absent(folder):
        raise Lost("the process said that it was done, but the output was not on the disk")
    site.check_goes_on(folder)
    return image.name.split("-")[1]


# --- disks


@contextlib.contextmanager
def _disk(size: int) -> Iterator[Path]:
    """A small disk of its own (tmpfs)."""
    folder = Path(tempfile.mkdtemp(prefix="lewm-data-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _no_mount() -> str | None:
    if not is_root() or sys.platform != "linux":
        return "only root on Linux may mount a small disk"
    try:
        with _disk(1 << 20):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a small disk cannot be mounted here ({error})"


def _used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _full_disk(site: Site, rng: random.Random, _: int) -> str:
    """The disk has room when the conversion begins, and is filled up by somebody else at a random moment."""
    size = site.reference.stat().st_size
    with _disk(4 * size) as folder:
        process = site.start(folder)
        threshold = rng.randrange(2 * size)
        _wait_for(process, lambda: _used(folder) >= threshold)
        ballast = folder.parent / f"{folder.name}-ballast"
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        done = finish(process)
        ballast.unlink()
        ended = expect(done, 4)
        site.check_goes_on(folder)
    return ended


def _no_room(site: Site, rng: random.Random, _: int) -> str:
    """There is too little room from the beginning: refused before anything is written."""
    size = site.reference.stat().st_size
    with _disk(max(4096, rng.randrange(size))) as folder:
        ended = expect(finish(site.start(folder)), 4)
        if any(folder.iterdir()):
            raise Lost(f"left behind: {[path.name for path in folder.iterdir()]}")
    return ended


def _size_limit(site: Site, rng: random.Random, _: int) -> str:
    """No file may grow beyond a limit (RLIMIT_FSIZE): a shard cannot be finished, or the joined file cannot."""
    folder = site.new_folder()
    limit = rng.randrange(site.reference.stat().st_size)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY)); "
        "from lewm_data.cli.commands import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *site.arguments(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    ended = expect(finish(process), 4)
    site.check_goes_on(folder)
    return ended


def _read_only(site: Site, rng: random.Random, _: int) -> str:
    folder = site.new_folder()
    if is_root():
        with _disk(1 << 20) as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            ended = expect(finish(site.start(disk)), 2)
    else:
        folder.chmod(0o555)
        ended = expect(finish(site.start(folder)), 2)
        folder.chmod(0o755)
    site.check_goes_on(folder)
    return ended


# --- the source


def _spoil_source(spoil: Callable[[Path], None], pattern: str, *statuses: int) -> Callable:
    """Something happens to a source file in mid-run; then it is put back as it was."""

    def trial(site: Site, rng: random.Random, _: int) -> str:
        source, folder = site.copy_source(), site.new_folder()
        files = sorted(source.glob(pattern))
        file = rng.choice(files)
        process = site.start(folder, "--watchdog_seconds=2", source=source)
        _wait_for(process, lambda: any(folder.glob("out.h5.partial/shard-*.h5")))
        time.sleep(rng.uniform(0, 0.6 * site.writing_seconds))
        spoil(file)
        done = finish(process)
        file.unlink(missing_ok=True)
        shutil.copy2(site.source / file.relative_to(source), file)
        if done.returncode == 0 and site.check_whole_or_absent(folder):
            raise TooLate
        ended = expect(done, *statuses)
        site.check_goes_on(folder, source=source)
        return ended

    return trial


def _replace_by_other_bytes(file: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _replace_by_pipe(file: Path) -> None:
    """Whoever opens it waits for ever, in the C library, for somebody to write."""
    file.unlink()
    os.mkfifo(file)


def _hang(site: Site, rng: random.Random, _: int) -> str:
    folder = site.new_folder()
    plan = {"decoder": "hangs", "at": rng.randrange(100, 300)}
    done = finish(site.start_with(plan, folder, "--watchdog_seconds=1"))
    ended = expect(done, 5)
    if "most recent call first" not in done.stderr:
        raise Lost("the watchdog dumped no stacks")
    site.check_goes_on(folder)
    return ended


def _decoder(how: str, *statuses: int) -> Callable[[Site, random.Random, int], str]:
    def trial(site: Site, rng: random.Random, _: int) -> str:
        folder = site.new_folder()
        # the first ninety are inspection's
        ended = expect(finish(site.start_with({"decoder": how, "at": rng.randrange(100, 400)}, folder)), *statuses)
        site.check_goes_on(folder)
        return ended

    return trial


# --- memory


def _memory(site: Site, rng: random.Random, _: int) -> str:
    """Limits the address space: further allocations fail, in Python and in C."""
    folder = site.new_folder()
    plan = {"memory_bytes": rng.randrange(1 << 20, 40 << 20)}
    done = finish(site.start_with(plan, folder, "--decode_threads=1"))
    if done.returncode == 3:
        raise Lost(f"a lack of memory was taken for dirt: {done.stderr[-1000:]}")
    ended = expect(done, 4, 1, 127, -signal.SIGABRT, -signal.SIGSEGV)
    site.check_goes_on(folder)
    return ended


# --- several processes

_PREPARE = """
import sys
from pathlib import Path
from lewm_data.config import ConvertConfig
from lewm_data.conversion.prepare import prepare_file
config = ConvertConfig(camera="front", cameras="all", image_size=48, shard_bytes=150000, micro_batch=8)
print(prepare_file(sys.argv[1], Path(sys.argv[2]), config))
"""


def _together(site: Site, rng: random.Random, number: int) -> str:
    """Two to four processes prepare the same dataset; in two of three trials, one of them or its child is killed."""
    folder = site.new_folder()
    command = [sys.executable, "-c", _PREPARE, str(site.source), str(folder)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(rng.randrange(2, 5))
    ]
    victims = 0
    if number % 3:
        _wait_for(processes[0], lambda: any(folder.glob("*.partial/shard-*.h5")))
        time.sleep(rng.uniform(0, 0.5 * site.writing_seconds))
        parents = [psutil.Process(process.pid) for process in processes if process.poll() is None]
        children = [child for parent in parents for child in parent.children()]
        if number % 3 == 1 and children:
            children[0].kill()
            victims = 1
        elif number % 3 == 2:
            chosen = next((parent for parent in parents if parent.children()), None)
            if chosen is not None:
                chosen.kill()
                victims = 1
    done = [finish(process) for process in processes]
    failed = [one for one in done if one.returncode != 0]
    if len(failed) > victims:
        raise Lost(f"{len(failed)} of {len(done)} failed: {failed[0].stderr[-1000:]}")
    last = finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    paths = {one.stdout.strip() for one in [*done, last] if one.returncode == 0}
    if last.returncode != 0 or len(paths) != 1:
        raise Lost(f"they found {paths}: {last.stderr[-1000:]}")
    if wrong := difference(contents(Path(paths.pop())), site.expected):
        raise Lost(wrong)
    if (left := sorted(path.suffix for path in folder.iterdir())) != [".h5", ".json"]:
        raise Lost(f"left behind: {sorted(path.name for path in folder.iterdir())} {left}")
    return ("nobody", "the converting child", "its parent")[number % 3] + " was killed"


def _stale_lock(site: Site, rng: random.Random, _: int) -> str:
    """A process died holding the lock; its file is still there."""
    folder = site.new_folder()
    code = (
        "import os, signal, sys; from pathlib import Path; from lewm_data.locks import exclusive\n"
        "with exclusive(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "out.h5.lock")], check=False)
    if not (folder / "out.h5.lock").exists():
        raise Lost("there was no stale lock to begin with")
    site.check_goes_on(folder)
    return "the next run took it"


FAULTS = (
    Fault(name="SIGKILL at a random instant", quick=2, long=120, trial=_signal(signal.SIGKILL, -9, starting=0.2)),
    Fault(name="SIGKILL before a file operation", quick=2, long=160, trial=_kill_at_operation),
    Fault(name="SIGTERM", quick=1, long=20, trial=_signal(signal.SIGTERM, 130)),
    Fault(name="SIGINT (Ctrl-C)", quick=1, long=20, trial=_signal(signal.SIGINT, 130)),
    Fault(name="loss of power", quick=4, long=150, trial=_power),
    Fault(name="a disk that fills up", quick=2, long=25, trial=_full_disk, obstacle=_no_mount),
    Fault(name="no room from the beginning", quick=0, long=5, trial=_no_room, obstacle=_no_mount),
    Fault(name="a limit on file sizes", quick=1, long=15, trial=_size_limit),
    Fault(name="a file operation fails: no space", quick=1, long=60, trial=_fail_at_operation(errno.ENOSPC, 4)),
    Fault(name="a file operation fails: read-only", quick=1, long=40, trial=_fail_at_operation(errno.EROFS, 2)),
    Fault(name="a file operation fails: bad disk", quick=0, long=40, trial=_fail_at_operation(errno.EIO, 2)),
    Fault(name="a read-only folder", quick=1, long=3, trial=_read_only),
    Fault(name="a source file vanishes", quick=1, long=15, trial=_spoil_source(Path.unlink, "[dv]*/**/file-*.*", 2, 3)),
    Fault(
        name="a source file changes",
        quick=1,
        long=15,
        trial=_spoil_source(_replace_by_other_bytes, "[dv]*/**/file-*.*", 2, 3),
    ),
    Fault(name="a source file is cut", quick=0, long=15, trial=_spoil_source(_cut, "[dv]*/**/file-*.*", 2, 3)),
    Fault(
        name="a source file becomes a pipe that hangs",
        quick=0,
        long=10,
        trial=_spoil_source(_replace_by_pipe, "[dv]*/**/file-*.*", 2, 5),
    ),
    Fault(name="a decoder that hangs", quick=1, long=5, trial=_hang),
    Fault(name="a decoder that raises", quick=1, long=10, trial=_decoder("raises", 1)),
    Fault(name="a decoder that refuses", quick=0, long=10, trial=_decoder("refuses", 3)),
    Fault(name="memory runs out", quick=1, long=25, trial=_memory),
    Fault(name="several processes prepare at once", quick=1, long=12, trial=_together),
    Fault(name="the lock of a dead process", quick=1, long=3, trial=_stale_lock),
)
