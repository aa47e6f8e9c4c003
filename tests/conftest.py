"""What every test file shares. Tests run with the shape annotations of memnet checked (see pyproject.toml)."""

import inspect
from collections.abc import Iterator

import jaxtyping
import pytest
import torch

# Two pytest workers share two cores; on tensors this small more threads only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _functions_that_can_be_compiled() -> Iterator[None]:
    """torch.compile looks through the shape checks of functions, which only tests have, but not of a Function's."""
    from memnet import functional  # not before its shapes are checked

    own = functional._BoundGradient
    with pytest.MonkeyPatch.context() as patch:
        for name in ("forward", "setup_context", "backward"):
            patch.setattr(own, name, staticmethod(inspect.unwrap(getattr(own, name))))
        yield


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns the shape annotations off, as they are for users, who must get our own sentence instead."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
