"""The house as a whole: what importing costs, which names scripts rely on, and rules no linter holds."""

import ast
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, run_python, run_with_torch

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
KERNELS = tomllib.loads((ROOT / "kernels/pyproject.toml").read_text(encoding="utf-8"))
ROOMS = ("ops", "models", "data", "train", "evaluate", "recipes", "viz", "course", "bench")
NAMES = {
    "ops": "dcnv3 DCNv3 backend_status sampling_locations",
    "models": "InternImage UPerHead SegFormerHead FCNHead Segmentor create_model list_models from_released to_released",
    "data": "Vistas Cityscapes Folder synthesize Augmentation AugmentationSettings TrainLoader IGNORE_INDEX",
    "train": "fit parameter_groups learning_rate load_checkpoint TrainSettings",
    "evaluate": "ConfusionMatrix evaluate_dataset predict_probabilities predict_labels",
    "viz": "overlay triptych write_report",
    "recipes": "get_recipe list_recipes run",
}
FEATURES = "datasets tyro seaborn matplotlib pandas torch_scatter ipywidgets"
ABSENT = [
    ("vistalib", f"torch numba cv2 PIL {FEATURES}"),
    ("vistalib.ops", f"cv2 PIL {FEATURES}"),
    ("vistalib.models", f"cv2 PIL {FEATURES}"),
    ("vistalib.train", f"cv2 PIL {FEATURES}"),
    ("vistalib.data", FEATURES),
    ("vistalib.viz", FEATURES),
    ("vistalib.recipes", FEATURES),
    ("vistalib.bench", FEATURES),
]
SOURCES = sorted(path for folder in ("vistalib", "kernels", "tests", "tools") for path in (ROOT / folder).rglob("*.py"))
# Import name -> the name pip knows, where they differ.
DISTRIBUTION = {"cv2": "opencv-python-headless", "PIL": "pillow", "torch_scatter": "torch-scatter", "yaml": "pyyaml"}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in NAMES.items() for name in names.split()])
def test_a_public_name_can_be_imported_from_its_room(room: str, name: str) -> None:
    assert hasattr(import_module(f"vistalib.{room}"), name)


def test_the_package_itself_labels_photographs() -> None:
    assert run_with_torch("import vistalib; print(vistalib.predict.__module__)") == "vistalib.labelling"
    with pytest.raises(AttributeError, match="no attribute 'predicts'"):
        import_module("vistalib").predicts  # noqa: B018  # asking is enough


@pytest.mark.parametrize("room", ROOMS)
def test_everything_a_room_exports_exists(room: str) -> None:
    module = import_module(f"vistalib.{room}")
    assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []


def test_importing_does_not_load_what_only_some_features_need() -> None:
    """One room after the other, as each may load what those before it did, and more."""
    check = "import sys; from importlib import import_module as load"
    check += f"\nfor room, absent in {ABSENT}: load(room), print(room, *sorted(set(absent.split()) & sys.modules.keys()))"
    assert run_python(check).splitlines() == [room for room, _ in ABSENT]


def test_the_versions_agree() -> None:
    stated = {
        "vistalib": run_with_torch("import vistalib; print(vistalib.__version__)"),
        "vistalib-kernels": run_with_torch("import vistalib_kernels; print(vistalib_kernels.__version__)"),
        "CITATION.cff": re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1],
        "CHANGELOG.md": re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1],
    }
    assert len(set(stated.values())) == 1, stated


@pytest.mark.parametrize("folder", ["kernels", "tests"])
def test_a_folder_is_no_import_package(folder: str) -> None:
    # `kernels` is the import name of another distribution: with an __init__.py this folder would hide it
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_source_has_more_than_500_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_no_module_is_named_utils() -> None:
    assert [path for path in SOURCES if path.stem in ("utils", "util", "misc", "common")] == []


def test_every_package_that_vistalib_imports_is_declared() -> None:
    declared = {re.split(r"[\[<>=~! ]", line)[0].lower() for line in (*requirements(PROJECT), *requirements(KERNELS))}
    missing = {}
    for path in (path for path in SOURCES if path.is_relative_to(ROOT / "vistalib")):
        for name in imported(path) - set(sys.stdlib_module_names) - {"vistalib", "vistalib_kernels"}:
            if DISTRIBUTION.get(name, name).replace("_", "-") not in declared:
                missing[name] = str(path.relative_to(ROOT))
    assert missing == {}


def test_every_declared_package_is_pinned() -> None:
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    names = {re.split(r"[\[<>=~! ]", line)[0].lower() for line in (*requirements(PROJECT), *requirements(KERNELS))}
    assert {name for name in names if not name.startswith("vistalib")} - pins == set()


def test_the_constraints_name_no_address() -> None:
    assert re.findall(r"://|@ |^-", (ROOT / "constraints.txt").read_text(), re.MULTILINE) == []


def requirements(project: dict[str, Any]) -> list[str]:
    """The requirements of a pyproject file, those of its extras among them."""
    table = project["project"]
    return [*table["dependencies"], *(line for extra in table.get("optional-dependencies", {}).values() for line in extra)]


def imported(path: Path) -> set[str]:
    """Top-level names of the packages that the module at `path` imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
