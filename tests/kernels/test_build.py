"""Compiling and caching, tried on a library of one line."""

import ctypes
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from comparing import make, needs_library

from memnet import kernels
from memnet.kernels import build, ntm_cpu

pytestmark = needs_library

ANSWER = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }'

# Without the rest of memnet, whose import takes longer than all of this.
LOAD = f"""
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("build", {build.__file__!r})
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
build.SOURCES = pathlib.Path(sys.argv[1])
print(build.load("answer.cpp").answer())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sources with nothing else in it, and an empty cache beside it."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "answer.cpp").write_text(ANSWER)
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.load.cache_clear()
    yield sources
    build.load.cache_clear()


def libraries() -> list[Path]:
    return sorted(build.cache_folder().glob("*.so"))


def answer() -> int:
    build.load.cache_clear()
    library = build.load("answer.cpp")
    assert isinstance(library, ctypes.CDLL)
    return library.answer()


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(build, "_compile", refuse)


def test_a_library_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert answer() == 42
    assert len(libraries()) == 1
    assert [path.name for path in build.cache_folder().iterdir()] == [libraries()[0].name], "nothing else is left"
    forbid_compiling(monkeypatch)
    assert answer() == 42


def test_another_source_header_or_compiler_is_another_library(folder: Path, monkeypatch: pytest.MonkeyPatch):
    answer()
    (folder / "answer.cpp").write_text(ANSWER.replace("42", "43"))
    assert answer() == 43
    (folder / "other.h").write_text("// new")
    answer()
    monkeypatch.setenv("CXX", build._compiler()[0] + " -O1")
    answer()
    assert len(libraries()) == 4


def test_another_processor_is_another_library(folder: Path, monkeypatch: pytest.MonkeyPatch):
    answer()
    monkeypatch.setattr(build, "_processor", lambda: "another one")
    answer()
    assert len(libraries()) == 2


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[::-1]])
def test_a_damaged_library_is_compiled_again(folder: Path, damage: Callable[[bytes], bytes]):
    with pytest.MonkeyPatch.context() as patch:
        # Not loaded: to damage a library in use is another matter.
        python = ctypes.CDLL(None)
        patch.setattr(ctypes, "CDLL", lambda path: python)
        build.load("answer.cpp")
    (path,) = libraries()
    path.write_bytes(damage(path.read_bytes()))
    assert answer() == 42


def test_a_process_killed_while_compiling_leaves_nothing_that_is_loaded(folder: Path, tmp_path: Path):
    """A compiler that writes half a library and then never ends: only killing helps."""
    slow = tmp_path / "slow"
    slow.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\nfor x; do out=$x; done\necho half > "$out"\n'
        f'echo > "{tmp_path}/started"\nexec sleep 60\n'
    )
    slow.chmod(0o755)
    process = start(folder, CXX=str(slow))
    while not (tmp_path / "started").exists():
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert libraries() == []
    assert answer() == 42


def test_two_processes_may_compile_at_once(folder: Path):
    processes = [start(folder) for _ in range(3)]
    for process in processes:
        output, errors = process.communicate(timeout=100)
        assert output.strip() == "42", errors
    assert len(libraries()) == 1


def start(folder: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(folder)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_cache_folder_that_cannot_be_written_is_said_and_done_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set XDG_CACHE_HOME to a folder that can be written"):
        assert answer() == 42


def one_warning() -> str:
    """Of loading twice."""
    build.load.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert build.load("answer.cpp") is None
        assert build.load("answer.cpp") is None
    (warning,) = caught
    return str(warning.message)


def test_no_compiler_is_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    assert "there is no C++ compiler" in one_warning()


def test_a_compiler_that_is_not_there_is_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX names 'no-such-compiler'" in one_warning()


def test_a_source_that_does_not_compile_is_one_warning(folder: Path):
    (folder / "answer.cpp").write_text("int answer() { return nothing; }")
    assert "could not compile answer.cpp" in one_warning()
    assert libraries() == []


def test_without_a_library_the_plain_loop_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model, inputs = make(), torch.randn(2, 3, 4)
    expected, _ = model(inputs)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    build.load.cache_clear()
    try:
        with pytest.warns(UserWarning, match="without its compiled kernels"):
            outputs, _ = model(inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(inputs)
        assert kernels.find(model.cell, inputs, model.cell.init_state(2)) is None
    finally:
        build.load.cache_clear()
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)


def test_the_kernel_compiles_without_instructions_of_this_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As for an older or another processor: narrower vectors, and no fused operations."""
    monkeypatch.setattr(build, "_PROCESSOR_FLAGS", ([],))
    monkeypatch.setattr(build, "_FLAGS", [flag.replace("-O3", "-O1") for flag in build._FLAGS])  # half the time
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, inputs = make(20, 5), torch.randn(3, 4, 4)
    expected, _ = model(inputs)
    build.load.cache_clear()
    try:
        assert build.load(ntm_cpu.SOURCE) is not None
        outputs, _ = model(inputs)
    finally:
        build.load.cache_clear()
    assert len(list((tmp_path / "memnet" / "kernels").glob("*.so"))) == 1
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
