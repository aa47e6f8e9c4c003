"""GravesRMSprop against the paper's equations for one weight."""

import copy

import numpy as np
import pytest
import torch
from reference.optim import graves_rmsprop

from memnet import GravesRMSprop

SETTINGS = {"lr": 0.01, "alpha": 0.9, "momentum": 0.8, "eps": 1e-3}


def steps(optimizer, parameters, gradients):
    """The parameters after each step, (time, ...)."""
    trace = []
    for gradient in gradients:
        for parameter, g in zip(parameters, gradient, strict=True):
            parameter.grad = g.clone()
        optimizer.step()
        trace.append([p.detach().clone() for p in parameters])
    return trace


def test_against_the_equations():
    parameters = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in [(2, 3), (4,)]]
    starts = [p.detach().clone() for p in parameters]
    gradients = [[torch.randn_like(p) for p in parameters] for _ in range(6)]
    trace = steps(GravesRMSprop(parameters, **SETTINGS), parameters, gradients)
    for which, start in enumerate(starts):
        for index in np.ndindex(*start.shape):
            series = [gradient[which][index].item() for gradient in gradients]
            expected = graves_rmsprop(start[index].item(), series, **SETTINGS)
            # 1e-12: a few roundings of 1e-16 on numbers of about 1.
            np.testing.assert_allclose([x[which][index].item() for x in trace], expected, rtol=0, atol=1e-12)


def test_the_defaults_are_the_papers():
    defaults = GravesRMSprop([torch.nn.Parameter(torch.zeros(1))]).defaults
    assert (defaults["alpha"], defaults["momentum"], defaults["eps"]) == (0.95, 0.9, 1e-4)


def test_a_constant_gradient_stays_finite():
    """Its variance is 0 once the averages have settled; rounding makes it negative, for large ones by more than eps."""
    gradient = torch.logspace(-3, 4, 500)
    parameter = torch.nn.Parameter(torch.zeros(500))
    trace = steps(GravesRMSprop([parameter]), [parameter], [[gradient]] * 600)
    assert torch.isfinite(trace[-1][0]).all()


def test_parameters_without_a_gradient_are_left_alone():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    used.grad = torch.ones(2)
    GravesRMSprop([used, unused]).step()
    assert unused.tolist() == [1, 1]
    assert used.tolist() != [1, 1]


def test_a_closure_is_called_and_its_loss_returned():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = GravesRMSprop([parameter])

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert (parameter < 1).all()


def test_going_on_from_a_state_dict_is_going_on():
    gradients = [[torch.randn(3, dtype=torch.float64)] for _ in range(6)]
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    whole = steps(GravesRMSprop([parameter], **SETTINGS), [parameter], gradients)

    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = GravesRMSprop([parameter], **SETTINGS)
    steps(optimizer, [parameter], gradients[:3])
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer = GravesRMSprop([parameter], **SETTINGS)
    optimizer.load_state_dict(saved)
    assert torch.equal(steps(optimizer, [parameter], gradients[3:])[-1][0], whole[-1][0])


def test_loaded_state_follows_its_parameter():
    """torch leaves a state called "step" on the device and in the dtype that it was saved in, and so does Lightning."""
    saved = torch.nn.Parameter(torch.zeros(3))
    optimizer = GravesRMSprop([saved])
    steps(optimizer, [saved], [[torch.randn(3)]])
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    loaded = GravesRMSprop([parameter])
    loaded.load_state_dict(optimizer.state_dict())
    assert {x.dtype for x in loaded.state[parameter].values()} == {torch.float64}


@pytest.mark.parametrize(
    ("setting", "value"), [("lr", 0.0), ("lr", -1.0), ("eps", 0.0), ("alpha", 1.0), ("alpha", -0.1), ("momentum", 1.5)]
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"^{setting} is {value}, but must"):
        GravesRMSprop([torch.nn.Parameter(torch.zeros(1))], **{setting: value})
