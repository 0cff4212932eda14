"""The one-way house: who may import whom, held by reading every import."""

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    ROOT / "launch.py",
    *(file for part in ("common", "vision", "text") for file in (ROOT / part).rglob("*.py")),
]
# They measure the house from outside: bound by fewer rules, and nobody leans on them.
BENCHMARKS = [*(ROOT / "benchmarks").rglob("*.py")]
FILES = SOURCES + BENCHMARKS
NAMES = {file: file.relative_to(ROOT).as_posix() for file in FILES}


def find_imports(file: Path, everywhere: bool = True) -> set[str]:
    """Every module that a file names in an import: also inside functions, or at the top alone."""
    found, tree = set(), ast.parse(file.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{NAMES[file]} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


IMPORTS = {file: find_imports(file) for file in FILES}


def importers(package: str, files: Sequence[Path] = SOURCES) -> set[str]:
    """The files that import `package` or anything inside it."""
    return {
        NAMES[file]
        for file in files
        if any(module == package or module.startswith(package + ".") for module in IMPORTS[file])
    }


def test_there_is_something_to_check():
    assert len(SOURCES) > 30 and importers("jax") and importers("common.errors")
    assert len(BENCHMARKS) > 10 and importers("torch", BENCHMARKS)


@pytest.mark.parametrize(
    "package, allowed",
    [
        ("vision", ("vision/",)),
        ("text", ("text/",)),
        ("launch", ()),
        ("tests", ()),
        ("benchmarks", ()),
        ("torch", ()),
        ("absl", ("launch.py",)),
        ("tensorflow", ()),  # tensorflow-datasets imports it where it prepares data
        ("tensorflow_datasets", ("vision/datasets.py", "vision/tfds_folder.py")),
        ("gensim", ("text/embeddings.py",)),
        ("orbax", ("common/checkpoint.py",)),
        ("jax.sharding", ("common/parallel.py",)),
    ],
)
def test_only_these_import(package, allowed):
    wrong = {name for name in importers(package) if not name.startswith(allowed)}
    assert not wrong, f"{package} is imported by {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("package", ["launch", "tests", "absl", "tensorflow", "orbax"])
def test_benchmarks_do_not_import(package):
    """They may import vision, text and common; what those hide stays hidden."""
    assert not importers(package, BENCHMARKS)


def reached(module: str) -> set[str]:
    """All that is loaded with a module: its imports, and those of ours among them."""
    found, left = set(), {module}
    while left:
        name = left.pop()
        found.add(name)
        file = ROOT / f"{name.replace('.', '/')}.py"
        left |= (find_imports(file, everywhere=False) if file in IMPORTS else set()) - found
    return found


@pytest.mark.parametrize("package", ["jax", "torch"])
def test_a_side_is_measured_without_the_library_of_the_other(package):
    """A side's process loads the module of its maker (benchmarks/sides.py), and all it imports."""
    ours = [f"benchmarks.{file.stem}" for file in BENCHMARKS if file.stem.startswith("our_")]
    theirs = [f"benchmarks.{file.stem}" for file in BENCHMARKS if file.stem.startswith("torch_")]
    assert len(ours) > 3 and len(theirs) > 3
    makers = theirs if package == "jax" else [*ours, "benchmarks.cifar_time_to_accuracy"]
    for module in [*makers, "benchmarks.sides", "benchmarks.process", "benchmarks.page"]:
        assert package not in {name.partition(".")[0] for name in reached(module)}, module


def test_tasks_and_the_frame_are_apart():
    assert not {n for n in importers("vision") | importers("text") if n.startswith("common/")}
    assert not {n for n in importers("vision") if n.startswith("text/")}
    assert not {n for n in importers("text") if n.startswith("vision/")}


def test_only_parallel_knows_devices():
    knowing = {"pmap", "devices", "local_devices", "device_count", "local_device_count"}
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "jax"
                and node.attr in knowing
            ):
                assert NAMES[file] == "common/parallel.py", f"{NAMES[file]}: jax.{node.attr}"


def test_files_are_named_for_nouns_and_read_in_one_sitting():
    for file in FILES:
        assert file.stem not in ("utils", "util", "helpers", "misc"), NAMES[file]
        lines = len(file.read_text().splitlines())
        assert lines <= 350, f"{NAMES[file]} has {lines} lines"


def test_no_pickled_artefacts():
    """Pickle runs what a file tells it to; the original CIFAR batches are parsed instead."""
    unsafe = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
    assert not set().union(*(importers(package) for package in unsafe))
