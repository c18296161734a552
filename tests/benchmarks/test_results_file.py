"""A benchmark's file: read back as written, gone on from, and whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustgen.errors import DataError, OutputError
from robustgen_benchmarks.results_file import ResultsFile

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    out = tmp_path / "new" / "found.json"
    file = ResultsFile(out, "run a", "pytest", "no-such-package", data_sha256="0f", n=3)
    assert file.done("detector", "seed") == set()
    assert not out.exists(), "nothing is written before something is measured"
    file.add({"detector": "pca", "seed": 0, "auroc": 0.5}, {"detector": "pca", "seed": 1, "auroc": float("nan")})
    stored = read(out)
    assert stored.keys() == {"commands", "data_sha256", "date", "machine", "n", "results", "versions"}
    assert stored["commands"] == ["run a"]
    assert (stored["data_sha256"], stored["n"]) == ("0f", 3)
    assert stored["versions"].keys() >= {"torch", "pytest"}
    assert "no-such-package" not in stored["versions"]
    assert [row["auroc"] for row in stored["results"]] == [0.5, None]
    assert out.read_text(encoding="utf-8") == file.text()
    again = ResultsFile(out, "run a", "pytest", data_sha256="0f", n=3)
    assert again.results == stored["results"]
    assert again.done("detector", "seed") == {("pca", 0), ("pca", 1)}
    assert again.done("detector") == {("pca",)}


def test_a_second_run_keeps_results_commands_and_unknown_keys(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    ResultsFile(out, "run a", n=1).add({"seed": 0})
    out.write_text(json.dumps(read(out) | {"note": "by hand", "date": "2001-01-01"}), encoding="utf-8")
    ResultsFile(out, "run b", n=2).add({"seed": 1})
    ResultsFile(out, "run a", n=3).add({"seed": 2})
    stored = read(out)
    assert stored["commands"] == ["run a", "run b"], "each once, the first first"
    assert [row["seed"] for row in stored["results"]] == [0, 1, 2]
    assert (stored["note"], stored["n"]) == ("by hand", 3)
    assert stored["date"] != "2001-01-01"


def test_an_older_file_has_one_command(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    out.write_text(json.dumps({"command": "run a", "results": [{"seed": 0}]}), encoding="utf-8")
    file = ResultsFile(out, "run b")
    assert file.done("seed") == {(0,)}
    file.add({"seed": 1})
    assert read(out)["commands"] == ["run a", "run b"]
    assert "command" not in read(out)


def test_rows_by_name(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    file = ResultsFile(out, None)
    file.rows.setdefault("pca", {})["0.1"] = 0.5
    file.save()
    assert read(out)["rows"] == {"pca": {"0.1": 0.5}}
    assert read(out).keys().isdisjoint({"command", "commands", "results"})
    again = ResultsFile(out, None)
    again.rows["pca"]["0.2"] = 0.25
    again.save()
    assert read(out)["rows"] == {"pca": {"0.1": 0.5, "0.2": 0.25}}


def test_beginning_anew_replaces_at_the_first_save(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    ResultsFile(out, "run a", n=1).add({"seed": 0})
    before = out.read_bytes()
    file = ResultsFile(out, "run b", go_on=False)
    assert file.results == []
    assert out.read_bytes() == before
    file.add({"seed": 1})
    assert (read(out)["results"], read(out)["commands"]) == ([{"seed": 1}], ["run b"])
    assert "n" not in read(out)


def test_without_a_path_all_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = ResultsFile(None, "run a")
    file.add({"seed": 0})
    assert file.done("seed") == {(0,)}
    assert json.loads(file.text())["results"] == [{"seed": 0}]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "found.json"
    file = ResultsFile(out, "run a")
    file.add({"seed": 0})
    before = out.read_bytes()

    def full(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text[:20].encode(encoding))
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match="No space left"):
            file.add({"seed": 1})
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(TypeError):
        file.add({"seed": object()})
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    named = ResultsFile(out, "run a")
    named.rows["pca"] = {"auroc": 0.5}
    named.save()
    with pytest.raises(DataError, match=r'no "results".*--out'):
        ResultsFile(out, "run b").done("seed")
    ResultsFile(tmp_path / "list.json", "run b").add({"seed": 0})
    with pytest.raises(DataError, match='no "rows"'):
        _ = ResultsFile(tmp_path / "list.json", "run a").rows
    with pytest.raises(KeyError):
        ResultsFile(tmp_path / "list.json", "run b").done("set")


@pytest.mark.parametrize("name", ["one_class", "tables_gan", "certified", "adaptive_length"])
def test_committed_results_can_be_gone_on_from(name: str, tmp_path: Path) -> None:
    """With several commands and a note, with one command, by name, and without a command: nothing is lost."""
    out = tmp_path / "found.json"
    out.write_bytes((RESULTS / f"{name}.json").read_bytes())
    before = read(out)
    file = ResultsFile(out, "run today")
    form = "rows" if "rows" in before else "results"
    assert getattr(file, form) == before[form]
    file.save()
    after = read(out)
    had = before.pop("commands", None) or [text for text in [before.pop("command", None)] if text]
    assert after.pop("commands") == [*had, "run today"]
    today = {"date": "", "machine": {}, "versions": {}}
    assert after | today == before | today


def test_another_data_set_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    ResultsFile(path, "a", data_sha256="one").add({"auroc": 0.5})
    before = path.read_bytes()
    with pytest.raises(DataError, match="other data"):
        ResultsFile(path, "b", data_sha256="two")
    assert path.read_bytes() == before
    assert ResultsFile(path, "b", data_sha256="one").results == [{"auroc": 0.5}]
    assert ResultsFile(path, "b", go_on=False, data_sha256="two").results == []
