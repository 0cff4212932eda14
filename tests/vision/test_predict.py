"""A finished run is scored again, used on image files and described."""

import json

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from vision import commands, datasets

LAUNCHER = {
    "mode": "train",
    "workdir": None,
    "resume": False,
    "together": None,
    "run": None,
    "input": None,
    "format": None,
    "top": None,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, kept_programs):
    """A small run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = {
        "model": "cnn_b",
        "dataset": "digits",
        "width": 0.5,
        "epochs": 4,
        "devices": 1,
        "optimizer": "adam",
        "learning_rate": 3e-3,
    }
    commands.run(LAUNCHER | {"workdir": str(folder)}, settings, "python launch.py ...")
    return folder


def launch(settings=None, **launcher):
    commands.run(LAUNCHER | launcher, settings or {}, "")


def test_run_folder_is_complete(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.json",
        "inputs.json",
        "metrics.jsonl",
        "summary.json",
        "tensorboard",
        "checkpoints",
        "curves.png",
        "test_batches.png",
        "confusion.png",
        "mistakes.png",
    }
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4
    summary = json.loads((run / "summary.json").read_text())
    promised = (
        "task model dataset seed epochs best_epoch val/accuracy test/accuracy test/loss test/ece "
        "test/per_class params images_per_second seconds command jax device"
    )
    assert set(promised.split()) <= set(summary)
    assert summary["test/accuracy"] > 0.5 and summary["images_per_second"] > 0


def test_eval_repeats_the_scores(run, capsys):
    launch(mode="eval", run=[str(run)], format="jsonl")
    scores = json.loads(capsys.readouterr().out)
    summary = json.loads((run / "summary.json").read_text())
    for name in ("test/accuracy", "test/loss", "test/ece", "test/per_class"):
        assert scores[name] == pytest.approx(summary[name], rel=1e-6)


def test_eval_prints_every_class(run, capsys):
    launch(mode="eval", run=[str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:10]] == list("0123456789")
    assert lines[-1].startswith("test accuracy 0.")


def test_eval_tells_how_classes_differ(run, tmp_path):
    for name in ("0", "x"):
        (tmp_path / name).mkdir()
        for row in range(5):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{row}.png")
    with pytest.raises(InputError, match="it lacks 1, 2, 3, 4, 5, ... and also has x$"):
        launch({"dataset": "folder", "data_dir": str(tmp_path)}, mode="eval", run=[str(run)])


def test_predictions_are_the_logits_of_the_files(run, tmp_path, capsys):
    test = datasets.load("digits").test
    for i in range(6):
        Image.fromarray(test.images[i]).save(tmp_path / f"{i}-{test.labels[i]}.png")
    launch(mode="predict", run=[str(run)], input=[str(tmp_path)], format="jsonl", top=10)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == sorted(str(p) for p in tmp_path.iterdir())
    for row in rows:
        probabilities = [c["probability"] for c in row["classes"]]
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)
        assert probabilities == sorted(probabilities, reverse=True)
    right = [row["classes"][0]["class"] == row["image"][-5] for row in rows]
    assert sum(right) >= 4


def test_predict_table_names_file_and_classes(run, tmp_path, capsys):
    path = tmp_path / "grey.png"
    Image.fromarray(np.arange(40 * 50, dtype=np.uint8).reshape(40, 50)).save(path)
    launch(mode="predict", run=[str(run)], input=[str(path)])
    words = capsys.readouterr().out.split()
    assert words[0] == str(path) and len(words) == 1 + 2 * 3


def test_what_is_no_image_is_named_and_the_rest_classified(run, tmp_path, capsys):
    grey = Image.fromarray(np.zeros((32, 32), np.uint8))
    for name in ("a.png", "c.png"):
        grey.save(tmp_path / name)
    for name in ("b.png", "d.png"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes()[:40])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"b\.png does not decode .*; likewise .*d\.png"):
        launch(mode="predict", run=[str(run)], input=[str(tmp_path)], format="jsonl")
    out, err = capsys.readouterr()
    assert [json.loads(line)["image"][-5:] for line in out.splitlines()] == ["a.png", "c.png"]
    assert "1 files that are no .png" in err and err.endswith("notes.txt\n")


@pytest.mark.parametrize(
    "launcher, settings, message",
    [
        ({"mode": "eval"}, {}, "--run=FOLDER"),
        ({"mode": "eval", "run": ["/nowhere"]}, {}, "/nowhere/config.json"),
        ({"mode": "predict", "run": ["RUN"]}, {}, "--input"),
        ({"mode": "predict", "run": ["RUN"], "input": ["/no.png"]}, {}, "/no.png"),
        ({"mode": "predict", "run": ["RUN"], "input": ["RUN/config.json"]}, {}, "config.json does"),
        ({"mode": "predict", "run": ["RUN"], "input": ["RUN"], "top": 0}, {}, "--top=0"),
        ({"mode": "eval", "run": ["RUN"]}, {"width": 2.0}, "--width is fixed by the run"),
        ({"mode": "eval", "run": ["RUN"], "resume": True}, {}, "--resume does not go"),
        ({"mode": "train", "input": ["x"]}, {}, "--input does not go"),
        ({"mode": "train", "resume": True}, {}, "--workdir"),
    ],
)
def test_bad_use_is_named(run, launcher, settings, message):
    def place(value):
        return value.replace("RUN", str(run)) if isinstance(value, str) else value

    launcher = {
        name: [place(v) for v in value] if isinstance(value, list) else place(value)
        for name, value in launcher.items()
    }
    with pytest.raises(InputError, match=message):
        launch(settings, **launcher)


def test_describe_writes_table_and_picture(tmp_path, capsys):
    launch({"model": "resnet18"}, mode="describe", workdir=str(tmp_path / "d"))
    assert "11,173,962" in capsys.readouterr().out
    assert (tmp_path / "d" / "structure.png").read_bytes().startswith(b"\x89PNG")
    assert "11,173,962" in (tmp_path / "d" / "structure.txt").read_text()
