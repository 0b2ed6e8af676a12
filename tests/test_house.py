"""The house of DESIGN section 1: who may import whom, and what an import may load."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lewm_data"

GROUND = {"errors", "schema", "resources", "config"}
"""What any module may use. Among themselves: errors, then schema, then config."""

MAY_IMPORT = {
    "errors": set(),
    "resources": set(),
    "schema": {"errors"},
    "config": {"errors", "schema"},
    "conversion": GROUND,
    "loading": GROUND,
    "datamodule": GROUND | {"conversion", "loading"},
    "terminal": {"errors"},
    "command_line": {"errors", "config"},
    "display": GROUND | {"terminal", "conversion"},
    "training": GROUND | {"conversion", "loading", "datamodule", "display"},
    "sharing": GROUND | {"conversion", "loading", "datamodule", "display"},
    "demo_policy": set(),
    "demo": GROUND | {"demo_policy"},
    "cli": GROUND
    | {"conversion", "loading", "datamodule", "display", "terminal", "command_line", "training", "sharing", "demo"},
}

FORBIDDEN = {
    "conversion": {"torch", "torchvision", "lightning", "lerobot"},
    "loading": {"av", "lerobot"},
    "errors": {"torch", "lightning", "lerobot", "h5py", "av"},
    "schema": {"torch", "lightning", "lerobot", "av"},
    "config": {"torch", "lightning", "lerobot", "h5py", "av"},
}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, in functions too, but for type checking."""
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


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    own = room(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("lewm_data.")} - {"__version__"}
    assert used - MAY_IMPORT[own] - {own} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_keeps_clear_of_what_its_room_does_without(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)}
    assert used & FORBIDDEN.get(room(path), set()) == set()


def test_modules_of_one_room_do_not_import_in_circles() -> None:
    names = {f"lewm_data.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}": path for path in MODULES}
    left = {name: names.keys() & _modules_of(imports(path)) for name, path in names.items()}
    while True:
        free = {name for name, needs in left.items() if not needs & left.keys()}
        if not free:
            break
        left = {name: needs for name, needs in left.items() if name not in free}
    assert left == {}


def _modules_of(imported: set[str]) -> set[str]:
    """``a.b.c`` may be module a.b.c or a name in module a.b."""
    return imported | {name.rpartition(".")[0] for name in imported}
