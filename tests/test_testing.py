"""The conformance checks themselves: each broken promise is found, and the message says which it was."""

from typing import ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from memnet import Addressing, Cell, ContentAddressing, DotScore, FeedForwardController, LSTMController
from memnet.functional import masked_softmax, per_head
from memnet.testing import check_addressing, check_cell


class Good(Addressing[None]):
    """What the broken ones below would be without their flaw."""

    def __init__(self, size=5):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    @property
    def emit_size(self):
        return self.scale.shape[0]

    def scores(self, emission, keys):
        return (self.scale * emission) @ keys.transpose(1, 2)

    def forward(self, emission, keys, state, mask=None):
        return masked_softmax(self.scores(emission, keys), mask), state


class StepState(NamedTuple):
    step: Tensor


class FractionalSize(Good):
    emit_size = 5.0


class ShortStart(Good):
    emission_start = (1.0,)


class NoHeadAxis(Good):
    def forward(self, emission, keys, state, mask=None):
        return super().forward(emission, keys, state, mask)[0][:, :1], state


class Negative(Good):
    def forward(self, emission, keys, state, mask=None):
        weights = super().forward(emission, keys, state, mask)[0]
        return 2 * weights - 1 / keys.shape[1], state


class NotNormalized(Good):
    def forward(self, emission, keys, state, mask=None):
        return 0.9 * super().forward(emission, keys, state, mask)[0], state


class AboveOne(Good):
    normalized: ClassVar[bool] = False

    def forward(self, emission, keys, state, mask=None):
        return 2 * super().forward(emission, keys, state, mask)[0], state


class IgnoresMask(Good):
    def forward(self, emission, keys, state, mask=None):
        return super().forward(emission, keys, state)


class FirstMaskForAllHeads(Good):
    def forward(self, emission, keys, state, mask=None):
        return super().forward(emission, keys, state, mask if mask is None or mask.dim() == 2 else mask[:, 0])


class OtherWeightsForHeadMasks(Good):
    def forward(self, emission, keys, state, mask=None):
        scores = self.scores(emission, keys)
        return masked_softmax(2 * scores if mask is not None and mask.dim() == 3 else scores, mask), state


class ScalesByMaskedKeys(Good):
    def scores(self, emission, keys):
        return super().scores(emission, keys) / (1 + keys.square().mean((1, 2), keepdim=True))


class NaNForNoSlot(Good):
    def forward(self, emission, keys, state, mask=None):
        scores = self.scores(emission, keys)
        return (scores if mask is None else scores.masked_fill(~mask[:, None], -torch.inf)).softmax(-1), state


class PowersAndQuotient(Good):
    """Softmax as the textbook writes it."""

    def forward(self, emission, keys, state, mask=None):
        powers = self.scores(emission, keys).exp() * (1 if mask is None else per_head(mask))
        return powers / powers.sum(-1, keepdim=True).clamp(min=1e-30), state


class RootOfZero(Good):
    """Finite forward; backward the norm of a zero vector is the trap."""

    def scores(self, emission, keys):
        return super().scores(emission, keys) / (1 + keys.square().sum(-1).sqrt()[:, None])


class MixesBatch(Good):
    def scores(self, emission, keys):
        return super().scores(emission, keys) + keys.mean((0, 2)) * torch.arange(keys.shape[1])


class MixesGradients(Good):
    """Right weights, gradients from the neighbour: what a batch norm in a scheme does, for one."""

    def scores(self, emission, keys):
        leak = keys.roll(1, 0)
        return super().scores(emission, keys + leak - leak.detach())


class ChangesInputs(Good):
    def scores(self, emission, keys):
        keys.mul_(0.5) if not keys.requires_grad else None
        return super().scores(emission, keys)


class KeepsWeights(Good):
    def forward(self, emission, keys, state, mask=None):
        self.last = super().forward(emission, keys, state, mask)[0]
        return self.last, state


class CountsCalls(Good):
    """A list that grows, as a history kept for a plot."""

    def __init__(self, size=5):
        super().__init__(size)
        self.history = []

    def forward(self, emission, keys, state, mask=None):
        self.history.append(1)
        return super().forward(emission, keys, state, mask)


class Noisy(Good):
    def scores(self, emission, keys):
        return super().scores(emission, keys) + torch.randn(keys.shape[1])


class CounterWithoutBatch(Good):
    def init_state(self, keys, num_heads):
        return StepState(torch.zeros(()))


class StateIsAList(Good):
    def init_state(self, keys, num_heads):
        return [keys]


class GrowingState(Good):
    def init_state(self, keys, num_heads):
        return StepState(keys.new_zeros(keys.shape[0], 1))

    def after_read(self, weights, state):
        return StepState(torch.cat([state.step, state.step], 1))


class ExplodingState(Good):
    def init_state(self, keys, num_heads):
        return StepState(keys.new_ones(keys.shape[0], 1))

    def after_write(self, weights, state):
        return StepState(state.step * 10)


class FirstHeadIsAnother(Good):
    """Of several steps in one call only the first has it."""

    def forward(self, emission, keys, state, mask=None):
        weights, state = super().forward(emission, keys, state, mask)
        return torch.cat([weights[:, :1].flip(-1), weights[:, 1:]], 1), state


class WrongGradient(Good):
    def scores(self, emission, keys):
        scores = super().scores(emission, keys)
        return 2 * scores - scores.detach()


class UnusedParameter(Good):
    def __init__(self, size=5):
        super().__init__(size)
        self.unused = nn.Parameter(torch.zeros(1))


class HiddenParameter(Good):
    """A random tensor that is not in the state_dict."""

    def __init__(self, size=5):
        super().__init__(size)
        self.hidden = torch.randn(())

    def scores(self, emission, keys):
        return super().scores(emission, keys) * self.hidden


class HalfPrecision(Good):
    def forward(self, emission, keys, state, mask=None):
        scores = torch.bmm(self.scale * emission, keys.transpose(1, 2))  # narrowed by autocast
        if mask is not None:
            scores = scores.masked_fill(~per_head(mask), torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1, dtype=scores.dtype)
        return weights if mask is None else weights * per_head(mask), state


BROKEN = {
    FractionalSize: "emit_size must be a whole number of at least 0, and is 5.0",
    ShortStart: "emission_start must be 5 finite numbers, and is (1.0,)",
    NoHeadAxis: "weights must be (batch, head, slot) = (3, 3, 1), and are (3, 1, 1)",
    Negative: "weights must be at least 0",
    NotNormalized: "weights must sum to 1 over the slots that are left",
    AboveOne: "weights must be at most 1",
    IgnoresMask: "masked slots must have weight 0",
    FirstMaskForAllHeads: "masked slots must have weight 0 when each head has its own mask",
    OtherWeightsForHeadMasks: "one mask for all heads must give what the same mask for each head gives",
    ScalesByMaskedKeys: "what a masked slot holds must not change the weights",
    NaNForNoSlot: "weights must be finite",
    PowersAndQuotient: "weights must be finite for emissions x 10000",
    RootOfZero: "gradients must be finite for emissions x 1, keys x 0 and",
    MixesBatch: "the items of a batch must not depend on one another",
    MixesGradients: "gradients must not cross from one item of a batch to another",
    ChangesInputs: "inputs and the given state must not be changed in place",
    KeepsWeights: "a step must keep nothing on the module, and it changed last",
    CountsCalls: "a step must keep nothing on the module, and it changed history",
    Noisy: "the same inputs and state must give the same weights and state again",
    CounterWithoutBatch: "must have the batch (3) first, and one is ()",
    StateIsAList: "the state must be a NamedTuple or None",
    GrowingState: "the state must keep its shapes and dtypes",
    ExplodingState: "the state must be finite after 50 steps",
    FirstHeadIsAnother: "steps_at_once is True, so steps in one call must give what they give one by one",
    WrongGradient: "gradients must agree with finite differences",
    UnusedParameter: "every parameter must get a gradient, and unused gets none",
    HiddenParameter: "a scheme that loads its state_dict must give the same weights",
    HalfPrecision: "must stay in float32 under autocast",
}


@pytest.mark.parametrize(("scheme", "message"), BROKEN.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_scheme_is_found(scheme, message):
    with pytest.raises(AssertionError) as caught:
        check_addressing(scheme)
    assert str(caught.value).startswith(f"{scheme.__name__}: ")
    assert message in str(caught.value)


def test_a_good_scheme_is_not_blamed():
    check_addressing(Good)
    check_addressing(lambda size: ContentAddressing(DotScore(size)), key_size=1, num_slots=[4], num_heads=[2])


def test_a_stochastic_scheme_says_so():
    check_addressing(Noisy, stochastic=True)


def test_the_checks_leave_the_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_addressing(Good, num_slots=[2], num_heads=[1])
    check_cell(lambda: FeedForwardController(2, 2))
    assert torch.equal(torch.rand(1), expected)


class BrokenCell(LSTMController):
    def __init__(self):
        super().__init__(3, 4)


class WrongWidth(BrokenCell):
    def forward(self, x, state):
        output, state = super().forward(x, state)
        return output[:, :2], state


class SharedAcrossBatch(BrokenCell):
    def forward(self, x, state):
        return super().forward(x - x.mean(0), state)


class KeepsState(BrokenCell):
    def forward(self, x, state):
        output, self.state = super().forward(x, state)
        return output, self.state


class WritesIntoState(BrokenCell):
    def init_state(self, batch_size):
        return type(super().init_state(1))(*(x.clone() for x in super().init_state(batch_size)))

    def forward(self, x, state):
        output, new = super().forward(x, state)
        with torch.no_grad():
            state.cell.add_(1)
        return output, new


class DependsOnWhatWasBefore(BrokenCell):
    """Counts calls in a mutable default: nothing on the module, yet a chunk is not the rest of a sequence."""

    def forward(self, x, state, calls=[]):  # noqa: B006
        calls.append(0)
        return super().forward(x + len(calls), state)


class UnusedCellParameter(BrokenCell):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))


class Overflows(BrokenCell):
    def forward(self, x, state):
        output, state = super().forward(x, state)
        return output * x.square().exp().sum(-1, keepdim=True), state


class TimeFirstState(BrokenCell):
    def init_state(self, batch_size):
        return type(super().init_state(1))(*(x.transpose(0, 1) for x in super().init_state(batch_size)))


class NotACell(nn.Linear):
    pass


BROKEN_CELLS = {
    WrongWidth: "a step's output must be (batch, out) = (3, 4), and is (3, 2)",
    SharedAcrossBatch: "a padded sequence must give what it gives alone",
    KeepsState: "it changed state",
    WritesIntoState: "the given state must not be changed in place",
    DependsOnWhatWasBefore: "the same step twice must give the same",
    UnusedCellParameter: "every parameter must get a gradient, and unused gets none",
    Overflows: "must be finite for inputs x 10000",
    TimeFirstState: "must have the batch (3) first, and one is (1, 3, 4)",
}


@pytest.mark.parametrize(("cell", "message"), BROKEN_CELLS.items(), ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.usefixtures("unchecked")  # the annotations would find some of them first
def test_a_broken_cell_is_found(cell, message):
    with pytest.raises(AssertionError) as caught:
        check_cell(cell)
    assert str(caught.value).startswith(f"{cell.__name__}: ")
    assert message in str(caught.value)


def test_what_is_no_cell_is_refused():
    assert not issubclass(NotACell, Cell)
    with pytest.raises(AssertionError, match=r"NotACell: it must be a memnet\.Cell"):
        check_cell(lambda: NotACell(3, 3))
