"""The GPU's kernels for the Neural Turing Machine where there is no GPU: interpreted, compiled, and stepped aside."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import CONTROLLERS, make

from memnet import kernels
from memnet.kernels import ntm_cpu, ntm_cuda, ntm_cuda_passes
from memnet.kernels.ntm_cell import CellSizes
from memnet.kernels.ntm_cuda_sizes import Sizes

needs_triton = pytest.mark.skipif(
    not ntm_cuda._has_triton(), reason="Triton is not installed; it comes with PyTorch for CUDA"
)

HOPPER = 90
"""The compute capability of an H100, whose machine code Triton makes on any machine."""

SIZES = {
    "copy task": CellSizes(9, 8, 128, 20, 1, 1, 3, 100, 1, True),
    "many heads": CellSizes(9, 8, 30, 20, 3, 2, 7, 65, 2, False),
}


@needs_triton
def test_under_the_interpreter_the_kernels_equal_the_plain_loop():
    """All of ``ntm_interpreted.py``."""
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "ntm_interpreted.py"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


@needs_triton
@pytest.mark.parametrize(
    ("name", "cell"), [("forward", "copy task"), ("backward", "copy task"), ("backward", "many heads")]
)
def test_the_kernels_compile(name: str, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = Sizes(SIZES[cell], clip=cell == "many heads")
    compiled = compile_for_hopper(name, sizes.of_forward(True) if name == "forward" else sizes.of_backward())
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 48 * 1024, "more needs a permission of its own"
    assert "bar.sync" in compiled.asm["ptx"]
    if SIZES[cell].width % 4 == 0:
        assert "ld.global.v4" in compiled.asm["ptx"], "weights and memory are loaded 16 bytes at a time"


def compile_for_hopper(name: str, options: dict[str, Any]) -> Any:
    """As Triton does at the first launch, for pointers that begin on 16 bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = ntm_cuda_passes._kernel(name)
    whole = {"batch", "time", "rows", "emission_rows", "segment"}
    real = {"norm_eps", "weight_eps", "most"}
    signature, aligned = {}, {}
    for place, parameter in enumerate(kernel.params):
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
        elif parameter.name in whole | real:
            signature[parameter.name] = "i32" if parameter.name in whole else "fp32"
        else:
            signature[parameter.name] = "*i64" if parameter.name == "lengths" else "*fp32"
            aligned[place,] = [["tt.divisibility", 16]]
    constants = {(kernel.arg_names.index(key),): value for key, value in options.items() if key != "num_warps"}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", HOPPER, 32), options={"num_warps": options["num_warps"]})


def find(model: Any, **shape: int) -> Any:
    inputs = torch.randn(shape.get("batch", 2), 3, 4)
    return kernels.find(model.cell, inputs, model.cell.init_state(len(inputs)))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The GPU's kernels are asked about tensors on the CPU, as if Triton were there and nothing tried yet."""
    monkeypatch.setattr(ntm_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(ntm_cuda, "_tried", {})
    monkeypatch.setattr(ntm_cuda, "_has_triton", lambda: True)
    monkeypatch.setattr(ntm_cpu, "fits", lambda *arguments: False)
    return monkeypatch


def test_without_triton_the_plain_loop_runs_and_nothing_is_said(here: pytest.MonkeyPatch):
    here.setattr(ntm_cuda, "_has_triton", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find(make()) is None


def test_a_kernel_that_does_not_run_is_one_warning_and_the_plain_loop(here: pytest.MonkeyPatch):
    def fail(name: str) -> Any:
        raise RuntimeError("out of resource: shared memory\nand more")

    here.setattr(ntm_cuda_passes, "_kernel", fail)
    model, inputs = make(), torch.randn(2, 3, 4)
    with pytest.warns(UserWarning, match="without its GPU kernel.*RuntimeError: out of resource: shared memory. MEM"):
        outputs, _ = model(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, _ = model(inputs)
    with kernels.disabled():
        expected, _ = model(inputs)
    assert torch.equal(outputs, expected) and torch.equal(again, expected)


def test_an_old_gpu_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "An Old GPU")
    reason = ntm_cuda._failure(Sizes(SIZES["copy task"], False), torch.device("cuda", 0))
    assert reason == "An Old GPU is older than compute capability 7.0"


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"num_slots": 512, "slot_size": 32}, True),
        ({"num_slots": 513, "slot_size": 32}, False),
        ({"num_slots": 512, "slot_size": 33}, False),
        ({"num_shifts": 63}, True),
        ({"num_shifts": 65}, False),
        ({"num_read_heads": 3, "num_write_heads": 2, "controller": CONTROLLERS["feed-forward-2"]}, True),
    ],
)
def test_which_sizes_are_taken(options: dict[str, Any], fits: bool, here: pytest.MonkeyPatch):
    here.setattr(ntm_cuda, "_works", lambda sizes, device: True)
    assert (find(make(**options)) is ntm_cuda.run) == fits


def test_half_precision_another_device_and_the_switch_take_the_plain_loop(here: pytest.MonkeyPatch):
    here.setattr(ntm_cuda, "_works", lambda sizes, device: True)
    model = make()
    assert find(model) is ntm_cuda.run
    with torch.autocast("cpu", torch.bfloat16):
        assert find(model) is None
    here.setenv("MEMNET_KERNELS", "0")
    assert find(model) is None
    here.delenv("MEMNET_KERNELS")
    state = model.cell.init_state(2)
    assert kernels.find(model.cell, torch.randn(2, 3, 4, dtype=torch.bfloat16), state) is None
    assert kernels.find(model.cell, torch.randn(2, 3, 4, device="meta"), state) is None
    here.setattr(ntm_cuda, "DEVICE", "cuda")
    assert find(model) is None


def test_the_pieces_are_powers_of_2_and_fit_a_program():
    for cell in SIZES.values():
        sizes = Sizes(cell, False)
        forward, backward = sizes.of_forward(True), sizes.of_backward()
        blocks = [v for of in (forward, backward) for k, v in of.items() if k.endswith(("BLOCK", "ROWS", "COLUMNS"))]
        assert blocks and all(block & (block - 1) == 0 for block in blocks)
        assert forward["SLOT_BLOCK"] >= cell.slots and forward["WIDTH_BLOCK"] >= cell.width
        most = sizes.warps * 32 * 16
        assert forward["ROWS"] * forward["COLUMNS"] * (4 if cell.lstm else 1) <= most
        assert backward["ROWS"] * backward["COLUMNS"] <= most
