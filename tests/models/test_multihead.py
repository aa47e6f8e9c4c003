"""Reads of many heads with masks of their own, and rotation, which only knows distances."""

import pytest
import torch

from memnet import record
from memnet.models.multihead import MultiHeadRead
from memnet.models.rotary import rotary_encoding, rotate

SIZE, HEADS = 8, 2


def make():
    torch.manual_seed(1)
    read = MultiHeadRead(SIZE, HEADS).double()
    x = torch.randn(3, 5, SIZE, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 5, 5) < 0.5
    mask[0, 2] = False  # who may look at nothing
    return read, x, mask


@pytest.mark.parametrize("by_asker", [False, True])
def test_fused_and_recorded_reads_agree_under_a_mask(by_asker):
    read, x, mask = make()
    mask = mask if by_asker else mask[:, 0]

    def run():
        result = read(*read.ask_and_fill(x), mask)
        return result, *torch.autograd.grad(result.square().sum(), [x, *read.parameters()])

    fused = run()
    with record(read) as trace:
        recorded = run()
    for one, other in zip(fused, recorded, strict=True):
        torch.testing.assert_close(one, other)
    weights = trace["addressing"][:, 0]
    hidden = ~(mask if by_asker else mask.unsqueeze(1).expand(-1, 5, -1))
    assert not weights[hidden.repeat_interleave(HEADS, 0)].any()  # exactly


def test_the_fused_read_steps_aside_for_who_listens_to_the_way_back():
    read, x, mask = make()
    calls = []
    read.addressing.register_full_backward_hook(lambda *_: calls.append(1))
    read(*read.ask_and_fill(x), mask).sum().backward()
    assert calls == [1]


def test_each_asker_of_each_item_has_its_own_mask():
    """The same as asked one by one with a mask for all askers; what is hidden may be anything that is finite."""
    read, x, mask = make()
    emission, keys, values = read.ask_and_fill(x)
    together = read(emission, keys, values, mask)
    for asker in range(5):
        alone = read(emission[:, :, asker : asker + 1], keys, values, mask[:, asker])
        torch.testing.assert_close(together[:, asker : asker + 1], alone)
        large = torch.where(mask[:, None, asker, :, None], values, torch.full_like(values, 1e30))
        assert torch.equal(read(emission[:, :, asker : asker + 1], keys, large, mask[:, asker]), alone)
    assert not together[0, 2].any()


def test_products_of_rotated_vectors_depend_on_the_distance_only():
    x, y = torch.randn(2, 1, 1, 1, SIZE, dtype=torch.float64)

    def product(i, j):
        encodings = [rotary_encoding(torch.tensor([[place]]), SIZE, 100.0, torch.float64) for place in (i, j)]
        return (rotate(x, encodings[0]) * rotate(y, encodings[1])).sum()

    for i, j in ((0, 0), (5, 2), (2, 5), (129, 1)):
        torch.testing.assert_close(product(i, j), product(i + 40, j + 40))
    assert len({round(product(i, 0).item(), 6) for i in range(130)}) == 130


def test_rotation_is_the_papers():
    encoding = rotary_encoding(torch.tensor([[3]]), 4, 100.0, torch.float64)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    turned = rotate(x.view(1, 1, 1, 4), encoding)[0, 0, 0]
    first = torch.polar(torch.tensor(1.0), torch.tensor(3.0)).to(torch.complex128) * complex(1, 3)
    second = torch.polar(torch.tensor(1.0), torch.tensor(0.3)).to(torch.complex128) * complex(2, 4)  # 3 * 100^(-2 / 4)
    right = torch.stack([first.real, second.real, first.imag, second.imag])
    torch.testing.assert_close(turned, right, rtol=1e-6, atol=1e-6)
    assert rotate(x.view(1, 1, 1, 4).bfloat16(), encoding.float()).dtype == torch.bfloat16
