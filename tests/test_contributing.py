"""The new memory that CONTRIBUTING.md makes in 40 lines works, and is as short as it says."""

import re
from pathlib import Path

import pytest
import torch

import memnet
from memnet import Addressing

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
SECTION = TEXT[TEXT.index("## A new memory in 40 lines") :].split("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """Everything that the section defines, its blocks run one after the other."""
    found = {}
    for block in BLOCKS:
        exec(compile(block, "CONTRIBUTING.md", "exec"), found)
    return found


def test_the_scheme_is_new_and_takes_40_lines(names):
    scheme = names["AgeAddressing"]
    assert issubclass(scheme, Addressing) and not hasattr(memnet, "AgeAddressing")
    assert len(BLOCKS[0].splitlines()) <= 40


def test_it_keeps_the_interfaces_promises(names):
    names["test_age_addressing"]()


def test_a_slot_is_found_by_its_age(names):
    """Slots 2, 0 and 1 of four are written, in this order; the write before the last was to slot 0."""
    scheme = names["AgeAddressing"]()
    state = scheme.init_state(torch.zeros(1, 4, 3), 1)
    for slot in (2, 0, 1):
        state = scheme.after_write(torch.eye(4)[None, slot : slot + 1], state)
    assert state.age.tolist() == [[2, 1, 3, 7]]  # nothing was written to slot 3, which began as of age 4
    for age, slot in {1: 1, 2: 0, 3: 2, 7: 3}.items():
        weights, _ = scheme(torch.tensor([[[float(age), 30.0]]]).expm1().log(), torch.zeros(1, 4, 3), state)
        assert weights[0, 0, slot] > 0.99


def test_a_model_trains_with_it(names):
    model, trace = names["model"], names["trace"]
    assert trace["cell.access.read_addressing"].shape == (2, 5, 1, 16)
    inputs, targets = torch.randint(0, 2, (4, 6, 9)).float(), torch.randint(0, 2, (4, 6, 8)).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(inputs)[0], targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    write_emission, read_emission = model.cell.access.interface.weight.grad[:4].split(2)
    assert (write_emission.abs().sum(1) > 0).all() and (read_emission.abs().sum(1) > 0).all()
