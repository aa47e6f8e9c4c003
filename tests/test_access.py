"""One step of a memory: the order of its calls, and what is read and written."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import memnet
from memnet import (
    Addressing,
    ConstantMemory,
    ContentAddressing,
    DotScore,
    LocationAddressing,
    ReadAccess,
    ReadWriteAccess,
)


class FixedSlot(Addressing[None]):
    """Every head looks at one slot, whatever it emits."""

    def __init__(self, slot: int):
        super().__init__()
        self.slot = slot

    @property
    def emit_size(self) -> int:
        return 1

    def forward(self, emission, keys, state, mask=None):
        weights = keys.new_zeros(*emission.shape[:2], keys.shape[1])
        weights[..., self.slot] = 1
        return weights, None


class UsageState(NamedTuple):
    usage: Tensor  # (batch, slot)
    written: Tensor  # (batch, slot): how much of the slot the last step's write heads wrote
    read_weights: Tensor  # (batch, read head, slot) of the last step


class Usage(Addressing[UsageState]):
    """The usage of DNC allocation (Graves et al. 2016), a write addressing that *read* heads' free gates act on.

    Notes every call in ``calls``, which tests share between the two sides of a memory.
    """

    def __init__(self, name: str, calls: list, num_read_heads: int):
        super().__init__()
        self.name, self.calls, self.num_read_heads = name, calls, num_read_heads

    @property
    def emit_size(self) -> int:
        return 3

    @property
    def shared_emit_size(self) -> int:
        return self.num_read_heads

    def init_state(self, keys, num_heads):
        nothing = keys.new_zeros(keys.shape[:2])
        return UsageState(nothing, nothing, keys.new_zeros(keys.shape[0], self.num_read_heads, keys.shape[1]))

    def before_step(self, shared_emission, state):
        self.calls.append((self.name, "before_step", shared_emission.clone()))
        usage, written = state.usage, state.written
        retention = (1 - shared_emission.sigmoid()[:, :, None] * state.read_weights).prod(1)
        return state._replace(usage=(usage + written - usage * written) * retention)

    def forward(self, emission, keys, state, mask=None):
        self.calls.append((self.name, "forward", keys.clone()))
        return (emission.mean(-1, keepdim=True) - state.usage[:, None]).softmax(-1), state

    def after_write(self, weights, state):
        self.calls.append((self.name, "after_write", weights.clone()))
        return state._replace(written=1 - (1 - weights).prod(1))

    def after_read(self, weights, state):
        self.calls.append((self.name, "after_read", weights.clone()))
        return state._replace(read_weights=weights)


def test_reads_are_of_the_memory_as_just_written():
    access = ReadWriteAccess(2, FixedSlot(3), FixedSlot(3), num_slots=5, slot_size=4, memory_start=ConstantMemory(0.25))
    with torch.no_grad():
        access.interface.weight.zero_()
        access.interface.bias.zero_()
        access.interface.bias[2:6] = math.log(3)  # erase sigmoid(log 3) = 3/4
        access.interface.bias[6:10] = math.atanh(0.5)
    reads, state = access(torch.zeros(1, 2), access.init_state(1))
    torch.testing.assert_close(reads, torch.full((1, 1, 4), 0.25 * 0.25 + 0.5))
    expected = torch.full((1, 5, 4), 0.25)
    expected[:, 3] = 0.25 * 0.25 + 0.5
    torch.testing.assert_close(state.memory, expected)


def gated_access(calls):
    """Two read heads and three write heads: the writer has the free gates of both readers, once for all its heads."""
    write, read = Usage("write", calls, num_read_heads=2), Usage("read", calls, num_read_heads=2)
    access = ReadWriteAccess(6, read, write, num_slots=5, slot_size=4, num_read_heads=2, num_write_heads=3)
    calls.clear()  # of the fitting
    return access


def test_a_step_calls_in_the_documented_order():
    calls = []
    access = gated_access(calls)
    start = access.init_state(2)
    _, end = access(torch.randn(2, 6), start)
    assert [call[:2] for call in calls] == [
        ("write", "before_step"),
        ("read", "before_step"),
        ("write", "forward"),
        ("write", "after_write"),
        ("read", "after_write"),
        ("read", "forward"),
        ("write", "after_read"),
        ("read", "after_read"),
    ]
    (_, _, written_over), (_, _, read_over) = calls[2], calls[5]
    assert torch.equal(written_over, start.memory)
    assert torch.equal(read_over, end.memory)


def test_both_sides_hear_of_the_same_weights():
    calls = []
    access = gated_access(calls)
    access(torch.randn(2, 6), access.init_state(2))
    heard = {call[:2]: call[2] for call in calls}
    assert heard["write", "after_write"].shape == (2, 3, 5)
    assert heard["write", "after_read"].shape == (2, 2, 5)
    for hook in ("after_write", "after_read"):
        assert torch.equal(heard["write", hook], heard["read", hook])


def test_a_shared_emission_comes_once_a_step_and_is_learned():
    """The free gates: one number for each read head, emitted once, though three heads write with it."""
    calls = []
    access = gated_access(calls)
    assert access.interface.out_features == 3 * 3 + 2 * 3 + 2 * 3 * 4 + 2 + 2
    state = access.init_state(2)
    controls = torch.randn(2, 3, 6)
    for control in controls.unbind(1):
        _, state = access(control, state)
    shared = [call[2] for call in calls if call[:2] == ("write", "before_step")]
    gate_rows = slice(3 * 3 + 2 * 3 + 2 * 3 * 4, -2)
    weight, bias = access.interface.weight[gate_rows], access.interface.bias[gate_rows]
    assert len(shared) == 3
    for emitted, control in zip(shared, controls.unbind(1), strict=True):
        torch.testing.assert_close(emitted, control @ weight.T + bias)
    state.write.usage.sum().backward()
    assert access.interface.weight.grad[gate_rows].abs().sum() > 0


def test_usage_over_several_steps_is_the_nature_papers():
    """u_t = (u + w_w - u w_w) psi_t, psi_t = prod over read heads of (1 - f_t w_r), all else from the step before."""
    calls = []
    access = gated_access(calls)
    state = access.init_state(2)
    usage = torch.zeros(2, 5)
    for step in range(3):
        last = {call[:2]: call[2] for call in calls}
        _, state = access(torch.randn(2, 6), state)
        now = {call[:2]: call[2] for call in calls}
        for item in range(2):
            for slot in range(5) if step else ():  # before the first step nothing was written or read
                unwritten, retention = 1.0, 1.0
                for weight in last["write", "after_write"][item, :, slot]:
                    unwritten *= 1 - weight
                gates = now["write", "before_step"][item].sigmoid()
                for gate, weight in zip(gates, last["write", "after_read"][item, :, slot], strict=True):
                    retention *= 1 - gate * weight
                written = 1 - unwritten
                usage[item, slot] = (usage[item, slot] + written - usage[item, slot] * written) * retention
        torch.testing.assert_close(state.write.usage, usage)
    assert usage.min() > 0.1


def test_location_addressing_hands_every_call_on():
    calls = []
    inner = Usage("inner", calls, num_read_heads=2)
    write = LocationAddressing(inner)
    access = ReadWriteAccess(6, FixedSlot(0), write, num_slots=5, slot_size=4, num_read_heads=2)
    assert write.shared_emit_size == 2
    calls.clear()
    access(torch.randn(1, 6), access.init_state(1))
    assert [call[1] for call in calls] == ["before_step", "forward", "after_write", "after_read"]


def test_read_access_compares_the_control_itself_with_the_keys():
    access = ReadAccess(ContentAddressing(DotScore(4)), slot_size=3)
    keys, values = torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    control = torch.randn(2, 4)
    reads, _ = access(control, access.init_state(keys, values, mask))
    for item, length in enumerate([5, 2]):
        weights = (keys[item, :length] @ control[item]).softmax(0)
        torch.testing.assert_close(reads[item, 0], weights @ values[item, :length])


def test_read_access_with_heads_of_its_own():
    access = ReadAccess(ContentAddressing(DotScore(4)), slot_size=4, num_read_heads=3, control_size=7)
    keys, control = torch.randn(2, 5, 4), torch.randn(2, 7)
    reads, _ = access(control, access.init_state(keys))
    queries = access.interface(control).reshape(2, 3, 4)
    torch.testing.assert_close(reads, torch.nn.functional.scaled_dot_product_attention(queries, keys, keys, scale=1))


def test_several_that_ask_at_once_get_what_each_gets_alone():
    """The head axis is asker by asker, each with all heads; the controls keep their own interface."""
    access = ReadAccess(ContentAddressing(DotScore(4)), slot_size=3, num_read_heads=2, control_size=7)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    state = access.init_state(torch.randn(2, 5, 4), torch.randn(2, 5, 3), mask)
    controls = torch.randn(2, 6, 7)
    weights, _ = access.address(controls, state)
    reads, _ = access(controls, state)
    assert weights.shape == (2, 12, 5) and reads.shape == (2, 12, 3)
    for asker in range(6):
        heads = slice(2 * asker, 2 * asker + 2)
        torch.testing.assert_close(weights[:, heads], access.address(controls[:, asker], state)[0])
        torch.testing.assert_close(reads[:, heads], access(controls[:, asker], state)[0])


def test_what_is_read_is_the_values_weighted_by_what_is_addressed():
    access = ReadAccess(ContentAddressing(DotScore(4)), slot_size=3)
    state = access.init_state(torch.randn(2, 5, 4), torch.randn(2, 5, 3))
    control = torch.randn(2, 4)
    weights, _ = access.address(control, state)
    torch.testing.assert_close(access(control, state)[0], weights @ state.values)


def test_who_remembers_from_step_to_step_is_not_asked_at_once():
    """But by one asker after another, in either form of the control."""
    access = ReadAccess(LocationAddressing(ContentAddressing(DotScore(4))), slot_size=3, control_size=7)
    state = access.init_state(torch.randn(2, 5, 4), torch.randn(2, 5, 3))
    controls = torch.randn(2, 2, 7)
    with pytest.raises(ValueError) as error:
        access(controls, state)
    assert str(error.value) == (
        "control holds 2 askers at once, but LocationAddressing remembers from step to step: they must ask one by one."
    )
    for step in range(2):
        flat, _ = access(controls[:, step], state)
        reads, state = access(controls[:, step : step + 1], state)
        assert torch.equal(reads, flat)


def test_addressing_and_memory_are_not_narrowed_under_autocast():
    """The linear map may run in half precision; what it emits is widened before anything is computed with it."""
    seen = []
    write, read = ContentAddressing(DotScore(4)), ContentAddressing(DotScore(4))
    for scheme in (write, read):
        scheme.register_forward_pre_hook(lambda module, arguments: seen.extend(x.dtype for x in arguments[:2]))
    access = ReadWriteAccess(6, read, write, num_slots=5, slot_size=4)
    seen.clear()  # of the fitting
    with torch.autocast("cpu", torch.bfloat16):
        reads, state = access(torch.randn(2, 6), access.init_state(2))
    assert {reads.dtype, state.memory.dtype, *seen} == {torch.float32}
    assert len(seen) == 4


@pytest.mark.parametrize("strength", [1e-3, 0.5, 5.0, 300.0])
def test_heads_begin_around_the_strength_that_the_score_says(strength):
    def heads(score):
        return memnet.LocationAddressing(memnet.ContentAddressing(score))

    def bias(**settings):
        torch.manual_seed(0)
        write, read = heads(memnet.CosineScore(3, **settings)), heads(memnet.CosineScore(3))
        return memnet.ReadWriteAccess(5, read, write, 7, 3, num_read_heads=2, num_write_heads=2).interface.bias

    started = (bias(start_strength=strength) - bias()).detach()
    at = [3, 9 + 3]  # after each write head's key; a head emits key, strength, gate, three shifts, sharpening
    torch.testing.assert_close(F.softplus(started[at]), torch.full((2,), strength))
    started[at] = 0
    assert not started.any()


def test_readers_with_an_interface_of_their_own_begin_there_too():
    def bias(**settings):
        torch.manual_seed(0)
        scheme = memnet.ContentAddressing(memnet.CosineScore(3, **settings))
        return ReadAccess(scheme, 3, num_read_heads=2, control_size=5).interface.bias

    started = (bias(start_strength=5.0) - bias()).detach()
    torch.testing.assert_close(F.softplus(started[[3, 7]]), torch.full((2,), 5.0))
    assert started.count_nonzero() == 2


@pytest.mark.parametrize("kept", [1, 3])
def test_every_addressing_hands_on_where_its_score_begins(kept):
    score = memnet.CosineScore(4, start_strength=3.0)
    content = memnet.ContentAddressing(score)
    schemes = [
        content,
        memnet.LocationAddressing(content),
        memnet.AllocationAddressing(content, num_read_heads=2),
        memnet.LinkAddressing(content, num_write_heads=kept, sharpen=kept == 3),
        memnet.HardAddressing(score),
        memnet.MonotonicLocalAddressing(content),
    ]
    for scheme in schemes:
        assert len(scheme.emission_start) == scheme.emit_size
        assert scheme.emission_start[: score.emit_size] == score.emission_start
        assert not any(scheme.emission_start[score.emit_size :])
