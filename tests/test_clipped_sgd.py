"""Gradients clipped matrix by matrix, and learning rates that halve, for one model and for many."""

import copy

import pytest
import torch
from torch import nn

from memnet import ClippedSGD, HalvingLR


def test_each_matrix_and_each_member_is_clipped_by_itself():
    gradients = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[0.3, 0.4], [0.0, 0.0]]])
    first, second = nn.Parameter(torch.zeros(2, 2, 2)), nn.Parameter(torch.zeros(2, 2, 2))
    first.grad, second.grad = gradients.clone(), 10 * gradients
    ClippedSGD([first, second], lr=1.0, max_norm=1.0, num_members=2).step()
    torch.testing.assert_close(first.detach(), -torch.stack([gradients[0] / 5, gradients[1]]))
    torch.testing.assert_close(second.detach(), -torch.stack([gradients[0] / 5, gradients[0] / 5]))
    alone = nn.Parameter(torch.zeros(2, 2, 2))
    alone.grad = gradients.clone()
    ClippedSGD([alone], lr=1.0, max_norm=1.0).step()
    torch.testing.assert_close(alone.detach(), -gradients / gradients.norm())
    still = nn.Parameter(torch.ones(2))
    still.grad = torch.zeros(2)
    ClippedSGD([still], lr=1.0).step()
    assert still.eq(1).all()


def test_without_clipping_it_is_stochastic_gradient_descent():
    ours, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    steps = [ClippedSGD(ours.parameters(), lr=0.1, max_norm=1e9), torch.optim.SGD(theirs.parameters(), lr=0.1)]
    for _ in range(3):
        for model, optimizer in zip((ours, theirs), steps, strict=True):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def rates(schedule, steps):
    found = []
    for _ in range(steps):
        group = schedule.optimizer.param_groups[0]
        found.append([group["lr"]] if group["member_lrs"] is None else group["member_lrs"].tolist())
        schedule.optimizer.step()
        schedule.step()
    return found


def test_the_learning_rate_halves_by_each_members_own_count():
    optimizer = ClippedSGD([nn.Parameter(torch.zeros(2, 1))], lr=0.8, num_members=2)
    schedule = HalvingLR(optimizer, every=2, until=5)
    schedule.hold(torch.tensor([True, False]))
    torch.testing.assert_close(rates(schedule, 3), [[0.8, 0.8], [0.8, 0.8], [0.8, 0.4]])
    schedule.start(torch.tensor([True, False]))
    expected = [[0.8, 0.4], [0.8, 0.2], [0.4, 0.0], [0.4, 0.0], [0.2, 0.0], [0.0, 0.0]]
    torch.testing.assert_close(rates(schedule, 6), expected)
    assert optimizer.param_groups[0]["lr"] == 0


def test_a_schedule_of_one_model_needs_no_members():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2, 1))], lr=0.8)
    schedule = HalvingLR(optimizer, every=2)
    found = []
    for _ in range(6):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(found, [0.8, 0.8, 0.4, 0.4, 0.2, 0.2])
    schedule.start(torch.tensor([True]))
    assert optimizer.param_groups[0]["lr"] == 0.8


def test_a_resumed_schedule_goes_on():
    def make():
        return HalvingLR(ClippedSGD([nn.Parameter(torch.zeros(2, 1))], lr=0.8, num_members=2), every=2)

    one, other = make(), make()
    one.hold(torch.tensor([True, False]))
    rates(one, 3)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    other.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    assert rates(other, 4) == rates(one, 4)


def test_settings_out_of_range_are_refused():
    parameter = [nn.Parameter(torch.zeros(3, 1))]
    with pytest.raises(ValueError, match="lr is 0"):
        ClippedSGD(parameter, lr=0.0)
    with pytest.raises(ValueError, match="max_norm is -1"):
        ClippedSGD(parameter, max_norm=-1.0)
    with pytest.raises(ValueError, match=r"num_members is 2, but a parameter has shape \(3, 1\)"):
        ClippedSGD(parameter, num_members=2)
    with pytest.raises(ValueError, match="every is 0"):
        HalvingLR(ClippedSGD(parameter), every=0)
    with pytest.raises(ValueError, match="until is 0"):
        HalvingLR(ClippedSGD(parameter), every=1, until=0)
