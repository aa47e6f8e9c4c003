"""What the README shows is what happens."""

import re
import shlex
from pathlib import Path

import pytest

from memnet.__main__ import COMMANDS
from memnet.testing import check_addressing

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.split("\n")[-2][:30])
def test_python_runs(code):
    exec(compile(code, "README.md", "exec"), {})


def test_its_own_addressing_keeps_the_promises():
    found = {}
    (code,) = [code for code in PYTHON if "class Tape" in code]
    exec(compile(code, "README.md", "exec"), found)
    check_addressing(lambda key_size: found["Tape"]())


def test_the_two_setup_commands_are_there():
    assert "pip install -e . && memnet fit --config configs/ntm_copy.yaml" in SHELL
    assert "pip install -e '.[test]' && pytest" in SHELL


@pytest.mark.parametrize("line", [line for line in SHELL if "memnet " in line])
def test_commands_and_files_exist(line):
    words = shlex.split(line[line.index("memnet ") :], comments=True)
    assert words[1] in COMMANDS
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()


def test_the_table_of_experiments_is_that_of_the_folder():
    section = README[README.index("## Experiments") :].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    named = set(re.findall(r"`(\w+)`", "".join(rows)))
    assert named == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
