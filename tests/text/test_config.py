"""Named configurations and what wins, and one clear line for every mistake."""

import pytest

from common.errors import InputError
from text.config import CONFIGS, TextConfig, make_config


@pytest.mark.parametrize("name", CONFIGS)
def test_every_named_configuration_is_valid(name):
    config = make_config({"config": name})
    assert config.config == name and config.hidden_sizes


def test_a_flag_wins_over_a_named_configuration():
    assert make_config({"config": "report_a"}).epochs == 20
    config = make_config({"config": "report_a", "epochs": 3, "crf": False})
    assert (config.epochs, config.crf, config.tokenizer) == (3, False, "jieba")
    assert make_config({}) == TextConfig()


def test_what_a_flag_leaves_a_named_configuration_without_effect_is_dropped():
    config = make_config({"config": "report_b_crf", "embeddings": "random"})
    assert config.train_embeddings is None and config.crf
    assert make_config({"config": "report_a", "embeddings": "glove"}).embedding_size is None
    assert make_config({"config": "report_b_birnn", "model": "decnn"}).cell is None
    with pytest.raises(InputError, match="--train_embeddings has no effect with --embeddings=ran"):
        make_config({"config": "report_b_crf", "embeddings": "random", "train_embeddings": True})


@pytest.mark.parametrize(
    "flags, selection",
    [
        ({}, "last"),
        ({"schedule": "one_cycle"}, "last"),
        ({"schedule": "constant"}, "best"),
        ({"schedule": "step"}, "best"),
        ({"patience": 2}, "best"),
        ({"select": "best"}, "best"),
        ({"config": "report_a"}, "best"),
    ],
)
def test_the_last_epoch_is_selected_where_the_rate_falls_to_nothing(flags, selection):
    assert make_config(flags).selection == selection


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"config": "bset"}, "--config=bset is unknown: choose one of default, best"),
        ({"augment": "none"}, "--augment does not belong to this task"),
        ({"cell": "lstn"}, "--cell=lstn is unknown: choose one of rnn, lstm, gru"),
        ({"model": "resnet18"}, "--model=resnet18 is unknown: choose one of birnn, decnn"),
        ({"tags": "iob"}, "--tags=iob is unknown"),
        ({"tokenizer": "spacy"}, "--tokenizer=spacy is unknown"),
        ({"chars": "rnn"}, "--chars=rnn is unknown"),
        ({"merge": "mean"}, "--merge=mean is unknown"),
        ({"select": "first"}, "--select=first is unknown"),
        ({"word2vec": "glove"}, "--word2vec=glove is unknown"),
        ({"optimizer": "adm"}, "--optimizer=adm is unknown"),
        ({"schedule": "square"}, "--schedule=square is unknown"),
        ({"precision": "float16"}, "--precision=float16 is unknown"),
        ({"hidden_size": "128;64"}, "--hidden_size=128;64 is no list of sizes: write 128 or"),
        ({"hidden_size": "128,0"}, "--hidden_size=128,0 is no list"),
        ({"epochs": 0}, "--epochs=0 is out of range"),
        ({"batch_size": 0}, "--batch_size=0 is out of range"),
        ({"learning_rate": 0.0}, "--learning_rate=0 is out of range"),
        ({"dropout": 1.0}, "--dropout=1 is out of range: it must be in [0, 1)"),
        ({"word_dropout": -0.1}, "--word_dropout=-0.1 is out of range"),
        ({"val_fraction": 1.0}, "--val_fraction=1 is out of range"),
        ({"max_length": -1}, "--max_length=-1 is out of range"),
        ({"clip": -1.0}, "--clip=-1 is out of range"),
        ({"weight_decay": -1.0}, "--weight_decay=-1 is out of range"),
        ({"seed": -1}, "--seed=-1 is out of range"),
        ({"momentum": 0.9}, "--momentum does not apply to --optimizer=adam"),
        ({"decode": "viterbi"}, "--decode=viterbi is unknown: choose one of path, terms"),
        ({"l2": 1e-4}, "--l2 has no effect without convolutions"),
        ({"patience": 2, "select": "last"}, "--patience has no effect with --select=last"),
        (
            {"val_file": "a.xml", "val_fraction": 0.1},
            "--val_fraction has no effect with --val_file",
        ),
        ({"model": "decnn", "cell": "gru"}, "--cell has no effect with --model=decnn: leave it"),
        ({"model": "decnn", "hidden_size": "8"}, "--hidden_size has no effect with --model=decnn"),
        ({"bidirectional": False, "merge": "sum"}, "--merge has no effect with --bidirectional="),
        ({"embedding_size": 8}, "--embedding_size has no effect with --embeddings=glove"),
        ({"word2vec": "cbow"}, "--word2vec has no effect with --embeddings=glove"),
        (
            {"embeddings": "random", "train_embeddings": False},
            "--train_embeddings has no effect with --embeddings=random",
        ),
        ({"warmup_epochs": 12.0}, "--warmup_epochs must be shorter than the run"),
        ({"warmup_epochs": 1.0, "schedule": "one_cycle"}, "--warmup_epochs does not go with"),
    ],
)
def test_mistakes(flags, message):
    with pytest.raises(InputError) as error:
        make_config(flags)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "flags, epochs",
    [
        ({}, 1.0),
        ({"epochs": 1}, 0.1),
        ({"schedule": "one_cycle"}, 0.0),
        ({"schedule": "constant"}, 0.0),
        ({"schedule": "step", "warmup_epochs": 2.0}, 2.0),
    ],
)
def test_warm_up(flags, epochs):
    assert make_config(flags).warmup == epochs
