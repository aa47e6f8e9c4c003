"""The conformance suite over every public scheme of the package; the first test fails when one is missing."""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_example import RecencyAddressing

import memnet
from memnet import (
    DNC,
    MANN,
    NTM,
    SAM,
    AdditiveScore,
    Addressing,
    AllocationAddressing,
    Cell,
    ConstantMemory,
    ContentAddressing,
    CosineScore,
    DotScore,
    Entmax15,
    FeedForwardController,
    FirstSlot,
    GeneralScore,
    GumbelStraightThrough,
    Hard,
    HardAddressing,
    LateSoftmax,
    LearnedMemory,
    LearnedWeights,
    LeastUsedAddressing,
    LinkAddressing,
    LocationAddressing,
    LSTMController,
    MaskedCosineScore,
    MemoryCell,
    MemoryStart,
    MonotonicLocalAddressing,
    NormalizedController,
    Normalizer,
    PredictiveLocalAddressing,
    RandomMemory,
    ReadWriteAccess,
    ScaledDotScore,
    Score,
    SlotGate,
    Softmax,
    Sparsemax,
    TopK,
    WeightsStart,
)
from memnet.models.multihead import BiasedContentAddressing
from memnet.testing import check_addressing, check_cell
from memnet.testing.addressing import Role

BASES = (Addressing, Score, Normalizer, WeightsStart, MemoryStart, Cell)


def late_softmax() -> LateSoftmax:
    """Once it is in; before that there are no weights that could keep a promise."""
    softmax = LateSoftmax()
    softmax.insert()
    return softmax


SCORES: dict[type[Score], Callable[[int], Score]] = {
    DotScore: DotScore,
    ScaledDotScore: ScaledDotScore,
    GeneralScore: partial(GeneralScore, 4),
    AdditiveScore: partial(AdditiveScore, 4),
    CosineScore: CosineScore,
    MaskedCosineScore: MaskedCosineScore,
}
NORMALIZERS: dict[type[Normalizer], Callable[[], Normalizer]] = {
    Softmax: Softmax,
    Sparsemax: Sparsemax,
    Entmax15: Entmax15,
    TopK: partial(TopK, 2),
    Hard: Hard,
    GumbelStraightThrough: GumbelStraightThrough,
    LateSoftmax: late_softmax,
}
# Content addressing with each score and each normalizer, and everything else that addresses.
BY_NORMALIZER: dict[str, Callable[[int], Addressing]] = {
    normalizer.__name__: lambda size, make=make: ContentAddressing(DotScore(size), make())
    for normalizer, make in NORMALIZERS.items()
}
CONTENT: dict[str, Callable[[int], Addressing]] = {
    **{score.__name__: lambda size, make=make: ContentAddressing(make(size)) for score, make in SCORES.items()},
    **BY_NORMALIZER,
}
ADDRESSINGS: dict[type[Addressing], dict[str, Callable[[int], Addressing]]] = {
    ContentAddressing: CONTENT,
    BiasedContentAddressing: {"no bias": lambda size: BiasedContentAddressing(DotScore(size))},
    LocationAddressing: {
        **{name: lambda size, make=make: LocationAddressing(make(size)) for name, make in CONTENT.items()},
        "five shifts": lambda size: LocationAddressing(ContentAddressing(CosineScore(size)), num_shifts=5),
        "location twice": lambda size: LocationAddressing(LocationAddressing(ContentAddressing(DotScore(size)))),
        "around the plug-in": lambda size: LocationAddressing(RecencyAddressing(CosineScore(size))),
        "around least used": lambda size: LocationAddressing(LeastUsedAddressing(0.5)),
    },
    HardAddressing: {
        **{score.__name__: lambda size, make=make: HardAddressing(make(size)) for score, make in SCORES.items()},
        "at test": lambda size: HardAddressing(DotScore(size)).eval(),
    },
    MonotonicLocalAddressing: {
        **{
            name: lambda size, make=make: MonotonicLocalAddressing(make(size), 2)
            for name, make in BY_NORMALIZER.items()
        },
        "half a slot a step": lambda size: MonotonicLocalAddressing(ContentAddressing(DotScore(size)), 1, 0.5),
        "around hard": lambda size: MonotonicLocalAddressing(HardAddressing(DotScore(size)), 2),
        "around location": lambda size: MonotonicLocalAddressing(
            LocationAddressing(ContentAddressing(DotScore(size))), 2
        ),
    },
    PredictiveLocalAddressing: {
        **{
            name: lambda size, make=make: PredictiveLocalAddressing(make(size), 2)
            for name, make in CONTENT.items()
            if name in ("Softmax", "Sparsemax", "GumbelStraightThrough", "AdditiveScore")
        },
        "around hard": lambda size: PredictiveLocalAddressing(HardAddressing(DotScore(size)), 2),
        "around the plug-in": lambda size: PredictiveLocalAddressing(RecencyAddressing(CosineScore(size)), 1),
    },
    LeastUsedAddressing: {"of the paper": lambda size: LeastUsedAddressing()},
    AllocationAddressing: {
        "DNC's": lambda size: AllocationAddressing(ContentAddressing(CosineScore(size)), 2),
        "erasing": lambda size: AllocationAddressing(
            ContentAddressing(DotScore(size), Sparsemax()), 2, erase_freed=True
        ),
    },
    LinkAddressing: {
        "DNC's": lambda size: LinkAddressing(ContentAddressing(CosineScore(size)), 2),
        "sharp": lambda size: LinkAddressing(ContentAddressing(DotScore(size), Sparsemax()), 2, sharpen=True),
        "around location": lambda size: LinkAddressing(LocationAddressing(ContentAddressing(DotScore(size))), 2),
    },
    SlotGate: {score.__name__: lambda size, make=make: SlotGate(make(size)) for score, make in SCORES.items()},
    RecencyAddressing: {"the plug-in": lambda size: RecencyAddressing(CosineScore(size))},
}
# Made for one side of a memory, with two heads on the other one.
ROLES: dict[type[Addressing], list[Role]] = {AllocationAddressing: ["write"], LinkAddressing: ["read"]}
WEIGHTS_STARTS: dict[type[WeightsStart], Callable[[int, int], WeightsStart]] = {
    FirstSlot: lambda num_heads, num_slots: FirstSlot(),
    LearnedWeights: LearnedWeights,
}
MEMORY_STARTS: dict[type[MemoryStart], Callable[[int, int], MemoryStart]] = {
    ConstantMemory: lambda num_slots, slot_size: ConstantMemory(),
    LearnedMemory: LearnedMemory,
    RandomMemory: lambda num_slots, slot_size: RandomMemory(),
}


def ntm(**settings: Any) -> Cell:
    return NTM(3, 2, num_slots=6, slot_size=4, controller=partial(LSTMController, hidden_size=5), **settings).cell


def small(network: Any, **settings: Any) -> Cell:
    return network(3, 2, num_slots=6, slot_size=4, controller=partial(LSTMController, hidden_size=5), **settings).cell


def plain_memory_cell() -> Cell:
    access = ReadWriteAccess(5, *(ContentAddressing(CosineScore(4)) for _ in range(2)), num_slots=6, slot_size=4)
    return MemoryCell(FeedForwardController(7, 5), access, 3, 2)


CELLS: dict[type[Cell], dict[str, Callable[[], Cell]]] = {
    LSTMController: {"one layer": partial(LSTMController, 3, 4), "two layers": partial(LSTMController, 3, 4, 2)},
    FeedForwardController: {"two layers": partial(FeedForwardController, 3, 4, 2)},
    NormalizedController: {"LSTM": partial(NormalizedController, 3, partial(LSTMController, hidden_size=4))},
    MemoryCell: {
        "NTM": ntm,
        "NTM with several heads": partial(ntm, num_read_heads=2, num_write_heads=3, num_shifts=5),
        "DNC": lambda: small(DNC, num_read_heads=2),
        "DNC with the fixes": lambda: small(
            DNC, num_read_heads=2, num_write_heads=2, mask_content=True, erase_freed=True, sharpen_links=True
        ),
        "DNC with bypass dropout at test": lambda: small(DNC, bypass_dropout=0.5).eval(),
        "without a state but the memory": plain_memory_cell,
        "MANN": lambda: small(MANN, num_heads=2),
        "SAM": lambda: small(SAM, num_reads=3),
        "SAM with several heads": lambda: small(SAM, num_reads=2, num_heads=3),
        "SAM with links": lambda: small(SAM, num_reads=3, links=True),
        "SAM with links and several heads": lambda: small(SAM, num_reads=2, num_heads=2, links=True),
        **{
            start.__name__: lambda make=make: ntm(memory_start=make(num_slots=6, slot_size=4))
            for start, make in MEMORY_STARTS.items()
        },
    },
}
TABLES = (ADDRESSINGS, SCORES, NORMALIZERS, WEIGHTS_STARTS, MEMORY_STARTS, CELLS)


def public_schemes() -> set[type]:
    """Every concrete class in the package, wherever it stands, that a test in this file has to cover."""
    found = set()
    root = Path(memnet.__file__).parent
    for path in root.rglob("*.py"):
        module = ".".join(["memnet", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
        # Lightning, the command line, and what only a GPU runs, which imports Triton.
        if module.startswith(("memnet.training", "memnet.__main__", "memnet.kernels.ntm_triton")):
            continue
        for name, value in vars(importlib.import_module(module)).items():
            own = inspect.isclass(value) and value.__module__.startswith("memnet") and not name.startswith("_")
            if own and issubclass(value, BASES) and not inspect.isabstract(value):
                found.add(value)
    return found


def cases(table: dict[type, dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(scheme, make, id=f"{scheme.__name__}: {name}")
        for scheme, makes in table.items()
        for name, make in makes.items()
    ]


def test_every_public_scheme_is_in_a_table():
    covered = {scheme for table in TABLES for scheme in table}
    missing = public_schemes() - covered
    assert not missing, f"without conformance checks: {sorted(scheme.__name__ for scheme in missing)}"
    assert len(public_schemes()) >= 20  # that the walk finds anything at all


@pytest.mark.parametrize(("scheme", "make"), cases(ADDRESSINGS))
def test_addressing(scheme, make):
    assert type(make(5)) is scheme
    modules = list(make(5).modules())
    straight_through = any(isinstance(module, Hard | GumbelStraightThrough) for module in modules)
    samples = any(isinstance(module, HardAddressing | GumbelStraightThrough) and module.training for module in modules)
    roles = ROLES.get(scheme, ["read", "write"])
    check_addressing(make, roles=roles, differentiable=not straight_through, stochastic=samples)


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
@pytest.mark.parametrize("make", WEIGHTS_STARTS.values(), ids=lambda make: getattr(make, "__name__", "FirstSlot"))
def test_weights_start(make, slots):
    check_addressing(
        lambda size: LocationAddressing(ContentAddressing(CosineScore(size)), start=make(2, slots)),
        num_slots=[slots],
        num_heads=[2],
    )


@pytest.mark.parametrize(("scheme", "make"), cases(CELLS))
def test_cell(scheme, make):
    assert type(make()) is scheme
    check_cell(make)


@pytest.mark.parametrize(("scheme", "make"), MEMORY_STARTS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_memory_start_has_the_asked_form(scheme, make):
    start = make(num_slots=6, slot_size=4)
    assert type(start) is scheme
    memory = start(2, 6, 4, like=torch.zeros(1, dtype=torch.float64) if scheme is not LearnedMemory else torch.zeros(1))
    assert memory.shape == (2, 6, 4)
    assert torch.isfinite(memory).all()
    assert memory.dtype == (torch.float32 if scheme is LearnedMemory else torch.float64)
