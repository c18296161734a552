from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.square import Square, SquareOnward
from robustgen.attacks.square_windows import HALVINGS, Schedule, as_image, bump, window_sizes
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, margin
from robustgen.testing import check_attack
from robustgen.threat import Norm, ThreatModel
from toys import Counting, Linear2, small_cnn

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


class Watched(nn.Module):
    """Class 0 for everything, and a note of every point."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.points.append(x.detach().clone().contiguous())
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)


def test_windows_shrink_on_the_published_schedule() -> None:
    """Shares p, p/2, ... of 784 and of 3,072 pixels (table 1 of the paper halves them after 10, 50, 200, ...)."""
    squares = [s for s, _ in window_sizes((1, 28, 28), 0.8, odd=False)]
    assert squares == [round(math.sqrt(0.8 / 2**k) * 28) for k in range(10)]
    assert window_sizes((3, 32, 32), 0.8, odd=True)[:3] == [(29, 29), (21, 21), (15, 15)]
    assert window_sizes((3, 32, 32), 0.8, odd=True)[-1] == (3, 3)
    level = Schedule((1, 28, 28), 0.8, odd=False, device=torch.device("cpu")).level
    assert level(torch.tensor([0, 10, 11, 50, 51, 8000, 8001])).tolist() == [0, 0, 1, 1, 2, 8, 9]
    assert len(HALVINGS) == 9


def test_windows_of_narrow_images_keep_their_area() -> None:
    assert window_sizes((1, 1, 100), 0.8, odd=False)[:3] == [(1, 80), (1, 40), (1, 20)]
    assert window_sizes((2, 40, 10), 0.5, odd=False)[:2] == [(20, 10), (10, 10)]
    assert window_sizes((1, 1, 1), 0.8, odd=True)[0] == (1, 1)
    assert [as_image(s) for s in ((7,), (4, 7), (3, 4, 7), (2, 3, 4, 7))] == [
        (1, 1, 7),
        (1, 4, 7),
        (3, 4, 7),
        (6, 4, 7),
    ]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 9])
def test_bumps_are_two_piles_of_squares(side: int, order: int) -> None:
    """The paper's own construction: squares around the middle, each one larger and lower than the last."""

    def pile(height: int, width: int) -> Tensor:
        total = torch.zeros(height, width)
        for k in range(max(height // 2, width // 2) + 1):
            rows, columns = (slice(max(0, s // 2 - k), s // 2 + k + 1) for s in (height, width))
            total[rows, columns] += (k + 1.0) ** (-4 if order == 1 else -2)
        return total / torch.linalg.vector_norm(total, order) if total.numel() else total

    upper, lower = pile(side // 2, side), pile(side - side // 2, side)
    got = bump(side, side, order)
    expected = torch.cat([upper, -lower])
    torch.testing.assert_close(got, expected / torch.linalg.vector_norm(expected, order))


def test_windows_fall_everywhere_alike() -> None:
    """Every place from the first to the last, equally often; rows at different steps side by side."""
    schedule = Schedule((1, 6, 9), 0.2, odd=False, device=torch.device("cpu"))
    grid = (torch.arange(700) + 0.5) / 700
    (window,) = schedule.windows(torch.zeros(700, dtype=torch.int64), torch.stack([grid, grid.flip(0)], 1))
    assert schedule.sizes[0] == (3, 3)
    assert window.corner[:, 0].bincount().tolist() == [175] * 4
    assert window.corner[:, 1].bincount().tolist() == [100] * 7
    level = torch.tensor([0, 9])
    (window,) = schedule.windows(level, torch.full((2, 2), 0.999))
    assert sorted(set(window.place[0, 0].tolist())) == [33, 34, 35, 42, 43, 44, 51, 52, 53]
    assert set(window.place[1, 0].tolist()) == {53}
    assert window.inside.flatten(1).sum(1).tolist() == [9, 1]


def test_a_linf_query_moves_one_window_to_its_ends(generator: torch.Generator) -> None:
    x, watched = torch.rand(5, 2, 9, 9, generator=generator), Watched()
    Square(threat=ThreatModel("linf", 0.1), queries=60).run(watched, x, torch.zeros(5, dtype=torch.int64))
    start = watched.points[0]
    low, high = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
    assert all(((p == low) | (p == high)).all() for p in watched.points)
    upwards = start == high
    assert (upwards == upwards[:, :, :1]).float().mean() > 0.97  # stripes, but for values at a wall
    sizes, touched = window_sizes((2, 9, 9), 0.8, odd=False), torch.zeros(9, 9, dtype=torch.bool)
    for query, point in enumerate(watched.points[1:]):
        side = sizes[sum(query > h for h in HALVINGS)][0]
        changed = (point != start).any(1)
        touched |= changed.any(0)
        assert (changed.any(2).sum(1) <= side).all()
        assert (changed.any(1).sum(1) <= side).all()
    assert touched[[0, 0, 8, 8], [0, 8, 0, 8]].all()
    assert not torch.equal(watched.points[1][0] != start[0], watched.points[1][1] != start[1])  # a window for each row


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("shape", [(1, 10, 10), (3, 10, 10)])
def test_l2_and_l1_queries_use_the_whole_budget(norm: Norm, shape: tuple[int, ...], generator: torch.Generator) -> None:
    x, watched = 0.5 + 0.1 * torch.rand(4, *shape, generator=generator), Watched()
    threat = ThreatModel(norm, 1.0, low=-9, high=9)
    Square(threat=threat, queries=25).run(watched, x, torch.zeros(4, dtype=torch.int64))
    for point in watched.points:
        torch.testing.assert_close(threat.distance(point, x), torch.ones(4), rtol=1e-4, atol=0)
    assert len({tuple(p[0].flatten().tolist()) for p in watched.points}) > 20


def test_a_window_takes_over_what_it_replaces(generator: torch.Generator) -> None:
    """Outside its two windows an L2 query changes nothing, before the whole is brought back to length eps."""
    x, watched = torch.full((1, 1, 20, 20), 0.5), Watched()
    threat = ThreatModel("l2", 1.0, low=-9, high=9)
    Square(threat=threat, queries=280).run(watched, x, torch.zeros(1, dtype=torch.int64))
    start = watched.points[0] - x
    for point in watched.points[251:]:  # windows of 7 x 7
        same = ((point - x) - start).abs() < 1e-4
        assert same.sum() >= 400 - 2 * 49
        assert not same.all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_value_never_falls_and_a_linear_model_gives_way(norm: Norm, generator: torch.Generator) -> None:
    weight = torch.randn(36, generator=generator)
    model, x = Linear2(weight, 0.1), 0.3 * torch.randn(20, 36, generator=generator)
    y = model(x).argmax(1)
    x, nearest = x.reshape(20, 1, 6, 6), model.distance(x, norm)
    share = {"linf": 1.05, "l2": 1.6, "l1": 2.0}[norm]  # what random search reaches in so few queries
    for row in (0, 10):
        one = slice(row, row + 1)
        for times, fooled in ((share, True), (0.97, False)):
            threat = ThreatModel(norm, times * nearest[row].item(), low=-50, high=50)
            result = Square(threat=threat, queries=500).run(model, x[one], y[one])
            assert bool(result.success) == fooled
            assert margin(model(result.x_adv), y[one]) > margin(model(x[one]), y[one])


def test_pass_counts_are_exact(generator: torch.Generator) -> None:
    x, network = torch.rand(30, 1, 8, 8, generator=generator), small_cnn().eval()
    with torch.no_grad():
        y = network(x).argmax(1)
    model = Counting(network)
    result = Square(threat=ThreatModel("linf", 0.02), queries=40, restarts=2, batch_size=7).run(model, x, y)
    won = result.success
    assert 3 < won.sum() < 27
    assert (result.forward[~won] == 2 * 41).all()
    assert torch.equal(result.forward[won], (result.steps + 41 * result.restart + 1)[won])
    assert model.forward_rows == result.forward.sum()
    assert model.backward_rows == 0
    assert (result.backward == 0).all()


def test_more_queries_and_restarts_fool_no_fewer(generator: torch.Generator) -> None:
    x, model = torch.rand(30, 1, 8, 8, generator=generator), small_cnn().eval()
    with torch.no_grad():
        y = model(x).argmax(1)
    threat = ThreatModel("linf", 0.02)
    few, many, again = (
        Square(threat=threat, queries=q, restarts=r).run(model, x, y).success for q, r in ((20, 1), (80, 1), (20, 3))
    )
    assert (many >= few).all()
    assert (again >= few).all()
    assert few.sum() < min(many.sum(), again.sum())


def test_a_target_is_reached(generator: torch.Generator) -> None:
    x, model = torch.rand(12, 1, 8, 8, generator=generator), small_cnn().eval()
    with torch.no_grad():
        target = model(x).topk(2, dim=1).indices[:, 1]
        attack = Square(threat=ThreatModel("linf", 0.3), queries=80, objective=Misclassify(margin, targeted=True))
        assert torch.equal(model(attack(model, x, target)).argmax(1), target)


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 7), (20,)])
def test_contract(shape: tuple[int, ...]) -> None:
    """35 queries: more than are drawn at once."""
    check_attack(lambda threat: Square(threat=threat, queries=35), shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries must be"),
        ({"restarts": 0}, "restarts must be"),
        ({"p_init": 1.2}, "p_init is a share"),
    ],
)
def test_impossible_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Square(threat=ThreatModel("l2", 1.0), **options)


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 7), (9,)])
def test_square_onward_keeps_the_promises_of_an_attack(shape: tuple[int, ...]) -> None:
    check_attack(lambda threat: SquareOnward(threat=threat, queries=35), shape)


class FirstAlone:
    """A success only where the first pixel is brighter and all others are what they were, a grey of one half."""

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        wrong, changed = x.flatten(1)[:, 0] > 0.55, (x.flatten(1)[:, 1:] != 0.5).sum(1)
        return wrong.float() - changed / 100, wrong & (changed == 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_onward_goes_on_from_its_starts_and_takes_changes_back(norm: Norm) -> None:
    """Square changes what it has changed once more, and never leaves a pixel alone again; L2 moves its bumps away."""
    x = torch.full((8, 1, 6, 6), 0.5)
    y, threat = torch.zeros(8, dtype=torch.int64), ThreatModel(norm, 0.1 if norm == "linf" else 0.6)
    options: dict[str, Any] = {"threat": threat, "objective": FirstAlone(), "queries": 600}
    onward = SquareOnward(**options, starts=x + 0.1).run(Watched(), x, y)
    assert onward.success.all()
    assert threat.allows(onward.x_adv, x).all()
    if norm == "linf":
        assert not Square(**options).run(Watched(), x, y).success.any()


def test_square_onward_stops_at_a_start_that_succeeds(generator: torch.Generator) -> None:
    model, x = small_cnn(), torch.rand(12, 1, 8, 8, generator=generator)
    y = model.eval()(x).argmax(1)
    strong = Square(threat=ThreatModel("linf", 0.3), queries=200).run(model, x, y)
    onward = SquareOnward(threat=ThreatModel("linf", 0.3), queries=5, starts=strong.x_adv).run(model, x, y)
    assert strong.success.any()
    torch.testing.assert_close(onward.x_adv[strong.success], strong.x_adv[strong.success])
    assert (onward.first_success[strong.success] == 0).all()


def test_square_onward_asks_for_a_start_of_each_input() -> None:
    attack = SquareOnward(threat=ThreatModel("linf", 0.1), starts=torch.zeros(2, 4))
    with pytest.raises(UsageError, match="one start is needed for each input"):
        attack.run(Watched(), torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(UsageError, match="p_init"):
        SquareOnward(threat=ThreatModel("linf", 0.1), p_init=0.0)
