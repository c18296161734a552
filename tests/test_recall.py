"""A network is asked once about an input, and what it says is never stale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustgen.recall import layers_of, recalled


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


class Deep(Counted):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.idle = nn.Linear(3, 3), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.first(x).relu())


def test_layers_come_from_the_same_pass_once_they_are_known_to_be_asked_for() -> None:
    network, x, other, watched = Deep(), torch.rand(4, 3), torch.rand(4, 3), set[str]()
    with recalled(network, watched):
        network(x)
        found = layers_of(network, ["first"], x)["first"]  # too late for the first pass
        torch.testing.assert_close(found, network.first(x))
        assert network.passes == 2
        assert layers_of(network, ["first"], x)["first"] is found
        network(other)
        layers_of(network, ["first"], other)
        assert network.passes == 3
    with recalled(network, watched):
        out = network(x)
        again = layers_of(network, ["first"], x)["first"]
        assert network.passes == 4
        slope = torch.autograd.grad(out.sum() + again.sum(), network.first.bias)[0]  # one graph for both
        assert network(x) is out
    whole = network(x).sum() + network.first(x).sum()
    torch.testing.assert_close(slope, torch.autograd.grad(whole, network.first.bias)[0])
    assert not any(module._forward_hooks for module in network.modules())


def test_layers_are_those_of_the_input_as_it_is_now() -> None:
    network, x, watched = Deep(), torch.rand(4, 3), {"first"}
    with recalled(network, watched):
        before = layers_of(network, ["first"], x)["first"]
        x += 1
        assert not torch.equal(layers_of(network, ["first"], x)["first"], before)
        hook = network.first.register_forward_hook(lambda module, given, made: 2 * made)
        doubled = layers_of(network, ["first"], x)["first"]
        hook.remove()
        torch.testing.assert_close(doubled, 2 * layers_of(network, ["first"], x)["first"])
    assert not layers_of(network, ["idle"], x)
    with recalled(network):
        assert not layers_of(network, ["idle"], x)
