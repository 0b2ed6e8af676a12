"""The order of the layers: which module may import which, and what an import may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lewm_data"

GROUND = {
    "errors",
    "machine_errors",
    "notation",
    "catalog",
    "findings",
    "resources",
    "background",
    "locks",
    "paths",
    "drawing",
    "progress_bar",
}
CONVERSION = {*GROUND, "config", "format", "source", "quality", "conversion"}
LOADING = {*GROUND, "config", "format", "loading"}
TOP = CONVERSION | LOADING | {"datamodule"}

MAY_IMPORT = {
    "errors": set(),
    "machine_errors": {"errors"},
    "drawing": set(),
    "notation": {"errors"},
    "catalog": set(),
    "findings": {"errors", "notation", "catalog"},
    "resources": {"errors"},
    "locks": {"errors", "machine_errors"},
    "paths": {"errors", "machine_errors"},
    "background": {"errors"},
    "progress_bar": {"errors", "notation", "resources"},
    "config": GROUND,
    "format": {*GROUND, "config"},
    "source": {*GROUND, "config", "format"},
    "quality": {*GROUND, "config", "format", "source"},
    "conversion": CONVERSION,
    "loading": LOADING,
    "converted_files": TOP,
    "datamodule": {*TOP, "converted_files"},
    "training": TOP,
    "viewing": TOP,
    "report": CONVERSION,
    "arguments": CONVERSION,
    "results": {*CONVERSION, "report"},
    "api": {*TOP, "arguments", "report", "results", "viewing"},
    "hub": TOP,
    "adapters": TOP,
    "demo_policy": set(),
    "demo": {*GROUND, "demo_policy"},
    "cli": {*TOP, "api", "arguments", "report", "training", "viewing", "hub", "adapters", "demo"},
    "__main__": {"cli"},
}
"""A layer to the layers that it may import, besides itself."""

NO_TORCH = {"torch", "torchvision", "lightning", "lerobot"}
FORBIDDEN = {
    "errors": {*NO_TORCH, "h5py", "av"},
    "machine_errors": {*NO_TORCH, "h5py", "av"},
    "drawing": {*NO_TORCH, "h5py", "av"},
    "notation": {*NO_TORCH, "h5py", "av"},
    "catalog": {*NO_TORCH, "h5py", "av"},
    "findings": {*NO_TORCH, "h5py", "av"},
    "resources": {*NO_TORCH, "h5py", "av"},
    "background": {*NO_TORCH, "h5py", "av"},
    "config": {*NO_TORCH, "h5py", "av"},
    "format": {*NO_TORCH, "av"},
    "source": NO_TORCH,
    "quality": NO_TORCH,
    "conversion": NO_TORCH,
    "loading": {"av", "lerobot"},
}
"""A layer to the packages that it must not import, not even inside a function."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, including inside functions, except for type checking."""
    tree = ast.parse(path.read_text(), str(path))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_lower_layers(path: Path) -> None:
    own = layer(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("lewm_data.")} - {"__version__"}
    assert used - MAY_IMPORT[own] - {own} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_avoids_packages_forbidden_to_its_layer(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)}
    assert used & FORBIDDEN.get(layer(path), set()) == set()


def test_modules_do_not_import_in_circles() -> None:
    names = {f"lewm_data.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}": path for path in MODULES}
    remaining = {name: names.keys() & _modules_of(imports(path)) for name, path in names.items()}
    while True:
        free = {name for name, needs in remaining.items() if not needs & remaining.keys()}
        if not free:
            break
        remaining = {name: needs for name, needs in remaining.items() if name not in free}
    assert remaining == {}


@pytest.mark.parametrize("package", ["format", "source", "quality", "conversion"])
def test_importing_a_layer_loads_neither_torch_nor_lerobot(package: str) -> None:
    modules = [
        "lewm_data." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in MODULES
        if layer(path) == package and path.name != "__init__.py"
    ]
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"loaded = set({sorted(NO_TORCH)}) & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(loaded)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _modules_of(imported: set[str]) -> set[str]:
    """``a.b.c`` may be module a.b.c or a name in module a.b."""
    return imported | {name.rpartition(".")[0] for name in imported}
