"""`robustgen certify`: a proof on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_a_guard_is_certified(run: Run, refused: Callable[..., str], world: Path, tmp_path: Path) -> None:
    data = ("--data", world / "two.npz")
    assert run("train", *data, "--arch", "mlp", "--epochs", 2, "--out", "vic", "--quiet").code == 0
    fit = ("fit", "certified-gat", *data, "--model", "vic", "--param", "steps=60", "--param", "eps=0.05")
    assert run(*fit, "--out", "cert", "--quiet").code == 0
    assert run("fit", "pca", *data, "--out", "pca", "--quiet").code == 0
    made = ("guard", "--model", "vic", *data, "--fpr", "1/10", "--quiet")
    assert run(*made, "--detector", "cert", "--out", "g").code == 0
    assert run(*made, "--detector", "pca", "--out", "none").code == 0

    certify = ("certify", "--guard", "g", *data, "--split", "all")
    found = [run(*certify, "--eps", eps, "--json").json for eps in (0.001, "1/20", 0.4)]
    shares = [one["certified_robust_accuracy"]["value"] for one in found]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2]
    first = found[0]
    assert (first["method"], first["norm"], first["split"]) == ("interval", "linf", "all")
    assert first["certified_useful"]["value"] <= min(first["useful"]["value"], shares[0])
    assert f"{shares[0]:.1%}" in first["sentence"]

    ran = run(*certify, "--eps", "1/20", "--limit", 10)
    assert (ran.code, ran.err) == (0, "")
    assert "certified robust accuracy with detector" in " ".join(ran.out.split())
    assert "it is proven that no change" in ran.out

    assert "no bounds are known of the scores of pca" in refused("certify", "--guard", "none", *data, "--eps", 0.1)
    assert "did you mean 'interval'" in refused(*certify, "--eps", 0.1, "--method", "intervall")
    assert "is a detector, but a guard is needed" in refused("certify", "--guard", "pca", *data, "--eps", 0.1)
    assert "eps" in refused(*certify, "--eps", -1)
