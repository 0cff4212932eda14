"""The configuration of a text run, and named sets of defaults.

`default` is used unless --config names another; a flag wins over either. `report_*` repeat
the set-ups of the two course reports.
"""

from dataclasses import dataclass
from typing import Any

from common.config import check_choice, check_range, override
from common.errors import InputError
from common.optim import DIRECTIONS, SCHEDULES, WITH_MOMENTUM

PRECISIONS = ("auto", "float32", "bfloat16")
MODELS = ("birnn", "decnn")
CELLS = ("rnn", "lstm", "gru")
MERGES = ("concat", "sum")
CHARS = ("none", "cnn", "lstm")
TAGS = ("bio", "bioes", "io")
TOKENIZERS = ("words", "jieba", "characters")
WORD2VEC = ("skip_gram", "cbow")
SELECTIONS = ("best", "last")


@dataclass(frozen=True)
class TextConfig:
    """One training run."""

    task: str = "aspect"
    config: str = "default"
    # The text and what is made of it.
    data_dir: str | None = None
    train_file: str | None = None
    val_file: str | None = None
    test_file: str | None = None
    val_fraction: float = 0.05
    columns: str | None = None  # of CoNLL files, such as "token,tag"; None finds them
    merge_repeated: bool = False  # a CoNLL sentence that is there once per term
    tokenizer: str = "words"
    remove_stop_words: bool = False
    max_length: int = 0  # tokens kept of a sentence, 0 is all
    tags: str = "bio"
    # The model.
    model: str = "birnn"
    cell: str = "lstm"
    hidden_size: str = "128"  # of a direction, layer by layer: "32,16,16"
    bidirectional: bool = True
    merge: str = "concat"
    crf: bool = False
    constrained: bool = True  # decode legal tag sequences only
    embeddings: str = "glove"
    embedding_size: int = 100  # of vectors that are not read from files
    word2vec: str = "skip_gram"
    train_embeddings: bool = False
    chars: str = "none"
    word_shapes: bool = False
    embedding_dropout: float = 0.2
    recurrent_dropout: float = 0.0
    dropout: float = 0.5  # of every layer's output
    word_dropout: float = 0.0
    # The training.
    epochs: int = 12
    batch_size: int = 16
    optimizer: str = "adam"
    learning_rate: float = 3e-3
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    momentum: float | None = None
    weight_decay: float | None = None
    clip: float = 5.0
    ema: float = 0.0
    patience: int = 0
    select: str = "best"  # the epoch of the best validation score, or the last one
    precision: str = "auto"
    seed: int = 0
    devices: int = 0
    checkpoint_minutes: float = 10.0

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """`hidden_size` as numbers."""
        return tuple(int(part) for part in self.hidden_size.split(","))

    @property
    def embeddings_are_random(self) -> bool:
        return self.embeddings == "random"


_REPORTS = {
    "embedding_dropout": 0.0,
    "dropout": 0.0,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "clip": 0.0,
    "val_fraction": 0.1,
}
_REPORT_A = _REPORTS | {
    "tokenizer": "jieba",
    "embeddings": "word2vec",
    "embedding_size": 300,
    "hidden_size": "512",
    "crf": True,
    "batch_size": 64,
    "epochs": 20,
}
_REPORT_B = _REPORTS | {
    "embeddings": "glove",
    "train_embeddings": True,
    "hidden_size": "32",
    "tags": "io",
    "max_length": 100,
    "batch_size": 32,
    "epochs": 50,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "best": {
        "crf": True,
        "hidden_size": "128,128",
        "chars": "cnn",
        "word_shapes": True,
    },
    "report_a": _REPORT_A,
    "report_b_birnn": _REPORT_B | {"cell": "rnn"},
    "report_b_bilstm": _REPORT_B | {"cell": "lstm"},
    "report_b_bigru": _REPORT_B | {"cell": "gru"},
    "report_b_deep": _REPORT_B | {"hidden_size": "32,16,16"},
    "report_b_crf": _REPORT_B | {"crf": True, "epochs": 25},
}


def make_config(flags: dict[str, Any]) -> TextConfig:
    """The configuration that the given flags (None: not given) ask for.

    Raises InputError for an unknown name, a flag that text lacks, or a value out of range.
    """
    name = check_choice("--config", flags.get("config") or "default", CONFIGS)
    config = override(override(TextConfig(), CONFIGS[name] | {"config": name}), flags)
    check_config(config)
    return config


def check_config(config: TextConfig) -> None:
    """Raise an InputError for a number out of range, or a name that does not exist."""
    _check_names(config)
    for name in ("epochs", "batch_size", "embedding_size"):
        check_range(f"--{name}", getattr(config, name), 1)
    for name in ("learning_rate", "checkpoint_minutes"):
        check_range(f"--{name}", getattr(config, name), 0, open_low=True)
    for name in ("warmup_epochs", "clip", "patience", "devices", "max_length"):
        check_range(f"--{name}", getattr(config, name), 0)
    check_range("--seed", config.seed, 0, 2**32 - 1)
    if config.weight_decay is not None:
        check_range("--weight_decay", config.weight_decay, 0)
    rates = ("embedding_dropout", "recurrent_dropout", "dropout", "word_dropout")
    for name in (*rates, "momentum", "ema", "val_fraction"):
        value = getattr(config, name) or 0.0
        if not 0 <= value < 1:
            raise InputError(f"--{name}={value:g} is out of range: it must be in [0, 1)")
    sizes = config.hidden_size.split(",")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(
            f"--hidden_size={config.hidden_size} is no list of sizes: write 128 or 32,16,16"
        )
    if config.momentum is not None and config.optimizer not in WITH_MOMENTUM:
        raise InputError(
            f"--momentum does not apply to --optimizer={config.optimizer}: leave it out"
        )
    if config.patience and config.val_fraction == 0 and not config.val_file:
        raise InputError("--patience needs validation data: give --val_fraction above 0")


def _check_names(config: TextConfig) -> None:
    choices = {
        "model": MODELS,
        "cell": CELLS,
        "merge": MERGES,
        "chars": CHARS,
        "tags": TAGS,
        "tokenizer": TOKENIZERS,
        "word2vec": WORD2VEC,
        "select": SELECTIONS,
        "precision": PRECISIONS,
        "optimizer": DIRECTIONS,
        "schedule": SCHEDULES,
    }
    for name, known in choices.items():
        check_choice(f"--{name}", getattr(config, name), known)
