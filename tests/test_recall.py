"""A network is asked once about an input, and what it says is never stale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustgen.recall import recalled


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        found: Tensor = self.layer(x)
        return found


def test_the_same_input_costs_one_pass() -> None:
    network, x, other = Counted(), torch.rand(4, 3), torch.rand(4, 3)
    with recalled(network):
        first = network(x)
        network(other)
        with recalled(network):
            assert network(x) is first
        assert network(x) is first
    assert network.passes == 2
    assert network(x) is not first
    assert network.passes == 3
    assert "forward" not in vars(network)


def test_what_is_not_the_same_is_asked_again() -> None:
    network, x = Counted(), torch.rand(4, 3)
    with recalled(network):
        before = network(x)
        x += 1
        assert not torch.equal(network(x), before)
        assert not torch.equal(network(x.clone()), before)
        with torch.no_grad():
            assert not network(x).requires_grad
        with torch.autocast("cpu", torch.bfloat16):
            assert network(x).dtype == torch.bfloat16
    assert network.passes == 5


def test_who_listens_to_a_layer_hears_every_pass() -> None:
    network, x, heard = Counted(), torch.rand(4, 3), list[Tensor]()
    with recalled(network):
        network(x)
        hook = network.layer.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
        network(x)
        hook.remove()
    assert len(heard) == 1


def test_gradients_flow_through_what_is_recalled() -> None:
    network, x = Counted(), torch.rand(4, 3, requires_grad=True)
    with recalled(network):
        value = (network(x).sum() + 2 * network(x).sum()) / 3
    torch.testing.assert_close(torch.autograd.grad(value, x)[0], network.layer.weight.sum(0).expand(4, 3))
    assert network.passes == 1


def test_a_failure_leaves_the_network_as_it_was() -> None:
    network = Counted()
    try:
        with recalled(network):
            network(torch.rand(4, 7))
    except RuntimeError:
        pass
    assert "forward" not in vars(network)
