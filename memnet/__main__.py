"""The ``memnet`` command. What is imported here is little, so that ``memnet --help`` answers at once."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "fit": ("memnet.training.cli:run", "train a network on a task"),
    "validate": ("memnet.training.cli:run", "measure a checkpoint on the validation set"),
    "test": ("memnet.training.cli:run", "measure a checkpoint on the test sets, beside published numbers"),
    "predict": ("memnet.training.cli:run", "print examples and a checkpoint's answers to them"),
    "plot": ("memnet.training.plotting:run", "draw what a checkpoint answers, reads and writes"),
    "reproduce": ("memnet.training.reproduce:run", "run a row of RESULTS.md again and say whether it holds"),
    "bench": ("memnet.bench.cli:run", "measure speed and memory, as ratios of one run"),
}

HELP = """\
usage: memnet COMMAND [options]

Memory-augmented neural networks: train them, measure them, look inside them.

commands
{commands}

typical use
  memnet fit --config configs/ntm_copy.yaml
  memnet fit --config configs/ntm_copy.yaml --model.optimizer.lr 3e-4
  memnet fit --config configs/ntm_copy.yaml --wandb true
  memnet fit --config RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt
  memnet test --ckpt_path RUN/checkpoints/best.ckpt
  memnet plot RUN/checkpoints/best.ckpt
  memnet bench ntm

A RUN is a folder runs/<name of the config>/version_<N>, never overwritten.

options
  -h, --help     this text; memnet COMMAND --help lists a command's options
  --version      the version
  --debug        full traceback in place of a one-sentence error
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: what follows ``memnet``; the program's own arguments by default.

    Raises:
        SystemExit: with 1 when the command failed, 2 when it was not understood, 130 on Ctrl-C, 143 on SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get("MEMNET_DEBUG"))
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS)) + 4
        commands = "\n".join(f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items())
        print(HELP.format(commands=commands), end="")
        if not words:
            sys.exit(2)
        return
    if words[0] == "--version":
        from memnet import __version__

        print(f"memnet {__version__}")
        return
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it must be one of {', '.join(COMMANDS)}."
        _fail(f"there is no command {words[0]}; {hint}", 2)
    try:
        module, function = COMMANDS[words[0]][0].split(":")
        getattr(importlib.import_module(module), function)(words)
    except KeyboardInterrupt:
        _fail("interrupted.", 130)
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _report(error)


def _report(error: Exception) -> None:
    expected = (ValueError, OSError)
    foreign = ("MisconfigurationException", "OutOfMemoryError", "CommError", "AuthenticationError")
    # Anything else is a defect, and then the traceback is what helps.
    if not isinstance(error, expected) and type(error).__name__ not in foreign:
        raise error
    _fail(" ".join(str(error).split()), getattr(error, "exit_code", 1))


def _fail(message: str, code: int) -> None:
    print(f"memnet: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
