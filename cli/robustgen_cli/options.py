"""Options that several commands share, each defined once. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast, get_args

import typer

from robustgen.data import DATA

if TYPE_CHECKING:
    import torch

    from robustgen.attacks.passes import Precision as _Precision


def number(text: str | float) -> float:
    """A number or a fraction: 0.03, 8/255. Typer passes defaults through here too, which are numbers already."""
    try:
        value = float(Fraction(text)) if isinstance(text, str) and "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} is not a number: write it like 0.03 or 8/255")
    return value


class Numbers(tuple[float, ...]):
    """One number a channel, or one for all."""


def numbers(text: str) -> Numbers:
    """Numbers separated by commas: 0.5 or 0.485,0.456,0.406."""
    return Numbers(number(part) for part in text.split(","))


class Sizes(tuple[float, ...]):
    """Of changes, ascending: one or more."""


def sizes(text: str) -> Sizes:
    """Sizes of change: 8/255, a list 1/255,2/255, or a range 0:0.3:16, which is 16 of them from 0 to 0.3."""
    parts = text.split(":")
    if len(parts) == 1:
        return Sizes(sorted({number(part) for part in text.split(",")}))
    count = int(parts[2]) if len(parts) == 3 and parts[2].isascii() and parts[2].isdigit() else 0
    if not 2 <= count <= 1000:
        raise typer.BadParameter(f"{text!r} is not a range: write it like 0:0.3:16 (from, to, how many, 2 to 1000)")
    number(parts[0]), number(parts[1])
    low, high = Fraction(parts[0]), Fraction(parts[1])  # exact, so that 0:0.3:16 holds 0.06 and not its neighbour
    return Sizes(sorted({float(low + (high - low) * i / (count - 1)) for i in range(count)}))


class Counts(tuple[int, ...]):
    """Whole numbers from 0 up."""


def counts(text: str) -> Counts:
    """Whole numbers separated by commas: 8 or 2,4,8."""
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of whole numbers: write it like 8 or 2,4,8")
    return Counts(map(int, parts))


class ImageSize(NamedTuple):
    """Of an image, in pixels."""

    height: int
    width: int


def image_size(text: str) -> ImageSize:
    """Height and width: 32 or 48x64."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is not an image size: write it like 32 or 48x64 (height x width)")
    return ImageSize(int(parts[0]), int(parts[-1]))


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Shell completion from a list of names."""
    known = list(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="A data name (robustgen list data), an image folder, .npz, .npy, .csv or .parquet.",
        autocompletion=among(DATA),
        show_default=False,
    ),
]
Size = Annotated[
    ImageSize | None,
    typer.Option("--size", parser=image_size, metavar="HxW", help="Resize images to this size: 32 or 48x64."),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="An artifact made by train, torchvision:NAME, module:function, path.py:function, or with --trust a "
        ".pt2 or TorchScript file.",
        show_default=False,
    ),
]
OptionalModel = Annotated[
    str | None, typer.Option("--model", help="A classifier, in one of the forms that attack takes.", show_default=False)
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", help="State dict for a model in code: .safetensors, or a torch file holding tensors only."
    ),
]
Mean = Annotated[
    Numbers | None,
    typer.Option(
        "--mean", parser=numbers, metavar="A[,B,C]", help="The model expects inputs normalised by this mean ..."
    ),
]
Std = Annotated[
    Numbers | None,
    typer.Option(
        "--std",
        parser=numbers,
        metavar="A[,B,C]",
        help="... and this standard deviation; eps stays in input units.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Load a .pt2 or TorchScript file: such a file is a program and can do all that you can do."
    ),
]
Detector = Annotated[
    Path, typer.Argument(metavar="DETECTOR", help="A directory made by 'robustgen fit'.", show_default=False)
]
Inputs = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A folder of images, an image, .npz, .npy, .csv, .parquet, or a data name.",
        autocompletion=among(DATA),
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option("--out", help="Directory for the result; appears only when complete.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result at --out.")]
Eps = Annotated[
    Sizes | None,
    typer.Option(
        "--eps",
        parser=sizes,
        metavar="NUMBER",
        help="Largest change allowed, in input units: 0.03 or 8/255; for a curve 1/255,2/255,4/255 or 0:0.3:16 (16 "
        "sizes from 0 to 0.3). May be left out for attacks that look for the smallest change.",
        show_default=False,
    ),
]
Norm = Annotated[
    str,
    typer.Option(
        "--norm", help="How the change is measured: linf, l2 or l1.", autocompletion=among(("linf", "l2", "l1"))
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", help="auto, cpu, cuda, cuda:1, mps.", autocompletion=among(("auto", "cpu", "cuda", "mps"))
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="What attacks search in: float32; mixed, gradients in bfloat16 and every verdict in float32; or, of "
        "attacks on a model alone, bfloat16, with what holds attacked once more in float32.",
        autocompletion=among(("float32", "mixed", "bfloat16")),
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Start of every random choice: the same seed, same result.")
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Inputs on the device at a time; results do not depend on it.")
]
AutoBatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Inputs on the device at a time; by default what suits it.", show_default=False
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use N inputs only.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no warnings.")]
Params = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Any further option of it; may be repeated.")
]
Epochs = Annotated[
    str | None,
    typer.Option(
        "--epochs",
        metavar="N|auto",
        help="Passes through the data; auto = as many as its size (and the preset) asks for.",
        show_default="auto",
    ),
]


def count_of(epochs: str | None) -> int | None:
    """What `--epochs` says, None for auto. Raises `UsageError` for anything that is no count."""
    from robustgen.errors import UsageError

    if epochs is None or epochs == "auto":
        return None
    if not epochs.isdecimal() or int(epochs) < 1:
        raise UsageError(f"--epochs takes a whole number from 1 up, or auto, but {epochs!r} came")
    return int(epochs)


def precision_on(text: str, where: torch.device, quiet: bool) -> _Precision:
    """What `--precision` says, with a warning where the device does not compute in it. Raises `UsageError` for another
    word.
    """
    from robustgen import runtime
    from robustgen.attacks.passes import Precision as Known
    from robustgen.errors import UsageError
    from robustgen.registry import suggestion
    from robustgen_cli import output

    if text not in get_args(Known):
        raise UsageError(suggestion(text, get_args(Known), "precision"))
    if text == "mixed" and not runtime.has_bfloat16(where):
        output.warn(["this device has no bfloat16: mixed is the same as float32 here"], quiet)
    if text == "bfloat16" and where.type == "cpu" and not runtime.has_bfloat16(where):
        output.warn(["this processor has no bfloat16: torch imitates it, many times slower than float32"], quiet)
    return cast("_Precision", text)
