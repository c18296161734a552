from __future__ import annotations

import math
import subprocess
import sys
import time
from contextvars import copy_context
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.pgd import PGD
from robustgen.data.arrays import load_npz
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.errors import DataError, RobustgenError, UsageError
from robustgen.evaluation.adversaries import adversary
from robustgen.evaluation.robustness import evaluate_attack
from robustgen.models.autoencoder import ConvolutionalAutoencoder, DenseAutoencoder, ResidualAutoencoder, autoencoder
from robustgen.runtime import communication_done
from robustgen.threat import ThreatModel
from robustgen.training import plan
from robustgen.training.classifier import default_epochs, train
from robustgen.training.descent import Recipe, descend
from robustgen.training.supervised import accuracy, channel_statistics

CPU = torch.device("cpu")


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


def regression(seed: int = 0) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.random.manual_seed(seed)
        network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4))
    return network, torch.randn(64, 4, generator=torch.Generator().manual_seed(seed))


def batches(x: Tensor, size: int = 16):  # type: ignore[no-untyped-def]
    return lambda shuffle: iter(x[torch.randperm(len(x), generator=shuffle)].split(size))


def reconstruction(model: nn.Module, x: Tensor, step: int) -> Tensor:
    error: Tensor = (model(x) - x).square().mean(1)
    return error


def test_training_repeats_from_its_seed_and_leaves_the_global_state_alone() -> None:
    state, weights = torch.get_rng_state(), []
    for _ in range(2):
        network, x = regression()
        history = descend(network, reconstruction, batches(x), 64, Recipe(epochs=5, batch_size=16), device=CPU)
        weights.append(nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert len(history) == 5
    assert history[-1] < history[0]
    assert not network.training


def test_training_gives_the_weights_of_a_plain_loop() -> None:
    recipe = Recipe(epochs=3, batch_size=16, seed=7)
    network, x = regression()
    plain, _ = regression()
    descend(network, reconstruction, batches(x), 64, recipe, device=CPU)
    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=13)
    with torch.random.fork_rng():
        torch.random.manual_seed(7)
        for epoch in range(3):
            for batch in batches(x)(torch.Generator().manual_seed(7 * 1_000_003 + epoch)):
                optimizer.zero_grad()
                reconstruction(plain.train(), batch, 0).mean().backward()
                optimizer.step()
                schedule.step()
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: float
) -> None:
    """Dropout, shuffling, momentum and the schedule all go on where they were."""
    monkeypatch.setattr("robustgen.training.descent._CHECKPOINT_EVERY", -1.0)
    recipe = Recipe(epochs=6, batch_size=16, average=average)
    whole, x = regression()

    def judge(model: nn.Module) -> float:
        return reconstruction(model, x, 0).mean().item()

    expected = descend(whole, reconstruction, batches(x), 64, recipe, device=CPU, validate=judge)

    def stop_after_three(done: int, of: int, loss: float) -> None:
        if done == 3:
            raise Stop

    checkpoint = tmp_path / "checkpoint.pt"
    half, _ = regression()
    with pytest.raises(Stop):
        descend(
            half, reconstruction, batches(x), 64, recipe, device=CPU, validate=judge, checkpoint=checkpoint,
            progress=stop_after_three,
        )  # fmt: skip
    resumed, _ = regression(seed=99)  # other weights: everything must come from the checkpoint
    seen: list[int] = []
    history = descend(
        resumed, reconstruction, batches(x), 64, recipe, device=CPU, validate=judge, checkpoint=checkpoint,
        progress=lambda done, of, loss: seen.append(done),
    )  # fmt: skip
    assert seen == [4, 5, 6]
    assert history == expected
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_best_epoch_is_kept_and_patience_ends_training() -> None:
    """The validation loss is the distance to weights that training passes through: those of its third epoch."""
    third: list[Tensor] = []

    def keep(done: int, of: int, loss: float) -> None:
        if done == 3:
            third.append(nn.utils.parameters_to_vector(network.parameters()).clone())

    network, x = regression()
    descend(network, reconstruction, batches(x), 64, Recipe(epochs=30, batch_size=16), device=CPU, progress=keep)
    again, _ = regression()
    recipe = Recipe(epochs=30, batch_size=16, patience=4)

    def distance(model: nn.Module) -> float:
        assert not model.training
        return (nn.utils.parameters_to_vector(model.parameters()) - third[0]).norm().item()

    history = descend(again, reconstruction, batches(x), 64, recipe, device=CPU, validate=distance)
    assert len(history) == 3 + 4
    assert torch.equal(nn.utils.parameters_to_vector(again.parameters()), third[0])


def test_averaged_weights_are_the_moving_average() -> None:
    seen: list[Tensor] = []
    network, x = regression()

    def watched(model: nn.Module, batch: Tensor, step: int) -> Tensor:
        seen.append(nn.utils.parameters_to_vector(network.parameters()).detach().clone())
        return reconstruction(model, batch, step)

    plain, _ = regression()
    descend(plain, reconstruction, batches(x), 64, Recipe(epochs=4, batch_size=16), device=CPU)
    descend(network, watched, batches(x), 64, Recipe(epochs=4, batch_size=16, average=0.9), device=CPU)
    seen.append(nn.utils.parameters_to_vector(plain.parameters()).detach())  # after the last step
    expected = seen[1]  # the mean begins with the weights after the first step
    for weights in seen[2:]:
        expected = 0.9 * expected + 0.1 * weights
    torch.testing.assert_close(nn.utils.parameters_to_vector(network.parameters()), expected)


def test_reduced_precision_comes_near(digits: Source) -> None:
    losses = [
        train(digits, "mlp", recipe=Recipe(epochs=2, precision=precision)).summary["losses"]
        for precision in ("float32", "auto", "bfloat16")
    ]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] == pytest.approx(losses[2], rel=0.05)


def test_a_plan_follows_the_data_and_the_preset() -> None:
    def epochs(preset: str, n: int, given: int | None = None) -> int:
        return plan.recipe(preset, n, epochs=given, batch_size=100, learning_rate=1e-3, seed=0).epochs

    assert (epochs("default", 5000), epochs("default", 60_000), epochs("default", 100)) == (20, 5, 200)
    assert epochs("fast", 5000) < epochs("default", 5000) < epochs("best", 5000)
    assert epochs("best", 5000, 3) == 3
    with pytest.raises(UsageError, match="did you mean 'best'"):
        epochs("bestt", 5000)


def test_divergence_is_reported() -> None:
    network, x = regression()
    with pytest.raises(RobustgenError, match="diverged in epoch 1.*lower the learning rate"):
        descend(network, lambda m, b, s: m(b).mean(1) / 0, batches(x), 64, Recipe(epochs=2, batch_size=16), device=CPU)
    for wrong in ({"average": 1.0}, {"patience": 0}):
        with pytest.raises(UsageError, match="average|patience"):
            Recipe(epochs=1, **wrong)
    for wrong in ({"epochs": 0}, {"epochs": 1, "batch_size": 0}, {"epochs": 1, "learning_rate": 0.0}):
        with pytest.raises(UsageError, match="at least 1|above 0"):
            Recipe(**wrong)  # type: ignore[arg-type]


def test_communication_is_over_when_no_thread_holds_the_context() -> None:
    """A thread that was handed a copy is waited for, but not beyond the patience."""
    dropped = []

    def hold(copies: list[object]) -> None:
        time.sleep(0.2)
        dropped.append(time.monotonic())
        copies.clear()

    with communication_done():
        copies: list[object] = [copy_context()]
        thread = Thread(target=hold, args=(copies,))
        thread.start()
    left = time.monotonic()
    thread.join()
    assert dropped[0] <= left
    with communication_done(patience=0.05):
        copies.append(copy_context())
    assert len(copies) == 1


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    """Started by torch's launcher, both end with the same weights, and each saw its own half of the batches. They part
    by themselves.
    """
    script = tmp_path / "job.py"
    script.write_text(
        "import torch, sys\n"
        "from torch import nn\n"
        "from robustgen.training.descent import Recipe, descend\n"
        "from robustgen.runtime import accelerator\n"
        "network, x, seen = nn.Linear(4, 4), torch.arange(256.0).reshape(64, 4) / 256, []\n"
        "torch.nn.init.zeros_(network.weight); torch.nn.init.zeros_(network.bias)\n"
        "def loss(m, b, s):\n"
        "    seen.append(b[:, 0].clone())\n"
        "    return (m(b) - b).square().mean(1)\n"
        "epoch = lambda g: iter(x[torch.randperm(64, generator=g)].split(16))\n"
        "descend(network, loss, epoch, 64, Recipe(epochs=2, batch_size=16), device=torch.device('cpu'))\n"
        "rank = accelerator().process_index\n"
        "assert accelerator().num_processes == 2\n"
        "torch.save([network.weight.detach(), torch.cat(seen)], sys.argv[1] + f'/{rank}.pt')\n"
    )
    # Port 0: any that is free, since another run on the same machine may hold a fixed one.
    launch = "-m torch.distributed.run --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint localhost:0"
    command = [sys.executable, *launch.split(), "--local-addr", "localhost", str(script), str(tmp_path)]
    environment = {
        "PYTHONPATH": ":".join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(command, check=False, env=environment, timeout=200, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (first, rows_1), (second, rows_2) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first, second)
    assert len(rows_1) == len(rows_2) == 64
    assert set(rows_1[:32].tolist()).isdisjoint(rows_2[:32].tolist())


def test_a_classifier_learns_digits_and_knows_its_accuracy(digits: Source) -> None:
    trained = train(digits, recipe=Recipe(epochs=25))
    assert trained.summary["clean_accuracy"] > 0.95
    assert trained.summary["n_test"] == 360
    measured = accuracy(trained.model.network, digits, device=CPU)
    assert measured.value == trained.summary["clean_accuracy"]


def test_adversarial_training_buys_robustness(digits: Source) -> None:
    """All kinds, at the price of a little clean accuracy, hold where plain training falls."""
    threat = ThreatModel("linf", 0.15)
    robust = {}
    for kind in (None, "fast-fgsm", "pgd", "trades"):
        against, config = adversary(kind, digits.spec, eps=0.15, steps=4) if kind else (None, None)
        trained = train(digits, "mlp", recipe=Recipe(epochs=30), adversary=against, adversary_config=config)
        found = evaluate_attack("pgd", PGD(threat=threat, steps=10), trained.model.network, digits)
        robust[kind] = found.robust_accuracy.value
        assert trained.summary["clean_accuracy"] > 0.9
        assert (trained.summary["adversarial"] or {}).get("attack") == kind
    assert robust["pgd"] > robust[None] + 0.15
    assert robust["fast-fgsm"] > robust[None] + 0.15
    assert robust["trades"] > robust[None] + 0.15
    with pytest.raises(UsageError, match="did you mean 'pgd'"):
        adversary("pdg", digits.spec)


def test_trades_without_weight_is_plain_training(digits: Source) -> None:
    """To the last bit, dropout and batch norm included."""
    plain = train(digits, "small-cnn", recipe=Recipe(epochs=1))
    against, config = adversary("trades", digits.spec, eps=0.1, steps=2, beta=0)
    trained = train(digits, "small-cnn", recipe=Recipe(epochs=1), adversary=against, adversary_config=config)
    assert trained.summary["losses"] == plain.summary["losses"]
    assert trained.model.sha256 == plain.model.sha256


def test_the_loss_of_trades_is_its_equation(digits: Source) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x = digits.read(digits.rows("test")[:20])
    against, _ = adversary("trades", digits.spec, eps=0.1, steps=3, beta=6)
    assert x.y is not None
    x_adv = against.attack(network, x.x, x.y, 5)
    assert ThreatModel("linf", 0.1).allows(x_adv, x.x).all()
    clean, attacked = network(x.x), network(x_adv)
    apart = nn.functional.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="none").sum(1)
    expected = nn.functional.cross_entropy(clean, x.y, reduction="none") + 6 * apart
    torch.testing.assert_close(against.loss(network, network, x.x, x.y, 5), expected)
    assert torch.equal(x_adv, against.attack(network, x.x, (x.y + 1) % 10, 5))  # whatever the label is
    still, _ = adversary("trades", digits.spec, eps=0, steps=3, beta=6)
    plain = nn.functional.cross_entropy(clean, x.y, reduction="none")
    torch.testing.assert_close(still.loss(network, network, x.x, x.y, 5), plain)


def test_kinds_of_adversarial_training_have_names(digits: Source) -> None:
    assert adversary("fast", digits.spec)[1] == adversary("fast-fgsm", digits.spec)[1]
    for beta in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="from 0 up"):
            adversary("trades", digits.spec, beta=beta)


def test_statistics_are_those_of_the_training_split(digits: Source) -> None:
    x = torch.cat([batch.x for batch in digits.batches("train", 100)])
    mean, std = channel_statistics(digits)
    assert mean[0] == pytest.approx(x.mean().item(), abs=1e-5)
    assert std[0] == pytest.approx(x.std(correction=0).item(), abs=1e-5)


def test_unlabelled_or_single_class_data_are_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "plain.npz", x=x)
    np.savez(tmp_path / "one.npz", x=x, y=np.zeros(40, dtype=np.int64))
    with pytest.raises(DataError, match="no labels"):
        train(load_npz(tmp_path / "plain.npz"))
    with pytest.raises(DataError, match="one class only"):
        train(load_npz(tmp_path / "one.npz"))


def test_default_epochs() -> None:
    assert (default_epochs(54_000), default_epochs(1078), default_epochs(1_000_000)) == (5, 60, 5)


@pytest.mark.parametrize("kind", [ConvolutionalAutoencoder, ResidualAutoencoder])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 23), (1, 28, 28), (3, 64, 32)])
def test_autoencoders_of_images_fit_any_size(
    shape: tuple[int, ...], kind: type[ConvolutionalAutoencoder | ResidualAutoencoder]
) -> None:
    network = kind(shape, 8)
    assert network(torch.rand(2, *shape)).shape == (2, *shape)
    assert network.encoder(torch.rand(2, *shape)).shape == (2, 8)


def test_the_kind_of_autoencoder_follows_the_data() -> None:
    assert isinstance(autoencoder("auto", (1, 28, 28), 4), ConvolutionalAutoencoder)
    assert isinstance(autoencoder("auto", (1, 8, 8), 4), DenseAutoencoder)
    assert isinstance(autoencoder("auto", (30,), 4), DenseAutoencoder)
    assert autoencoder("dense", (30,), 4)(torch.rand(2, 30)).shape == (2, 30)
    with pytest.raises(UsageError, match="dense, convolutional, residual or auto"):
        autoencoder("deep", (30,), 4)
    with pytest.raises(UsageError, match="use the dense one"):
        autoencoder("convolutional", (30,), 4)
    for wrong in ("dense:0", "dense:8,", "dense:a", "residual:8"):
        with pytest.raises(UsageError, match="as in dense:128,64"):
            autoencoder(wrong, (1, 8, 8), 4)
    layers = [layer for layer in autoencoder("dense:20,10", (5, 6), 4).modules() if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [
        (30, 20), (20, 10), (10, 4), (4, 10), (10, 20), (20, 30)
    ]  # fmt: skip


def test_a_linear_autoencoder_would_reach_pca(generator: torch.Generator) -> None:
    """On data of rank 3 an autoencoder with a code of 3 has a reconstruction without error; training comes close."""
    from robustgen.detectors.autoencoder import AutoencoderDetector

    x = torch.rand(512, 3, generator=generator) @ torch.rand(3, 20, generator=generator) / 3
    detector = AutoencoderDetector(code=3, epochs=60, scores="l2").fit(x)
    with torch.no_grad():
        assert detector.score(x).mean() < 0.05  # of a variance of 1, to which columns are brought
        assert math.isfinite(detector.score(x).max())
