"""Where the kernels' threads come from. Each test is a process of its own, because threads are a process's."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from comparing import needs_library

from memnet.kernels import build

pytestmark = needs_library

# More than two threads' worth of work; 17 matrices that three threads have to share.
STEP = """
import ctypes, torch
from memnet.kernels import link_cpu
given = [torch.rand(17, 1, 300, 300), *(torch.rand(17, 1, 300).softmax(-1) for _ in range(3))]
assert link_cpu.fits(*given)
torch.set_num_threads(1)
alone = link_cpu.step(*given)
torch.set_num_threads(3)
torch.rand(10**6).exp()
"""

COUNTING = """
#include <dlfcn.h>
static int calls = 0;
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT int count_of_calls() { return calls; }
EXPORT void GOMP_parallel(void (*function)(void*), void* data, unsigned threads, unsigned flags) {
  calls += threads == 3;
  ((decltype(&GOMP_parallel))dlsym(RTLD_NEXT, "GOMP_parallel"))(function, data, threads, flags);
}
"""


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", STEP + program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="put in front of the OpenMP library as Linux does it")
def test_threads_are_those_that_torch_computes_with(tmp_path: Path):
    """Others would share the processors with torch's, which wait for work by spinning."""
    source, library = tmp_path / "counting.cpp", tmp_path / "counting.so"
    source.write_text(COUNTING)
    subprocess.run([*build._compiler(), "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    said = run(
        """
calls = ctypes.CDLL(None).count_of_calls
before = calls()
torch.rand(10**6).exp()
assert calls() > before, "torch computes with another OpenMP"
before = calls()
together = link_cpu.step(*given)
print(calls() - before, all(torch.equal(x, y) for x, y in zip(alone, together)))
""",
        LD_PRELOAD=str(library),
    )
    assert said.split() == ["1", "True"]


def test_without_openmp_the_kernels_have_threads_of_their_own(tmp_path: Path):
    compiler = shlex.join([*build._compiler(), "-DMEMNET_OWN_THREADS"])
    said = run(
        "print(all(torch.equal(x, y) for x, y in zip(alone, link_cpu.step(*given))))",
        CXX=compiler,
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert said.split() == ["True"]
