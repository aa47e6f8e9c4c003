"""Every example in a docstring runs and gives what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

import memnet
import tasks


def modules():
    for package in (memnet, tasks):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            parts = [package.__name__, *path.relative_to(root).with_suffix("").parts]
            yield ".".join(parts).removesuffix(".__init__")


# The GPU's kernels import Triton, which need not be there.
NO_EXAMPLES = ("memnet.__main__", "memnet.kernels.ntm_triton")


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith(NO_EXAMPLES)])
def test_docstring_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder()
    examples = [test for test in finder.find(memnet.models.ntm) + finder.find(memnet.recording) if test.examples]
    assert len(examples) >= 2
