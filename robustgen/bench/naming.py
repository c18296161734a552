"""What the names in a suite stand for: data, classifiers, detectors with their options, guards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, final, get_args, get_type_hints

from robustgen.bench.cell import Cell
from robustgen.bench.guarded import GuardOf
from robustgen.bench.prepared import Classifier, Configured, Fit, configured
from robustgen.bench.values import value_of
from robustgen.detectors import DETECTORS
from robustgen.detectors.art_names import PREFIX as ART
from robustgen.detectors.pyod_names import PREFIX as PYOD
from robustgen.errors import UsageError
from robustgen.guard.combine import Combine, How, in_order
from robustgen.registry import suggestion

C = TypeVar("C", bound=Cell)
_GUARD_WORDS = ("within", "across", "shares")


@final
@dataclass(frozen=True)
class Names:
    """The tables of a suite that give names to things."""

    data: Mapping[str, str]
    victims: Mapping[str, Mapping[str, Any]]
    detectors: Mapping[str, tuple[str, Mapping[str, Any]]]
    guards: Mapping[str, Mapping[str, Any]]

    def build(self, kind: type[C], given: Mapping[str, Any], hints: Mapping[str, Any]) -> C:
        """A cell of `kind` from one value a key, with what names stand for in their place. Raises `UsageError`."""
        values: dict[str, Any] = {}
        missing = [
            part.name
            for part in fields(kind)
            if part.name not in given and part.default is MISSING and part.default_factory is MISSING
        ]
        if missing:
            raise UsageError(f"a cell of kind {kind.kind} needs {', '.join(missing)}")
        owner = f"a cell of kind {kind.kind}"
        for word, value in given.items():
            hint = hints[word]
            if hint is Configured or Classifier in _cells(hint) or Fit in _cells(hint):
                values[word] = self._named(owner, word, value)
            elif word == "data":
                values[word] = self.source(value_of(owner, word, value, hints))
            elif word == "foreign":
                values[word] = tuple(self.source(name) for name in value_of(owner, word, value, hints))
            else:
                values[word] = value_of(owner, word, value, hints)
        seed = values.get("seed", 0)
        if "victim" in values:
            values["victim"] = self.victim(values["victim"], values["data"], seed)
        if "detector" in values:
            named = values["detector"]
            if hints["detector"] is Configured:
                values["detector"] = self.detector(named, seed)
            elif named in self.guards and GuardOf in _cells(hints["detector"]):
                values["detector"] = self.guard(named, values["data"], values["victim"], seed)
            else:
                values["detector"] = self.fit(named, values["data"], values.get("victim"), seed)
        return kind(**values)

    def _named(self, owner: str, word: str, value: Any) -> str:
        if not isinstance(value, str):
            raise UsageError(f"{word} of {owner}: a name is needed, but {value!r} came")
        return value

    def source(self, name: str) -> str:
        """The data that a name stands for."""
        return self.data.get(name, name)

    def victim(self, name: str, data: str, seed: int) -> Classifier:
        """The classifier of `data` called `name`, trained from `seed`."""
        if not self.victims:
            raise UsageError(
                f"unknown victim {name!r}: the suite names none: add [victims.{name}], empty or with options"
            )
        if name not in self.victims:
            raise UsageError(suggestion(name, self.victims, "victim"))
        return Classifier(data=data, **({"seed": seed, **self.victims[name]}))

    def detector(self, name: str, seed: int) -> Configured:
        """The detector called `name` with its options."""
        if name in self.guards:
            raise UsageError(f"{name!r} is a guard, but one detector is needed here")
        if name not in self.detectors and name not in DETECTORS and not name.startswith((ART, PYOD)):
            raise UsageError(suggestion(name, {*self.detectors, *self.guards, *DETECTORS}, "detector"))
        own, options = self.detectors.get(name, (name, {}))
        options = dict(options)
        through, layer = options.pop("through", False), options.pop("layer", None)
        return configured(own, options, seed, through or layer is not None, layer)

    def fit(self, name: str, data: str, victim: Classifier | None, seed: int) -> Fit:
        """The fitted detector called `name`, beside `victim` if it looks at one."""
        chosen = self.detector(name, seed)
        if chosen.needs_model and victim is None:
            raise UsageError(f"{name} looks at a classifier: give the cell a victim")
        watched = victim if chosen.needs_model else None
        return Fit(data, chosen.detector, chosen.options, watched, chosen.layer, chosen.revision)

    def guard(self, name: str, data: str, victim: Classifier, seed: int) -> GuardOf:
        """The guard called `name` of `victim`."""
        given = self.guards[name]
        channels = {
            channel: tuple(self.fit(member, data, victim, seed) for member in members)
            for channel, members in given.items()
            if channel not in _GUARD_WORDS
        }
        how = {word: given[word] for word in _GUARD_WORDS if word in given}
        return GuardOf(data, victim, channels, **how)


def _cells(hint: Any) -> tuple[Any, ...]:
    return (hint, *get_args(hint))


def victims_of(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """[victims.NAME] with values of the types that a classifier's options have. Raises `UsageError`."""
    hints = {word: hint for word, hint in get_type_hints(Classifier).items() if word not in ("kind", "version", "data")}
    found = {}
    for name, options in given.items():
        if not isinstance(options, dict):
            raise UsageError(f"victims.{name} must be a table of a classifier's options")
        found[name] = {word: value_of(f"victims.{name}", word, value, hints) for word, value in options.items()}
    return found


def detectors_of(given: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """[detectors.NAME]: the detector that is meant, by default the one of that name, and its options."""
    found = {}
    for name, options in given.items():
        if not isinstance(options, dict):
            raise UsageError(f"detectors.{name} must be a table of a detector's options")
        own = options.get("detector", name)
        if own not in DETECTORS and not str(own).startswith((ART, PYOD)):
            raise UsageError(suggestion(str(own), DETECTORS, f"detector for detectors.{name}"))
        found[name] = (own, {word: value for word, value in options.items() if word != "detector"})
    return found


def guards_of(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """[guards.NAME]: lists of detectors by channel, and how they are joined. Raises `UsageError`."""
    for name, values in given.items():
        if not isinstance(values, dict):
            raise UsageError(f"guards.{name} must be a table of channels, each a list of detectors")
        channels = {word: value for word, value in values.items() if word not in _GUARD_WORDS}
        if not channels or not all(
            isinstance(members, list) and members and all(isinstance(member, str) for member in members)
            for members in channels.values()
        ):
            raise UsageError(f'guards.{name} needs channels, such as perturbed = ["autoencoder", "pca"]')
        for word, usual in (("within", "fisher"), ("across", "or")):
            how = values.get(word, usual)
            if how not in get_args(How):
                raise UsageError(
                    f"guards.{name}.{word}: {suggestion(str(how), get_args(How), 'way to combine detectors')}"
                )
        shares = values.get("shares", {})
        if not isinstance(shares, dict) or not all(type(share) in (int, float) for share in shares.values()):
            raise UsageError(f"guards.{name}.shares is a table of numbers by channel, such as {{perturbed = 1.0}}")
        if shares:  # what is wrong with them is said now
            Combine(values.get("across", "or"), len(channels), in_order(shares, channels))
    return dict(given)
