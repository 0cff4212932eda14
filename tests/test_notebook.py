"""notebooks/athanor_colab.ipynb: clean as committed, and executed, stopped and continued."""

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "notebooks" / "athanor_colab.ipynb"
# What a person would change in the notebook's first cell, for models that compile quickly.
SETTINGS = """
RUNS = {runs!r}
IMAGE_FLAGS = "--model=cnn_b --width=0.125 --epochs=4 --batch_size=64"
REVIEW_FLAGS = (
    "--crf --cell=rnn --hidden_size=8 --embeddings=random --embedding_size=8 --max_length=8 "
    "--epochs=2 --batch_size=40"
)
"""


def read_notebook():
    return nbformat.read(PATH, as_version=4)


def parameters(notebook) -> int:
    """The place of the cell with the settings."""
    [place] = [
        place
        for place, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    ]
    return place


def test_the_committed_notebook_is_valid_and_without_outputs():
    notebook = read_notebook()
    nbformat.validate(notebook)
    assert len(notebook.cells) > 10
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id


def test_the_repository_is_the_same_wherever_it_is_written():
    notebook = read_notebook()
    source = notebook.cells[parameters(notebook)].source
    [repository] = re.findall(r'^REPOSITORY = "https://github.com/([^"]+)"  # @param', source, re.M)
    readme = (ROOT / "README.md").read_text()
    assert f"git clone https://github.com/{repository} && cd athanor" in readme
    opened = f"https://colab.research.google.com/github/{repository}/blob/main/"
    assert f"({opened}{PATH.relative_to(ROOT).as_posix()})" in readme


def execute(runs: Path, watch=None):
    """The notebook after it was executed in a fresh kernel; `watch` gets the kernel's process."""
    notebook = read_notebook()
    settings = nbformat.v4.new_code_cell(SETTINGS.format(runs=str(runs)))
    notebook.cells.insert(parameters(notebook) + 1, settings)
    client = NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": PATH.parent}},
    )
    client.create_kernel_manager()
    if watch:
        threading.Thread(target=watch, args=(client,), daemon=True).start()
    try:
        client.execute()
    except CellExecutionError:
        assert watch, "only the run that is stopped may fail"
    return notebook


def printed(notebook) -> dict[str, str]:
    """What the cells printed, by their ids."""
    return {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def interrupt_after_first_epoch(runs: Path):
    """Press the stop button, as Jupyter does: a signal to the kernel."""

    def watch(client):
        rows = runs / "images" / "metrics.jsonl"
        while not (rows.exists() and rows.read_text()):
            time.sleep(0.02)
        os.kill(client.km.provisioner.pid, signal.SIGINT)

    return watch


def check_stopped(notebook):
    """The stop button saved a checkpoint, and said so without a traceback."""
    text = printed(notebook)
    assert re.search(r"stopped after \d of 4 epochs.*--resume continues", text["train-images"])
    [cell] = [cell for cell in notebook.cells if cell.id == "train-images"]
    [error] = [output for output in cell.outputs if output.output_type == "error"]
    assert error.traceback == ["Stopped here: status 130, see the lines above"]
    assert text["train-reviews"] == ""


def check_continued(notebook, runs: Path):
    """The same cell continued the run; jax is kept, and all devices are used."""
    text = printed(notebook)
    assert re.search(r"kept: jax==\S+ jaxlib==\S+ numpy==\S+\n", text["packages"])
    assert text["device"].startswith("This runtime has a CPU: 8 x cpu\n")
    assert "resuming" in text["train-images"] and "epoch 4/4" in text["train-images"]
    assert "resuming" not in text["train-reviews"] and "epoch 2/2" in text["train-reviews"]
    for name in ("images", "reviews"):
        summary = json.loads((runs / name / "summary.json").read_text())
        assert summary["device"] == "8 x cpu"
    assert len((runs / "images" / "command.txt").read_text().splitlines()) == 2


def check_shown(notebook):
    """The pictures and the marked terms are there."""
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    pictures = {
        name: [output.metadata["image/png"]["alt"] for output in shown if "metadata" in output]
        for name, shown in outputs.items()
        if any("image/png" in output.get("data", {}) for output in shown)
    }
    assert {name: len(shown) for name, shown in pictures.items()} == {
        "image-curves": 1, "confusion": 2, "review-curves": 1, "review-tags": 2
    }  # fmt: skip
    assert all(all(shown) for shown in pictures.values())
    [page] = outputs["terms"]
    assert page.data["text/html"].count('<p lang=""') == 5


def test_stopped_and_executed_again_it_trains_both_tasks_and_shows_them(tmp_path, monkeypatch):
    """One test, since two processes that share the tests would each execute the notebook."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "ATHANOR_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    runs = tmp_path / "runs"
    check_stopped(execute(runs, watch=interrupt_after_first_epoch(runs)))
    continued = execute(runs)
    check_continued(continued, runs)
    check_shown(continued)
