"""The house rules that no linter knows: which package may import which, and that setup.cfg lists what is on disk."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "kernels": set(),
    "mixers": {"kernels"},
    "vocoders": {"kernels", "mixers"},
    "tts": {"kernels", "mixers", "vocoders"},
    "asr": {"kernels", "mixers", "vocoders"},
    "recipes": {"kernels", "mixers", "vocoders", "tts", "asr"},
}


def imported_packages(path: Path) -> set[str]:
    """First folder below melstate of every import in the file, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("melstate.")}
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer):
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files, f"{layer}/ holds no Python file"
    for path in files:
        upward = imported_packages(path) - LAYERS[layer] - {layer}
        assert not upward, f"{path.relative_to(ROOT)} imports {sorted(upward)}, above or beside {layer}"


def test_an_upward_import_is_seen(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from melstate.recipes import train\n    import melstate.asr.cli\n")
    assert imported_packages(path) == {"recipes", "asr"}


def test_packages_are_the_folders_on_disk():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    on_disk = {
        "melstate." + ".".join(path.parent.relative_to(ROOT).parts)
        for layer in LAYERS
        for path in (ROOT / layer).rglob("__init__.py")
    }
    assert listed == on_disk


def test_every_folder_with_python_is_a_package():
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"
