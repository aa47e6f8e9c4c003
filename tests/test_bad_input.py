"""What users get wrong: a ValueError of one sentence that names the argument, its value and what would be right.

The shape annotations are off here: users do not have them, and they would speak up first.
"""

import re
from functools import partial

import pytest
import torch

from memnet import (
    LSTM,
    NTM,
    AdditiveScore,
    Addressing,
    ContentAddressing,
    CosineScore,
    DotScore,
    FeedForwardController,
    GeneralScore,
    GumbelStraightThrough,
    LearnedMemory,
    LearnedWeights,
    LocationAddressing,
    LSTMController,
    MemoryCell,
    MonotonicLocalAddressing,
    PredictiveLocalAddressing,
    ReadAccess,
    ReadWriteAccess,
    ScaledDotScore,
    TopK,
    record,
    unroll,
)
from memnet.checks import check_inputs

pytestmark = pytest.mark.usefixtures("unchecked")


def content(size=4):
    return ContentAddressing(CosineScore(size))


def small_ntm(**settings):
    return NTM(**{"input_size": 3, "output_size": 2, "num_slots": 5, "slot_size": 4} | settings)


def small_access(**settings):
    sizes = {"control_size": 6, "num_slots": 5, "slot_size": 4}
    return ReadWriteAccess(**sizes | {"read_addressing": content(), "write_addressing": content()} | settings)


def sentence(call, *parts):
    """Checks that ``call`` raises a ValueError of one sentence that holds all ``parts``."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(str(part) in message for part in parts), message
    assert message.endswith(".") and "\n" not in message
    assert len(re.findall(r"[.!?] [A-Z]", message)) == 0, "one sentence"


SIZES = [
    (DotScore, {"key_size": 4}),
    (ScaledDotScore, {"key_size": 4}),
    (GeneralScore, {"query_size": 3, "key_size": 4}),
    (AdditiveScore, {"query_size": 3, "key_size": 4}),
    (CosineScore, {"key_size": 4}),
    (TopK, {"k": 2}),
    (LearnedMemory, {"num_slots": 5, "slot_size": 4}),
    (LearnedWeights, {"num_heads": 1, "num_slots": 5}),
    (partial(LocationAddressing, content()), {"num_shifts": 3}),
    (partial(MonotonicLocalAddressing, content()), {"half_window": 3}),
    (partial(PredictiveLocalAddressing, content()), {"half_window": 3}),
    (LSTMController, {"input_size": 3, "hidden_size": 4, "num_layers": 1}),
    (FeedForwardController, {"input_size": 3, "hidden_size": 4, "num_layers": 1}),
    (LSTM, {"input_size": 3, "output_size": 2, "hidden_size": 4, "num_layers": 1}),
    (partial(ReadAccess, content()), {"slot_size": 4, "num_read_heads": 1, "control_size": 6}),
    (
        small_access,
        {"control_size": 6, "num_slots": 5, "slot_size": 4, "num_read_heads": 1, "num_write_heads": 1},
    ),
    (
        lambda **sizes: MemoryCell(FeedForwardController(3 + 4, 6), small_access(), **sizes),
        {"input_size": 3, "output_size": 2},
    ),
    (
        small_ntm,
        {
            "input_size": 3,
            "output_size": 2,
            "num_slots": 5,
            "slot_size": 4,
            "num_read_heads": 1,
            "num_write_heads": 1,
            "num_shifts": 3,
            "checkpoint_every": 2,
        },
    ),
]
EACH_SIZE = [
    pytest.param(make, sizes, name, id=f"{getattr(make, 'func', make).__name__} {name}")
    for make, sizes in SIZES
    for name in sizes
]


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize(("make", "sizes", "name"), EACH_SIZE)
def test_sizes_that_are_not_positive(make, sizes, name, value):
    make(**sizes)  # is fine
    sentence(lambda: make(**sizes | {name: value}), f"{name} is {value}", "at least 1")


@pytest.mark.parametrize("value", [2.0, True, "4", None])
def test_sizes_that_are_not_whole_numbers(value):
    sentence(lambda: DotScore(value), f"key_size is {value!r}", "whole number")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda eps: CosineScore(4, eps), "eps"),
        (GumbelStraightThrough, "temperature"),
        (lambda slots_per_step: MonotonicLocalAddressing(content(), 3, slots_per_step), "slots_per_step"),
    ],
    ids=["eps", "temperature", "slots_per_step"],
)
def test_numbers_that_must_be_greater_than_zero(make, name, value):
    sentence(lambda: make(**{name: value}), f"{name} is {value}", "greater than 0 and finite")


@pytest.mark.parametrize("make", [small_ntm, lambda num_shifts: LocationAddressing(content(), num_shifts)])
def test_even_shift_width(make):
    sentence(lambda: make(num_shifts=4), "num_shifts is 4", "odd")


def test_an_addressing_of_another_key_width():
    sentence(lambda: small_ntm(write_addressing=content(7)), "write_addressing", "key_size is 7", "is 4")
    sentence(lambda: small_ntm(read_addressing=content(7)), "read_addressing", "key_size is 7", "is 4")


def test_starts_of_another_size():
    def location(num_heads, num_slots):
        return LocationAddressing(content(), start=LearnedWeights(num_heads, num_slots))

    sentence(lambda: small_ntm(read_addressing=location(1, 6)), "read_addressing", "start.num_slots is 6", "is 5")
    sentence(lambda: small_ntm(write_addressing=location(2, 5)), "write_addressing", "start.num_heads is 2", "is 1")


@pytest.mark.parametrize(("size", "value", "right"), [("num_slots", 6, 5), ("slot_size", 3, 4)])
def test_a_learned_memory_of_another_size(size, value, right):
    start = LearnedMemory(**{"num_slots": 5, "slot_size": 4} | {size: value})
    sentence(lambda: small_ntm(memory_start=start), f"memory_start.{size} is {value}", f"is {right}")


def test_one_module_on_both_sides():
    both = content()
    sentence(lambda: small_ntm(read_addressing=both, write_addressing=both), "read_addressing", "write_addressing")


class WrongShape(Addressing[None]):
    emit_size = 1

    def forward(self, emission, keys, state, mask=None):
        return keys.new_ones(emission.shape[0], keys.shape[1]), None


def test_an_addressing_that_returns_a_wrong_shape():
    sentence(lambda: small_ntm(read_addressing=WrongShape()), "read_addressing", "(1, 5)", "(1, 1, 5)")


def test_a_controller_for_another_input():
    sentence(lambda: small_ntm(controller=lambda size: LSTMController(9)), "controller.input_size is 9", "is 7")


def test_values_of_another_width():
    access = ReadAccess(ContentAddressing(DotScore(4)), slot_size=3)
    sentence(lambda: access.init_state(torch.zeros(1, 2, 4)), "slot_size is 3", "is 4")


MODELS = {"NTM": small_ntm, "LSTM": lambda: LSTM(3, 2, hidden_size=4, num_layers=1)}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.mark.parametrize("shape", [(2, 3), (3,), (2, 4, 3, 1), (0, 4, 3), (2, 0, 3)])
def test_inputs_of_another_form(model, shape):
    sentence(lambda: model(torch.zeros(shape)), "inputs", str(shape), "(batch, time, inp)")


def test_inputs_of_another_width(model):
    sentence(lambda: model(torch.zeros(2, 4, 5)), "width is 5", "input_size is 3")


def test_large_inputs_are_not_taken_for_infinite_ones():
    """Though their sum is."""
    check_inputs(torch.full((2, 3, 4), 3e38), 4)
    check_inputs(torch.tensor([3e38, 3e38, -3e38, -3e38]).reshape(1, 1, 4), 4)


def test_infinite_inputs_do_not_make_up_for_one_another():
    inputs = torch.tensor([1.0, float("inf"), float("-inf"), 2.0]).reshape(1, 1, 4)
    sentence(lambda: check_inputs(inputs, 4), "inputs holds inf", "(0, 0, 1)", "finite")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_inputs_that_are_not_finite(model, value):
    inputs = torch.zeros(2, 4, 3)
    inputs[1, 2, 0] = value
    sentence(lambda: model(inputs), f"inputs holds {value}", "(1, 2, 0)", "finite")


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        ([4, 5], ["5", "4 time steps"]),
        ([0, 4], ["0", "between 1"]),
        ([4, -1], ["-1", "between 1"]),
        ([4], ["(1,)", "2 sequences"]),
        ([4, 4, 4], ["(3,)", "2 sequences"]),
        ([[4, 4]], ["(1, 2)", "2 sequences"]),
        ([4.0, 2.0], ["torch.float32", "whole numbers"]),
    ],
)
def test_lengths_that_do_not_fit(model, lengths, parts):
    sentence(lambda: model(torch.zeros(2, 4, 3), lengths=torch.tensor(lengths)), "lengths", *parts)


def test_checkpoint_every():
    cell = LSTMController(3, 4)
    sentence(lambda: unroll(cell, torch.zeros(2, 4, 3), checkpoint_every=0), "checkpoint_every is 0", "at least 1")


def test_recording_a_model_without_an_addressing():
    def run():
        with record(LSTM(3, 2)):
            pass

    sentence(run, "model", "LSTM", "Addressing")
