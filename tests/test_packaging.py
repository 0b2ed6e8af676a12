"""What is built and installed works outside of the repository, with everything that belongs to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lewm_data
from tests.test_layers import MODULES, PACKAGE, imports

ROOT = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")
FOLDERS = ("lewm_data", "configs", "tests")


def test_the_version_is_said_once_in_each_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == lewm_data.__version__
    assert f"## {lewm_data.__version__}" in (ROOT / "CHANGELOG.md").read_text()


IMPORTED_AS = {
    "gym-pusht": {"gym_pusht", "gymnasium"},
    "huggingface_hub": {"huggingface_hub"},
    "hydra-core": {"hydra"},
    "lerobot": {"lerobot", "datasets"},
    "pillow": {"PIL"},
    "rerun-sdk": {"rerun"},
    "stable-worldmodel": {"stable_worldmodel"},
}
"""Distributions whose modules have other names."""

EXTRA_OF = {"demo": "demo", "training": "train", "adapters": "train"}
"""The extra that a layer may rely on. Every other layer works with the core alone."""

OPTIONAL = {
    "lewm_data/conversion/engine_ray.py": "ray",
    "lewm_data/viewing/viewer.py": "view",
}
"""Modules that rely on an extra of their own."""


def _declared(extra: str | None) -> set[str]:
    """Top-level modules of the core's dependencies, or of an extra's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    names = {Requirement(line).name for line in lines}
    return {module for name in names for module in IMPORTED_AS.get(name, {name.replace("-", "_")})}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_imported_package_is_declared(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    extra = OPTIONAL.get(relative, EXTRA_OF.get(layer))
    declared = _declared(None) | (_declared(extra) if extra else set())
    used = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"lewm_data"}
    assert used - declared == set()


@pytest.fixture(scope="module")
def imported() -> subprocess.CompletedProcess[str]:
    """A process that imports every module but the demo, and prints the packages that training adds to a data module."""
    modules = [
        "lewm_data." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in MODULES
        if path.name not in ("__init__.py", "demo.py", "demo_policy.py")
    ]
    code = (
        "import importlib, sys\n"
        "sys.modules['lerobot'] = None  # importing it raises ImportError\n"
        "import lightning, lewm_data.datamodule\n"
        "before = set(sys.modules)\n"
        "import lewm_data.training.lewm, lewm_data.training.diagnostics, lewm_data.training.report\n"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before} - {'lewm_data', 'rich'}))\n"
        f"for name in {modules}:\n    importlib.import_module(name)\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_everything_but_the_demo_imports_without_lerobot(imported: subprocess.CompletedProcess[str]) -> None:
    assert imported.returncode == 0, imported.stderr


def test_training_loads_no_simulator_and_no_model_library(imported: subprocess.CompletedProcess[str]) -> None:
    assert imported.stdout == "[]\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the sdist and of the wheel that was built from it."""
    pytest.importorskip("build", reason="the package 'build' of the extra 'dev' is not installed")
    copy = tmp_path_factory.mktemp("source")
    for name in (*PARTS, "constraints.txt", "train.py"):
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    dist = tmp_path_factory.mktemp("dist")
    # without isolation, so that the test needs no network; setuptools comes with torch
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return dist


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in a folder; what it needs comes from this environment."""
    site = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--offline", "--no-deps", "--python", sys.executable]
    done = subprocess.run([*command, "--target", str(site), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


def _environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, **changes}


def _sources() -> set[str]:
    package = ROOT / "lewm_data"
    return {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_whole_package_and_nothing_else(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == _sources()
    assert "lewm_data/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert _sources() | {"train.py", "configs/demo.yaml", "tests/conftest.py", "LICENSE"} <= inside
    assert [name for name in inside if name.endswith((".h5", ".pyc"))] == []


@pytest.mark.slow
def test_the_installed_wheel_works_outside_of_the_repository(installed: Path, recorded: Path, tmp_path: Path) -> None:
    environment = _environment(PYTHONPATH=str(installed))
    command = str(installed / "bin" / "lewm-data")

    def run(*arguments: str) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert run(command, "--version").strip() == f"lewm_data {lewm_data.__version__}"
    assert "Ready to convert" in run(command, "inspect", str(recorded), "--camera=front")
    run(command, "convert", str(recorded), "out.h5", "--camera=front", "--image_size=32")
    assert "is whole" in run(command, "verify", "out.h5")
    code = (
        "import lewm_data; from lewm_data import *; print(lewm_data.__file__); "
        "print(len(WindowDataset('out.h5', num_steps=2, frameskip=2)), LeWMDataModule(h5_path='out.h5').source)"
    )
    where, windows = run(sys.executable, "-c", code).split("\n")[:2]
    assert Path(where).is_relative_to(installed)
    assert windows == f"{sum(n - 3 for n in (7, 12, 5, 21, 9))} out.h5"
