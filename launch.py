"""Train, score, use and describe Athanor's models: flags in, a task's function called.

python launch.py --task=cifar --model=resnet18
python launch.py --task=aspect --crf
python launch.py --task=cifar --mode=predict --run=runs/... --input=photo.png
python launch.py --study=A-bn --budget=quick
"""

import signal

# Ctrl-C during the imports needs no traceback. A shell's background jobs ignore it, and go on so.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import importlib
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NoReturn

from absl import flags

from common import processes
from common.errors import (
    DivergedError,
    FailedRunsError,
    InputError,
    LostProcessError,
    StoppedBySignal,
    is_out_of_memory,
    one_line,
)
from common.signals import stop_with_parent
from common.writer import lost_lines

FLAGS = flags.FLAGS
TASKS = {"cifar": "vision.commands", "aspect": "text.commands"}
STUDIES = {"cifar": "vision.studies", "aspect": "text.studies"}
MODES = ("train", "eval", "predict", "describe")


# What absl's words for a value of the wrong kind ask for.
ASKED_FOR = {
    "invalid literal for int()": "give a whole number",
    "could not convert string to float": "give a number",
    "Non-boolean argument": "give true or false, or the flag alone",
}


class DeviceCount(flags.IntegerParser):
    """A number, or "all", which is 0."""

    def parse(self, argument: Any) -> int:
        try:
            return 0 if argument == "all" else super().parse(argument)
        except ValueError:
            raise ValueError("give a number, or all") from None


# Flags of the launcher; all others are fields of the task's configuration.
flags.DEFINE_enum("task", None, list(TASKS), "cifar: classify images; aspect: extract terms.")
flags.DEFINE_enum("mode", "train", MODES, "Train, score a run again, use it, or show a model.")
flags.DEFINE_string("workdir", None, "The run folder [runs/TASK-MODEL-TIME].")
flags.DEFINE_bool("resume", False, "Continue the run in --workdir, bit for bit (or start it).")
flags.DEFINE_multi_string("run", None, "Folder of a finished run; aspect averages several.")
flags.DEFINE_multi_string("input", None, "What to predict: images or folders; text, file or -.")
flags.DEFINE_string("format", None, "cifar: table or jsonl; aspect: text, jsonl, xml, html.")
flags.DEFINE_integer("top", None, "cifar: classes shown for each image [3].")
flags.DEFINE_integer("nbest", None, "aspect: also show each sentence's N best taggings.")
flags.DEFINE_string("study", None, "Compare arms over seeds: a name, list, or a .yaml file.")
flags.DEFINE_integer("seeds", None, "Seeds of every arm of a study [the study's, mostly 3].")
flags.DEFINE_string("budget", None, "quick: minutes; cpu: two cores; full: the reports' [quick].")
flags.DEFINE_integer(
    "jobs", None, "Runs of a study that go on together [1; of light ones several]."
)
flags.DEFINE_string(
    "vectors", None, "Word vectors for the arms of a study that need some: FILE or FILE,FILE."
)
flags.DEFINE_integer(
    "vmap", None, "Runs of a study alike but for seed, rate, decay, smoothing: one program [1]."
)
flags.DEFINE_string(
    "together", None, "For studies with --vmap: the file of runs that are one program."
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several make one run.")
flags.DEFINE_integer("num_processes", None, "How many processes make the run.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
LAUNCHER = (
    "task", "mode", "workdir", "resume", "run", "input", "format", "top", "nbest",
    "study", "seeds", "budget", "jobs", "vectors", "vmap", "together", *processes.FLAGS,
)  # fmt: skip

# Defaults in brackets; None means "the configuration's".
flags.DEFINE_string("config", None, "A named set of defaults, see the README [the model's].")
flags.DEFINE_string(
    "model", None, "cnn, cnn_b, airbench, resnet18/34/50/101/152, plain18/34; birnn, decnn."
)
flags.DEFINE_string("data_dir", None, "Where the data are; see the README for the forms.")
flags.DEFINE_float("val_fraction", None, "Share of training data held out [0.1; aspect 0.05].")
flags.DEFINE_float("train_fraction", None, "Share of the rest that is trained on [1].")
flags.DEFINE_integer("epochs", None, "Passes over the training data.")
flags.DEFINE_integer("batch_size", None, "Examples of a step, over all devices.")
flags.DEFINE_string("optimizer", None, "sgd, momentum, nesterov, adam, adamw, rmsprop or muon.")
flags.DEFINE_float("learning_rate", None, "The peak of the schedule.")
flags.DEFINE_string("schedule", None, "constant, step, linear, cosine or one_cycle.")
flags.DEFINE_float("warmup_epochs", None, "Linear warm-up before the schedule [0; aspect 1].")
flags.DEFINE_float("momentum", None, "Of momentum, nesterov and muon [0.9].")
flags.DEFINE_float("kernel_rate", None, "Factor of the rate for dense and recurrent kernels [1].")
flags.DEFINE_float("bias_rate", None, "Factor of the rate for biases and scales [1].")
flags.DEFINE_float("weight_decay", None, "Decoupled, on kernels [adamw 0.01, others 0].")
flags.DEFINE_float("l2", None, "Penalty l2 * sum(w^2) on convolution kernels.")
flags.DEFINE_float("clip", None, "Largest global norm of the gradient; 0 is off [0; aspect 5].")
flags.DEFINE_float("ema", None, "Decay of the weights' moving average; 0 is off [0].")
flags.DEFINE_integer("patience", None, "Epochs without improvement until an early stop; 0: off.")
flags.DEFINE_float("dropout", None, "Before the head (cnn_b: two dense layers) [0; aspect 0.5].")
flags.DEFINE_string("precision", None, "auto, float32 or bfloat16 [auto: by device].")
flags.DEFINE_integer("seed", None, "Of split, order, initial weights and randomness [0].")
flags.DEFINE(DeviceCount(), "devices", None, "Of each process [all]; a CPU's are a core each.")
flags.DEFINE_float("checkpoint_minutes", None, "Longest time between two checkpoints [10].")

# --task=cifar
flags.DEFINE_string("dataset", None, "cifar10, cifar100, digits or folder [cifar10].")
flags.DEFINE_string("augment", None, "none, standard, report_b, or operations joined by +.")
flags.DEFINE_float("label_smoothing", None, "Share of a target spread over all classes [0].")
flags.DEFINE_bool("batch_norm", None, "Batch normalisation after convolutions.")
flags.DEFINE_string("pool", None, "max or avg.")
flags.DEFINE_string("shortcut", None, "projection or zero_pad, for ResNets [projection].")
flags.DEFINE_string("stem", None, "cifar or imagenet, for ResNets [cifar].")
flags.DEFINE_float("width", None, "Multiplies every layer's channels [1].")
flags.DEFINE_string("tta", None, "Views of a test image: none, flip (2) or shift (6) [none].")
flags.DEFINE_string("conv", None, "auto (fast forms on CPUs) or xla: the same values [auto].")

# --task=aspect
flags.DEFINE_string("train_file", None, "SemEval XML, CoNLL columns or JSON lines [embedded].")
flags.DEFINE_string("val_file", None, "Validation sentences [a share of the training ones].")
flags.DEFINE_string("test_file", None, "Test sentences.")
flags.DEFINE_string("columns", None, "Of token and tag in CoNLL files [found].")
flags.DEFINE_bool("merge_repeated", None, "Join equal sentences, with the terms of all.")
flags.DEFINE_string("tokenizer", None, "words, jieba or characters [words].")
flags.DEFINE_bool("remove_stop_words", None, "Drop English stop words, as report A did.")
flags.DEFINE_integer("max_length", None, "Tokens kept of a sentence; 0 is all [0].")
flags.DEFINE_string("tags", None, "bio, bioes or io (two classes) [bio].")
flags.DEFINE_bool("crf", None, "A linear-chain CRF instead of softmax.")
flags.DEFINE_string("decode", None, "path: the best one's terms; terms: the likely ones [terms].")
flags.DEFINE_bool("constrained", None, "Best paths have legal tag sequences only [true].")
flags.DEFINE_string("cell", None, "rnn, lstm or gru [lstm].")
flags.DEFINE_string("hidden_size", None, "Of a direction, layer by layer, as 32,16,16 [128,128].")
flags.DEFINE_bool("bidirectional", None, "Read sentences both ways [true].")
flags.DEFINE_string("merge", None, "concat or sum of the two directions [concat].")
flags.DEFINE_string("embeddings", None, "random, word2vec, or glove and files, by commas [glove].")
flags.DEFINE_integer("embedding_size", None, "Of random and word2vec embeddings [100].")
flags.DEFINE_string("word2vec", None, "skip_gram or cbow, for --embeddings=word2vec.")
flags.DEFINE_bool("train_embeddings", None, "Train the vectors as well [false; random: true].")
flags.DEFINE_string("chars", None, "none, cnn or lstm: features from a word's characters [none].")
flags.DEFINE_bool("word_shapes", None, "Features from capitals and digits [false].")
flags.DEFINE_float("embedding_dropout", None, "Of what enters the first layer [0.2].")
flags.DEFINE_float("recurrent_dropout", None, "Of the state, one mask a sentence [0.3].")
flags.DEFINE_float("word_dropout", None, "Chance that a word is read as unknown [trained: 0.05].")
flags.DEFINE_string("select", None, "Epoch kept: best on validation, or last [last if annealed].")


def main() -> None:
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(f"{__doc__}\nFlags, with their defaults in brackets:\n{FLAGS.main_module_help()}")
        return
    try:
        rest = FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise InputError(f"{_explain(error)} (see --help)") from None
    if rest:
        raise InputError(f"'{rest[0]}' is not a flag: write --flag=value (see --help)")
    if FLAGS.task is None and FLAGS.study is None:
        raise InputError(f"--task is missing: choose one of {', '.join(TASKS)}")
    own = FLAGS.get_key_flags_for_module(sys.modules[__name__])
    for flag in own:
        if flag.present and (flag.value == "" or flag.value == [""]):
            raise InputError(f"--{flag.name} is empty: give it a value, or leave it out")
    settings = {f.name: f.value for f in own if f.present and f.name not in LAUNCHER}
    launcher = {name: FLAGS[name].value for name in LAUNCHER}
    command = shlex.join(["python", *sys.argv])
    if FLAGS.study is None:
        stop_with_parent()
        run = importlib.import_module(TASKS[FLAGS.task]).run
        place = tuple(launcher[name] for name in processes.FLAGS)
        several = FLAGS.mode == "train" and processes.are_several(*place)
        with processes.joined(*place) if several else nullcontext():
            run(launcher, settings, command)
    else:
        _study(launcher, settings, command)


def _explain(error: flags.Error) -> str:
    """What absl says of a flag, in a line and in plain words."""
    text = " ".join(str(error).split())
    flag, _, reason = text.partition(": ")
    remedy = next((asked for words, asked in ASKED_FOR.items() if words in reason), None)
    return f"{flag}: {remedy}" if remedy else text


def _study(launcher: dict[str, Any], settings: dict[str, Any], command: str) -> None:
    from common.study_command import run_study

    def finder(module: str) -> Callable[[], tuple[Any, Any]]:
        def find() -> tuple[Any, Any]:
            found = importlib.import_module(module)
            return found.TASK, found.STUDIES

        return find

    run_study(
        launcher,
        settings,
        command,
        program=[sys.executable, os.path.abspath(__file__)],
        tasks={task: finder(module) for task, module in STUDIES.items()},
    )


def run_to_exit_status(program: Callable[[], None]) -> int:
    """Call `program`; an error meant for a person becomes one line and a status."""
    try:
        program()
        _check_output()
    except InputError as error:
        return _fail(error, 2)
    except (DivergedError, FailedRunsError, LostProcessError) as error:
        return _fail(error, 1)
    except StoppedBySignal as error:
        return _fail(error, 128 + error.signal_number)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _discard_output()
        return 141
    except OSError as error:
        named = error.filename is not None and error.strerror
        return _fail(f"{error.filename}: {error.strerror}" if named else error, 2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:80]
        return _fail(f"out of memory ({reason}): use a smaller model or fewer data", 2)
    return 0


def _check_output() -> None:
    """Write what standard output still holds; InputError if a line of it is lost."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        lost_lines.append(str(error.strerror))
    if lost_lines:
        raise InputError(f"all is done, but the lines told are not complete: {lost_lines[0]}")


def _discard_output() -> None:
    """Let standard output take what it holds to nowhere: Python would try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Give the program its three standard streams, of which a daemon's may be closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, os.O_RDWR)
            if file != number:
                os.dup2(file, number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


def _fail(message: object, status: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    print(f"launch.py: {one_line(message)}", file=sys.stderr, flush=True)
    return status


def end(status: int) -> NoReturn:
    """Exit; after a signal without waiting for what a device still computes, and one of several
    processes that fails without waiting for the others."""
    if status and processes.process_count() > 1:
        processes.leave(status)
    if status > 128:
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    _open_streams()
    # A file's name need not be UTF-8, and not every terminal shows every character.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    end(run_to_exit_status(main))
