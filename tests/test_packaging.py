"""What is installed: robustgen's packages and nothing else, from the wheel and from the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from robustgen.bench import SUITES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the sdist of a clean copy of the tree, built with the setuptools that is installed (no network)."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    return out


@pytest.mark.slow
def test_only_robustgens_packages_are_installed(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"robustgen", "robustgen_cli", "robustgen_benchmarks"}
    assert "robustgen/report/page.html.j2" in names
    assert "robustgen/py.typed" in names
    assert {f"robustgen/bench/suites/{name}.toml" for name in SUITES} <= set(names)
    on_disk = {str(path.relative_to(ROOT)) for path in (ROOT / "robustgen").rglob("*.py")}
    assert on_disk <= set(names)


@pytest.mark.slow
def test_the_sdist_holds_what_is_needed_to_build(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {
        "pyproject.toml",
        "README.md",
        "robustgen/__init__.py",
        "cli/robustgen_cli/main.py",
        "robustgen/report/page.html.j2",
    } <= names


def test_every_dependency_gives_its_reason_and_is_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for requirement in tomllib.loads(text)["project"]["dependencies"]:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert "#" in line, f"{requirement} has no reason beside it"
        assert requirement.split(">=")[0].lower() in pins
