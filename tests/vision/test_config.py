import pytest

from common import config as configs
from common.errors import InputError
from vision.config import CONFIGS, MODEL_NAMES, VisionConfig, make_config
from vision.models import MODELS


def test_every_model_has_a_recipe():
    assert set(MODEL_NAMES) == set(MODELS)


def test_another_optimiser_has_no_momentum_of_the_recipe():
    assert make_config({"config": "speedrun"}).momentum
    assert make_config({"config": "speedrun", "optimizer": "adam"}).momentum is None
    with pytest.raises(InputError, match="--momentum does not apply to --optimizer=adam"):
        make_config({"config": "speedrun", "optimizer": "adam", "momentum": 0.9})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_valid(name):
    config = make_config({"config": name})
    assert config.config == name and config.model == CONFIGS[name]["model"]


def test_a_flag_wins_over_the_config():
    config = make_config({"config": "report_b_aug", "epochs": 3, "optimizer": None})
    assert (config.epochs, config.optimizer, config.augment) == (3, "rmsprop", "report_b")


def test_report_b_is_report_b():
    config = make_config({"config": "report_b_resnet"})
    settings = (config.optimizer, config.batch_size, config.l2, config.val_fraction, config.epochs)
    assert settings == ("adam", 64, 1e-4, 0.2, 200)


def test_digits_are_never_mirrored_by_default():
    assert make_config({"model": "resnet18", "dataset": "digits"}).augment == "crop(4)"
    named = make_config({"config": "report_b_aug", "dataset": "digits"})
    assert (named.augment, named.epochs) == ("report_b", 100)


def test_json_round_trip(tmp_path):
    config = make_config({"model": "resnet18", "dropout": 0.25})
    configs.save(config, tmp_path / "config.json")
    assert configs.load(VisionConfig, tmp_path / "config.json") == config


def test_a_file_of_another_version_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"task": "cifar", "colour": 1}')
    with pytest.raises(InputError, match="config.json is not a configuration of this version"):
        configs.load(VisionConfig, path)
    with pytest.raises(InputError, match="nothing.json does not exist"):
        configs.load(VisionConfig, tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"model": "report_a_cnn"}, "--model=report_a_cnn is unknown: choose one of cnn, cnn_b"),
        ({"config": "best"}, "--config=best is unknown"),
        ({"crf": True}, "--crf does not belong to this task"),
        ({"epochs": 0}, "--epochs=0"),
        ({"learning_rate": 0.0}, "--learning_rate=0 .* above 0"),
        ({"dropout": 1.0}, "--dropout=1"),
        ({"train_fraction": 0.0}, "--train_fraction=0 .* above 0 and at most 1"),
        ({"train_fraction": 1.5}, "--train_fraction=1.5"),
        ({"l2": -1.0}, "--l2=-1"),
        ({"learning_rate": float("nan")}, "--learning_rate=nan"),
        ({"precision": "float16"}, "--precision=float16 is unknown"),
        ({"patience": 3, "val_fraction": 0.0}, "--patience needs validation"),
    ],
)
def test_bad_values_are_named(flags, message):
    with pytest.raises(InputError, match=message):
        make_config(flags)
