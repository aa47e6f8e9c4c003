"""What ``import memnet`` brings along."""

import subprocess
import sys

import memnet


def test_memnet_needs_neither_lightning_nor_wandb():
    """In a fresh interpreter: every module of the package outside ``training``, not only the public names.

    But those of the GPU's kernels, which import Triton and are imported when a GPU is used, and that of the benchmarks'
    pictures, which is imported when one is drawn.
    """
    code = """
import importlib, pathlib, sys
import memnet
root = pathlib.Path(memnet.__file__).parent
for path in root.rglob("*.py"):
    name = ".".join(["memnet", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
    apart = ("memnet.training", "memnet.__main__", "memnet.kernels.ntm_triton", "memnet.bench.pictures")
    if not name.startswith(apart):
        importlib.import_module(name)
heavy = {"pytorch_lightning", "lightning", "lightning_fabric", "wandb", "jsonargparse", "matplotlib", "rich", "faiss"}
print(*sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_public_names_exist_and_are_documented():
    for name in memnet.__all__:
        public = getattr(memnet, name)
        assert public.__module__.startswith("memnet.")
        assert public.__doc__
