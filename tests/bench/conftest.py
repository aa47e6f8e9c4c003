"""Benchmarks that take no time, and a folder to put new ones into."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memnet.__main__ import main
from memnet.bench import Settings, benchmarks


@pytest.fixture
def settings() -> Settings:
    """As short as can be: every way is measured once."""
    return Settings(seconds=1e-9, threads=1)


@pytest.fixture
def exit_code() -> Callable[..., Any]:
    """Runs the command; returns None when it came to its end, else its exit code."""

    def run(*arguments: str) -> Any:
        try:
            return main(["bench", *arguments])
        except SystemExit as error:
            return error.code

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that benchmarks are found in, empty."""
    known = set(sys.modules)
    path = tmp_path / "benchmarks"
    path.mkdir()
    monkeypatch.setattr(benchmarks, "__path__", [str(path)])
    yield path
    for name in set(sys.modules) - known:
        if name.startswith(f"{benchmarks.__name__}."):
            del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path
