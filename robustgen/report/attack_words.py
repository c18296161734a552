"""Numbers of an attack's summary as words: who the attacker is, how far it may go, how sure a share is.

A summary may be older than this file or cut short: what is not in it gives an empty text or a dash, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robustgen.report.canvas import percent

Summary = Mapping[str, Any]
NONE = "-"


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


def share(value: Any) -> str:
    """A share in per cent."""
    given = number(value)
    return NONE if given is None else percent(given)


def interval(value: Any) -> str:
    """(low, high) in per cent, as in `66.7 to 76.8 %`."""
    ends = [number(end) for end in value] if isinstance(value, list | tuple) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return NONE
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def size(value: Any) -> str:
    """An eps or a norm; in 255ths where that is what was meant."""
    given = number(value)
    return NONE if given is None else sizes_of([given])[0]


def sizes_of(values: Sequence[float]) -> list[str]:
    """Several eps, in 255ths if that is what all of them were meant in and it is shorter."""
    texts = [f"{value:.4g}" for value in values]
    levels = [round(255 * value) for value in values]
    exact = all(
        0 <= level <= 255 and abs(value - level / 255) < 1e-7 for value, level in zip(values, levels, strict=True)
    )
    if not exact or max(map(len, texts), default=0) < 6:
        return texts
    return [f"{level}/255" if level else "0" for level in levels]


def plain(value: Any) -> str:
    """Any value of a summary on one line."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(inner)}" for name, inner in sorted(value.items())) or NONE
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or NONE
    return str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested names joined by dots, by name, with their values on one line each."""
    pairs: list[tuple[str, str]] = []
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping) and value:
            pairs += flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", plain(value)))
    return pairs


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list of them."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def black_box(summary: Summary) -> bool | None:
    """Whether it never asked for a gradient; None if that was not stored or nothing was attacked or allowed."""
    if not summary.get("n_attacked") or summary.get("eps") == 0 or number(summary.get("backward_passes")) is None:
        return None
    return bool(summary["backward_passes"] == 0)


def reach(summary: Summary, image: bool) -> str:
    """What the attacker may do to one input, as the end of a sentence that begins `may`."""
    eps, norm = number(summary.get("eps")), summary.get("norm")
    if summary.get("attack") == "fooling":
        return "show it anything at all, beginning with noise"
    if eps is None:
        return ""
    if eps == 0:
        return "change nothing (eps 0)"
    value = "pixel" if image else "value"
    if smallest(summary):
        inside = "; ".join(filter(None, (str(norm or ""), _range(summary, value))))
        return f"change an input as far as it takes, by the smallest change it finds ({inside})"
    text = {
        "linf": f"change every {value} by up to {size(eps)}",
        "l2": f"move an input by up to {size(eps)} in Euclidean distance",
        "l1": f"change an input's {value}s by up to {size(eps)} in total",
        "l0": f"change up to {size(eps)} values of an input, each as far as it likes",
    }.get(str(norm), f"change an input by up to {size(eps)}")
    same = ", all inputs in the same way" if summary.get("attack") == "universal" else ""
    details = "; ".join(filter(None, (str(norm or ""), _range(summary, value))))
    return text + (f" ({details})" if details else "") + same


def smallest(summary: Summary) -> bool:
    """Whether the attack took whatever change was needed, the smallest it could find: none came near its eps."""
    eps, most = number(summary.get("eps")), _own_norm(summary, "max")
    minimal = mapping(summary.get("configuration")).get("mode") == "minimal"
    return minimal and eps is not None and most is not None and most <= eps / 2


def _own_norm(summary: Summary, which: str) -> float | None:
    """Of the changes that fooled, measured by the attack's own norm."""
    return number(mapping(mapping(summary.get("norms")).get(str(summary.get("norm")))).get(which))


def _range(summary: Summary, value: str) -> str:
    threat = mapping(mapping(summary.get("configuration")).get("threat"))
    low, high = number(threat.get("low")), number(threat.get("high"))
    return "" if low is None or high is None else f"{value}s run from {low:g} to {high:g}"


def verdict(summary: Summary, image: bool, aimed: bool = False) -> str:
    """What happened, for who has to decide on it: the attacker, its reach, what it found, what is left.

    `aimed`: the attack wanted certain classes.
    """
    clean, robust, rate = (number(summary.get(key)) for key in ("clean_accuracy", "robust_accuracy", "success_rate"))
    attacked, n, unseen = number(summary.get("n_attacked")), number(summary.get("n")), black_box(summary)
    said = "" if clean is None else f"The model is right on {percent(clean)} of clean inputs. "
    if attacked == 0:
        return said + "No input was attacked: there was none that it had right and that could be attacked."
    knows = (
        ""
        if unseen is None
        else "only sees the model's answers (black box)"
        if unseen
        else "knows the model (white box)"
    )
    may = reach(summary, image)
    can = " and ".join(filter(None, (knows, may and f"may {may},")))
    who = f"An attacker who {can}" if can else "The attacker"
    left = (
        ""
        if robust is None
        else f" Half of the changes are smaller than {size(_own_norm(summary, 'median'))}."
        if smallest(summary)
        else f" It stays right on {percent(robust)} of all {'' if n is None else f'{n:,.0f} '}inputs."
    )
    if rate is None:
        return (said + left.strip()).strip()
    of = "the inputs it attacked" if attacked is None else f"the {attacked:,.0f} inputs it attacked"
    did = "made it answer the class aimed at" if aimed else "fooled it"
    return f"{said}{who} {did} on {percent(rate) if rate else 'none'} of {of}.{left}"
