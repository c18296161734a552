"""What all attacks share: how they go through a model, however it is run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks import passes
from robustgen.attacks.base import AttackResult
from robustgen.attacks.input_conv import FastInputGradient
from robustgen.attacks.mi_fgsm import MIFGSM
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import PGD
from robustgen.attacks.pool_first import pooled_first
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Model, margin
from robustgen.threat import ThreatModel
from toys import Counting, small_cnn

LINF = ThreatModel("linf", 0.03)


@pytest.fixture
def victim(generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    model = small_cnn().eval()
    x = torch.rand(60, 1, 8, 8, generator=generator)
    return model, x, model(x).argmax(1)


class Cramped(nn.Module):
    """Runs out of memory beyond `most` rows, as a device does: in the pass, or when it allocates on the CPU."""

    def __init__(self, network: nn.Module, most: int, says: str | None) -> None:
        super().__init__()
        self.network, self.most, self.says, self.largest = network, most, says, 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory") if self.says is None else RuntimeError(self.says)
        self.largest = max(self.largest, len(x))
        found: Tensor = self.network(x)
        return found


@pytest.mark.parametrize("says", [None, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"])
def test_out_of_memory_halves_the_batch_and_goes_on(says: str | None, victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    plain = PGD(threat=LINF, steps=6).run(model, x, y)
    cramped = Cramped(model, 7, says)
    found = PGD(threat=LINF, steps=6).run(cramped, x, y)
    assert torch.equal(found.success, plain.success)
    torch.testing.assert_close(found.x_adv, plain.x_adv, atol=1e-6, rtol=0)
    assert torch.equal(found.forward, plain.forward)
    assert 4 <= cramped.largest <= 7


def test_a_row_that_does_not_fit_and_other_errors_are_raised(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    with pytest.raises(torch.OutOfMemoryError):
        PGD(threat=LINF, steps=2)(Cramped(model, 0, None), x, y)
    with pytest.raises(RuntimeError, match="something else"):
        PGD(threat=LINF, steps=2)(Cramped(model, 7, "something else"), x, y)


def test_a_bfloat16_search_is_verified_and_never_finds_less(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    for eps in (0.01, 0.02, 0.03):
        attack = PGD(threat=replace(LINF, eps=eps), steps=6)
        full = attack.run(model, x, y)
        screened = replace(attack, precision="bfloat16").run(model, x, y)
        assert (screened.success | ~full.success).all()
        assert torch.equal(model(screened.x_adv).argmax(1) != y, screened.success)
        assert attack.threat.allows(screened.x_adv, x).all()
        assert screened.x_adv.dtype == torch.float32


def test_what_bfloat16_only_thinks_to_have_fooled_is_attacked_again(generator: torch.Generator) -> None:
    """A model that is fooled by rounding alone: nothing of what the screen finds holds in float32."""

    class Rounding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2, bias=False)
            nn.init.zeros_(self.layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            z = self.layer(x)
            return torch.stack([1.0 - (z.dtype == torch.bfloat16) * 2 + 0 * z[:, 0], z[:, 1]], 1)

    x, y = torch.rand(9, 4, generator=generator), torch.zeros(9, dtype=torch.int64)
    counting = Counting(Rounding())
    result = PGD(threat=LINF, steps=3, precision="bfloat16").run(counting, x, y)
    assert not result.success.any()
    assert counting.forward_rows == int(result.forward.sum())


def test_compiling_the_model_changes_nothing_but_speed(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    pytest.importorskip("torch._dynamo")
    model, x, y = victim
    sizes: set[int] = set()

    def eager(graph: torch.fx.GraphModule, example: list[Tensor]) -> torch.fx.GraphModule:
        sizes.update(len(value) for value in example if value.dim() == 4 and value.shape[1] == 1)
        return graph

    with pytest.MonkeyPatch.context() as patch:
        compile_ = torch.compile
        patch.setattr(torch, "compile", lambda model, dynamic: compile_(model, dynamic=dynamic, backend=eager))
        found = PGD(threat=LINF, steps=6, compile=True).run(model, x, y)
    torch._dynamo.reset()
    plain = PGD(threat=LINF, steps=6).run(model, x, y)
    assert torch.equal(found.success, plain.success)
    torch.testing.assert_close(found.x_adv, plain.x_adv, atol=1e-6, rtol=0)
    assert torch.equal(found.forward, plain.forward)
    assert all(size & (size - 1) == 0 for size in sizes), "only powers of two are compiled"


class Noisy(nn.Module):
    """Logits that change from call to call."""

    def __init__(self, network: Model, size: float) -> None:
        super().__init__()
        self.network, self.size, self.draws = network, size, torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits + self.size * torch.randn(logits.shape, generator=self.draws)


def test_eot_averages_draws_counts_them_and_wins_by_the_majority(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    row = torch.arange(60)
    passes = Passes(model, Misclassify(margin), 60, x.device, rows_at_once=60, eot=4)
    one = Passes(model, Misclassify(margin), 60, x.device, rows_at_once=60)
    torch.testing.assert_close(passes.ascent(row, x, y).gradient, one.ascent(row, x, y).gradient)
    assert (passes.forward == 4).all()
    assert (passes.backward == 4).all()
    noisy = Passes(Noisy(model, 0.3), Misclassify(margin), 60, x.device, rows_at_once=60, eot=400)
    torch.testing.assert_close(noisy.logits(row, x), model(x), atol=0.1, rtol=0)


def test_against_a_random_model_draws_help(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    """With one draw a row stops at a lucky miss; by the majority of many, far more of what is claimed is so."""
    model, x, y = victim
    fooled = {}
    for eot in (1, 25):
        noisy = Noisy(lambda x: 20 * model(x), 0.2)
        result = PGD(threat=replace(LINF, eps=0.006), steps=10, eot=eot).run(noisy, x, y)
        draws = torch.stack([noisy(result.x_adv).argmax(1) != y for _ in range(50)]).double().mean(0)
        fooled[eot] = (draws[result.success] > 0.5).double().mean().item()
    assert fooled[25] > 2 * fooled[1]


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {"kernel_size": 3, "padding": 1}),
        (3, {"kernel_size": 3}),
        (2, {"kernel_size": 4, "stride": 2, "padding": 1}),
        (4, {"kernel_size": (3, 5), "stride": (3, 2), "padding": (2, 1), "bias": False}),
        (3, {"kernel_size": 7, "stride": 2, "padding": 3}),
        (1, {"kernel_size": 1}),
        (3, {"kernel_size": 3, "padding": "same"}),
        (4, {"kernel_size": 3, "groups": 2}),
        (2, {"kernel_size": 3, "dilation": 2}),
        (2, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
        (8, {"kernel_size": 3}),
    ],
)
def test_the_fast_input_gradient_is_the_gradient(
    channels: int, options: dict[str, object], generator: torch.Generator
) -> None:
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(channels, 6, **options), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())  # type: ignore[arg-type]
    model.requires_grad_(False)
    x = torch.rand(40, channels, 15, 14, generator=generator).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    plain = model(x)
    weight = torch.randn(plain.shape, generator=generator)
    (expected,) = torch.autograd.grad((plain * weight).sum(), x)
    with FastInputGradient():
        fast = model(x)
    (found,) = torch.autograd.grad((fast * weight).sum(), x)
    assert torch.equal(fast, plain)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1), nn.MaxPool2d(2, 2, ceil_mode=True)]
)
def test_pooling_first_is_the_same_bit_for_bit(inplace: bool, pool: nn.Module, generator: torch.Generator) -> None:
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(inplace), pool, nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4))
    model.append(nn.ReLU(inplace)).append(nn.MaxPool2d(2)).append(nn.Flatten()).eval().requires_grad_(False)
    x = torch.rand(20, 2, 15, 14, generator=generator).mul_(4).round_().requires_grad_()  # many ties
    plain = model(x)
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    with pooled_first(model.modules()):
        moved = model(x)
        order = [type(module) for module in model]
    (found,) = torch.autograd.grad(moved.square().sum(), x)
    assert torch.equal(moved, plain)
    assert torch.equal(found, expected)
    assert found.any()
    assert order == [type(module) for module in model], "the modules stay in their places"
    assert type(model) is nn.Sequential


def test_pooling_comes_first_only_where_nobody_can_tell(generator: torch.Generator) -> None:
    class Watched(nn.Sequential):
        pass

    calls: list[tuple[int, ...]] = []

    class Spy(nn.ReLU):
        def forward(self, input: Tensor) -> Tensor:
            calls.append(tuple(input.shape[2:]))
            return super().forward(input)

    x = torch.rand(2, 1, 8, 8, generator=generator)
    hooked = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    hooked[1].register_forward_hook(lambda module, given, output: calls.append(tuple(output.shape[2:])))
    for model in (
        hooked,
        nn.Sequential(nn.Conv2d(1, 2, 1), Spy(), nn.MaxPool2d(2)),
        Watched(nn.Conv2d(1, 2, 1), Spy(), nn.MaxPool2d(2)),
        nn.Sequential(Spy(inplace=True), nn.MaxPool2d(2)),
    ):
        with pooled_first(model.modules()):
            model(x.clone())
    assert calls == [(8, 8)] * 4
    plain = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(KeyError), pooled_first(plain.modules()):
        raise KeyError
    assert type(plain) is nn.Sequential


def test_it_leaves_training_and_wider_types_alone(generator: torch.Generator) -> None:
    layer = nn.Conv2d(1, 2, 3)
    x = torch.rand(3, 1, 6, 6, generator=generator, requires_grad=True)
    with FastInputGradient():
        layer(x).sum().backward()
        double = layer.double()(x.double())
    assert layer.weight.grad is not None
    assert double.dtype == torch.float64


def test_momentum_is_a_running_sum_of_gradients(generator: torch.Generator) -> None:
    """On a linear model every gradient is the same, so that the sum points where each of them does."""
    weight = torch.randn(5, generator=generator)

    def model(x: Tensor) -> Tensor:
        z = x @ weight
        return torch.stack([torch.zeros_like(z), z], 1)

    x, y = torch.full((1, 5), 0.5), torch.ones(1, dtype=torch.int64)
    attack = MIFGSM(threat=ThreatModel("linf", 0.1), mode="max-loss", objective=Misclassify(margin))
    torch.testing.assert_close(attack(model, x, y), x - 0.1 * weight.sign())
    with pytest.raises(UsageError, match="decay"):
        MIFGSM(threat=LINF, decay=-1)


class Seeing(nn.Module):
    """A layer that notes which type its inputs have, with gradients and without, and lies in bfloat16: there it has
    fooled every input.
    """

    def __init__(self, lies: bool) -> None:
        super().__init__()
        self.lies, self.seen = lies, set[tuple[bool, torch.dtype]]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add((torch.is_grad_enabled(), x.dtype))
        if self.lies and x.dtype == torch.bfloat16:
            return x.flip(1)
        return x


def stack(lies: bool, generator: torch.Generator) -> tuple[nn.Sequential, Seeing, Tensor, Tensor]:
    """Two classes that no change within 0.03 can confuse."""
    first = nn.Linear(30, 2)
    with torch.no_grad():
        first.weight.copy_(torch.eye(2, 30)), first.bias.copy_(torch.tensor([0.5, 0.0]))
    seeing = Seeing(lies)
    x = torch.rand(20, 30, generator=generator)
    x[:, 0] = x[:, 1]
    return nn.Sequential(first, seeing), seeing, x, torch.zeros(20, dtype=torch.int64)


def test_mixed_precision_takes_gradients_in_bfloat16_and_believes_no_success_there(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "has_bfloat16", lambda _: True)
    for lies in (False, True):
        model, seeing, x, y = stack(lies, generator)
        found = PGD(threat=LINF, steps=5, precision="mixed").run(model, x, y, verify=False)
        assert seeing.seen == {(True, torch.bfloat16), (False, torch.float32)}
        assert not found.success.any()
        assert (found.backward == 5).all()  # nobody left early
        assert (found.forward == (11 if lies else 6)).all()  # each success that was claimed is looked at again
        assert model(x).dtype == torch.float32
        assert (model[0].weight.dtype, type(model)) == (torch.float32, nn.Sequential)


class InDouble(nn.Module):
    """A network that is worked out in float64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.network(x.double())
        return answer


def test_mixed_precision_takes_gradients_of_float64_stacks_in_bfloat16_too(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "has_bfloat16", lambda _: True)
    model, seeing, x, y = stack(False, generator)
    norm = nn.BatchNorm1d(30).eval()  # buffers are float64 as well
    whole = InDouble(nn.Sequential(norm, *model))
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    found = PGD(threat=LINF, steps=5, precision="mixed").run(whole, x, y, verify=False)
    assert seeing.seen == {(True, torch.bfloat16), (False, torch.float64)}
    assert not found.success.any()
    assert (found.x_adv != x).any()
    assert whole(x).dtype == torch.float64
    for name, value in whole.state_dict().items():
        assert torch.equal(value, before[name])


def test_mixed_precision_fools_whom_float32_fools(
    victim: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = victim
    for eps in (0.01, 0.03, 0.3):
        attack = PGD(threat=replace(LINF, eps=eps), steps=20)
        full = attack.run(model, x, y)
        monkeypatch.setattr(passes, "has_bfloat16", lambda _: True)
        mixed = replace(attack, precision="mixed").run(model, x, y)
        assert torch.equal(mixed.success, model(mixed.x_adv).argmax(1) != y)  # verdicts are the model's own
        assert int((mixed.success != full.success).sum()) <= 1
        assert attack.threat.allows(mixed.x_adv, x).all()
        monkeypatch.setattr(passes, "has_bfloat16", lambda _: False)
        same = replace(attack, precision="mixed").run(model, x, y)
        assert torch.equal(same.x_adv, full.x_adv)  # a device without bfloat16 does what it can


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eot": 0}, "draws to average"),
        ({"precision": "float16"}, "float32, bfloat16, mixed, but 'float16'"),
        ({"precision": "mixed", "compile": True}, "leave one out"),
        ({"threat": ThreatModel("l0", 3)}, "works in linf, l2, l1"),
    ],
)
def test_impossible_ways_of_running_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        PGD(**({"threat": LINF} | options))  # type: ignore[arg-type]


def test_the_first_success_is_counted_over_all_restarts(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    result: AttackResult = PGD(threat=replace(LINF, eps=0.02), steps=3, restarts=4).run(model, x, y)
    assert torch.equal(result.first_success >= 0, result.success)
    later = result.restart > 0
    assert later.any()
    assert torch.equal(result.first_success[result.success], (result.restart * 3 + result.steps)[result.success])
    assert (result.member == 0).all()


def test_a_row_stops_at_its_first_success_only_to_evaluate(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    first = PGD(threat=LINF, steps=8).run(model, x, y)
    full = PGD(threat=LINF, steps=8, mode="max-loss").run(model, x, y)
    assert torch.equal(first.success, full.success)
    assert torch.equal(first.first_success, full.first_success)
    loss = Misclassify().loss
    assert (loss(model(full.x_adv), y) >= loss(model(first.x_adv), y) - 1e-5).all()
    assert math.isclose(float(full.forward.double().mean()), 9)
