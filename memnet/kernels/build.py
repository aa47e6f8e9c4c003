"""Compiles the C++ of this folder once and loads it.

The library lies in the user's cache folder under a name made of everything it depends on and of its own contents, so
that a stale, foreign or damaged one is never loaded; it is written under another name first and then moved, so that
processes that compile at once, or are killed while they do, leave nothing half-made.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

SOURCES = Path(__file__).parent

# Not -ffast-math: NaN must stay NaN.
_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-pthread",
]
# What "for this very processor" is called: on x86 and most compilers, on some ARM ones, not at all.
_PROCESSOR_FLAGS: tuple[list[str], ...] = (["-march=native"], ["-mcpu=native"], [])

_temporary_folders: list[tempfile.TemporaryDirectory[str]] = []  # kept until the process ends


class BuildError(Exception):
    """Why there is no library; one sentence."""


@functools.lru_cache
def load(source: str) -> ctypes.CDLL | None:
    """The library of one C++ file of this folder, compiled if need be.

    Args:
        source: file name, e.g. ``"ntm_cpu.cpp"``.

    Returns:
        None, after one warning, where it cannot be had.
    """
    try:
        return _load(source)
    except BuildError as error:
        warnings.warn(
            f"memnet runs without its compiled kernels, many times slower: {error} "
            "(MEMNET_KERNELS=0 in the environment silences this.)",
            stacklevel=2,
        )
        return None


def cache_folder() -> Path:
    """Where libraries are kept: below ``XDG_CACHE_HOME`` if that is set, else below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "memnet" / "kernels"


def _load(source: str) -> ctypes.CDLL:
    compiler = _compiler()
    stem = f"{Path(source).stem}-{_key(source, compiler)}"
    folder = cache_folder()
    for path in folder.glob(f"{stem}-*.so"):
        if path.name == _name(stem, path.read_bytes()):
            return ctypes.CDLL(str(path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _compile(source, compiler, stem, folder)
    except OSError as error:
        warnings.warn(
            f"memnet compiles its kernels for this process only, because it cannot keep them in {folder} ({error}); "
            "set XDG_CACHE_HOME to a folder that can be written.",
            stacklevel=4,
        )
        _temporary_folders.append(tempfile.TemporaryDirectory(prefix="memnet-"))
        path = _compile(source, compiler, stem, Path(_temporary_folders[-1].name))
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the compiled library cannot be loaded ({error}).") from error


def _compiler() -> list[str]:
    chosen = os.environ.get("CXX")
    candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    for candidate in candidates:
        if candidate and shutil.which(candidate[0]):
            return candidate
    wanted = f"CXX names {chosen!r}, which is not there" if chosen else "there is no C++ compiler (c++, g++ or clang++)"
    raise BuildError(f"{wanted}; install one, or name one in the environment variable CXX.")


def _key(source: str, compiler: Sequence[str]) -> str:
    """Everything that the machine code depends on."""
    parts = [*compiler, _version(compiler), *_FLAGS, _processor()]
    parts += [path.read_text() for path in (SOURCES / source, *sorted(SOURCES.glob("*.h")))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _version(compiler: Sequence[str]) -> str:
    try:
        return subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"the compiler {shlex.join(compiler)} does not run ({error}).") from error


def _processor() -> str:
    """Model and instruction sets: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    names = ("model name", "flags", "Features", "CPU part")
    described = {line.split(":")[0].strip(): line for line in lines if line.split(":")[0].strip() in names}
    return "\n".join([platform.machine(), *described.values()])


def _name(stem: str, library: bytes) -> str:
    return f"{stem}-{hashlib.sha256(library).hexdigest()[:16]}.so"


def _compile(source: str, compiler: Sequence[str], stem: str, folder: Path) -> Path:
    """Leaves a library in ``folder``.

    Raises:
        OSError: ``folder`` cannot be written.
        BuildError: the compiler refuses.
    """
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=folder) as scratch:
        built = Path(scratch) / "library.so"
        complaint = ""
        for arguments in _command_lines(source, compiler, built):
            try:
                done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
            except (OSError, subprocess.SubprocessError) as error:
                raise BuildError(f"the compiler {shlex.join(compiler)} does not run ({error}).") from error
            if done.returncode == 0 and built.exists():
                path = folder / _name(stem, built.read_bytes())
                os.replace(built, path)
                return path
            complaint = complaint or done.stderr.strip()
    first_error = next((line for line in complaint.splitlines() if "error" in line), complaint[:200])
    raise BuildError(f"{shlex.join(compiler)} could not compile {source}: {first_error}")


def _command_lines(source: str, compiler: Sequence[str], built: Path) -> Iterator[list[str]]:
    for processor in _PROCESSOR_FLAGS:
        yield [*compiler, *_FLAGS, *processor, str(SOURCES / source), "-o", str(built)]
