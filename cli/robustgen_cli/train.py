"""`robustgen train`: a classifier."""

from __future__ import annotations

from typing import Annotated

import typer

from robustgen.errors import UsageError
from robustgen.models import ARCHITECTURES
from robustgen_cli import options as o
from robustgen_cli import output


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    data: o.Data,
    out: o.Out,
    arch: Annotated[
        str,
        typer.Option(
            "--arch", help="small-cnn, small-resnet, mlp, or torchvision:NAME.", autocompletion=o.among(ARCHITECTURES)
        ),
    ] = "small-cnn",
    epochs: o.Epochs = None,
    learning_rate: Annotated[float, typer.Option("--lr", help="Peak learning rate of the one-cycle schedule.")] = 2e-3,
    adversarial: Annotated[
        str | None,
        typer.Option(
            "--adversarial",
            metavar="pgd|fast-fgsm|trades",
            help="Train against pgd (strong, slow), fast-fgsm (or fast; one step), or trades (clean accuracy and "
            "--beta times steadiness under attack).",
            autocompletion=o.among(("pgd", "fast-fgsm", "trades")),
        ),
    ] = None,
    eps: Annotated[
        float,
        typer.Option(
            "--eps", parser=o.number, metavar="NUMBER", help="Of --adversarial, in input units.", show_default="8/255"
        ),
    ] = 8 / 255,
    norm: o.Norm = "linf",
    steps: Annotated[int, typer.Option("--steps", min=1, help="PGD steps of --adversarial pgd or trades.")] = 7,
    beta: Annotated[
        float | None,
        typer.Option(
            "--beta",
            help="Of --adversarial trades: the weight of robustness beside clean accuracy; 0 = plain training.",
            show_default="6",
        ),
    ] = None,
    size: o.Size = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Inputs a step.")] = 128,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Train a classifier, plainly or adversarially, and measure its clean accuracy.

    A killed run goes on from its last checkpoint when the same command is given again.

    Example: robustgen train --data fashion-mnist --arch small-cnn --out victim/
    """
    from robustgen import runtime
    from robustgen.artifacts import RESULTS, check_free, staged, to_json
    from robustgen.data.load import load
    from robustgen.evaluation.adversaries import adversary
    from robustgen.evaluation.robustness import fingerprint
    from robustgen.training.classifier import default_epochs
    from robustgen.training.classifier import train as run
    from robustgen.training.descent import Recipe

    if beta is not None and adversarial != "trades":
        raise UsageError("--beta is the weight of robustness in --adversarial trades: leave it out, or train by trades")
    check_free(out, force)
    where = runtime.device(device)
    source = load(data, size=size)
    recipe = Recipe(
        epochs=o.count_of(epochs) or default_epochs(len(source.rows("train"))),
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    against, config = None, None
    if adversarial:
        weight = {} if beta is None else {"beta": beta}
        against, config = adversary(adversarial, source.spec, norm=norm, eps=eps, steps=steps, **weight)
    key = fingerprint(
        command="train", data=source.spec.sha256, arch=arch, recipe=vars(recipe), adversary=config, device=str(where)
    )
    with staged(out, force, key) as directory:
        checkpoint = directory / "checkpoint.pt"
        with output.epochs(f"training {arch}", quiet) as progress:
            trained = run(
                source,
                arch,
                recipe=recipe,
                adversary=against,
                adversary_config=config,
                device=where,
                checkpoint=checkpoint,
                progress=progress,
            )
        trained.save(directory)
        (directory / RESULTS).write_text(to_json(trained.summary), encoding="utf-8")
        checkpoint.unlink(missing_ok=True)
    output.warn_skipped(source.skipped, quiet)
    found = trained.summary
    if json:
        output.emit(found)
    else:
        low, high = found["clean_accuracy_interval"]
        output.facts(
            [
                (
                    "clean accuracy",
                    f"{found['clean_accuracy']:.2%} [{low:.2%}, {high:.2%}] on {found['n_test']} test inputs",
                ),
                (
                    "trained on",
                    f"{found['n_train']} inputs of {found['data']}, {found['epochs']} epochs, {found['seconds']:.1f} "
                    f"s on {found['device']['device']}",
                ),
                ("classifier", str(out)),
            ]
        )
