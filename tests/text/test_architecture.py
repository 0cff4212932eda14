"""The layer table of a tagger, against counts by hand."""

from pathlib import Path

import pytest

from text import architecture
from text.config import make_config

T, D, H, K = architecture.TOKENS, 30, 16, 3
FROZEN = {"embeddings": "words.vec", "embedding_size": None}
RECURRENT = 4 * H * (D + H) + 4 * H  # of one direction


@pytest.mark.parametrize(
    "flags, params, flops",
    [
        ({}, D + 2 * RECURRENT + (2 * H + 1) * K, 2 * T * (8 * H * (D + H) + 2 * H * K)),
        (FROZEN, 2 * RECURRENT + (2 * H + 1) * K, 2 * T * (8 * H * (D + H) + 2 * H * K)),
        (
            {"chars": "cnn", "bidirectional": False},
            D + 2 * 25 + (3 * 25 + 1) * 50 + RECURRENT + 4 * H * 50 + (H + 1) * K,
            2 * T * (20 * 3 * 25 * 50 + 4 * H * (D + 50 + H) + H * K),
        ),
    ],
)
def test_parameters_and_flops(tmp_path, monkeypatch, capsys, flags, params, flops):
    monkeypatch.chdir(tmp_path)
    Path("words.vec").write_text("word" + " 0.5" * D + "\n")
    settings = {"embeddings": "random", "embedding_size": D, "hidden_size": str(H)}
    architecture.show(make_config(settings | flags), str(tmp_path))
    table = capsys.readouterr().out
    assert table.startswith((tmp_path / "structure.txt").read_text())
    (total,) = (line.split() for line in table.splitlines() if line.startswith("total of"))
    assert total[3] == f"{params:,}"
    assert float(total[4]) * {"k": 1e3, "M": 1e6}[total[5]] == pytest.approx(flops, rel=5e-3)
    assert (tmp_path / "structure.png").stat().st_size > 1000
