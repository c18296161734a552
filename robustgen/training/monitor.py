"""How did the game go? What its rounds show, in words: collapse, a player that has won, no good round."""

from __future__ import annotations

from collections.abc import Sequence

from robustgen.training.two_players import Round

_LATE = 3  # rounds that a verdict rests on
_COLLAPSED = 0.2  # of the data's variety
_NARROW = 0.5  # of the data's clusters
_WON, _LOST = 0.995, 0.4  # share of (real, fake) pairs that the critic puts in order; near a half is a draw
_BLIND = 0.6


def warnings(history: Sequence[Round]) -> list[str]:
    """What is wrong with a game whose rounds tell `told apart` (the share of pairs of a real and a made input in which
    the critic rates the real one higher), `variety` and `modes` of made inputs (see `training.variety`) and how
    held-out anomalies were detected (`judged`); of the first two the last rounds count, of the others the kept one.
    Each warning says what it means and what to try.
    """
    if not history:
        return []
    found, late = list[str](), history[-_LATE:]
    variety, apart = _mean(late, "variety"), _mean(late, "told apart")
    modes = history[kept(history)].facts.get("modes")
    if variety is not None and variety < _COLLAPSED:
        found.append(
            f"the generator has collapsed: its inputs lie {variety:.0%} as far from each other as real ones, so it "
            "makes a few only and teaches the discriminator little: try another seed, negatives, or augment"
        )
    elif modes is not None and modes < _NARROW:
        found.append(
            f"the generator has lost modes: its inputs fill {modes:.0%} of the clusters that real ones fill, so it "
            "makes some kinds only: try more steps, another seed, or augment"
        )
    if apart is not None and apart > _WON:
        found.append(
            f"the discriminator has won: it tells {apart:.1%} of fakes from real inputs, so the generator no longer "
            "learns, and the score rests on the negatives: train longer with a lower learning rate, or take a wider "
            "generator"
        )
    if apart is not None and apart < _LOST:
        found.append(
            f"the generator has won: the discriminator puts {apart:.1%} of pairs in order, fewer than by chance: "
            "lower the learning rate or add negatives"
        )
    judged = history[kept(history)].judged
    if judged is not None and judged < _BLIND:
        found.append(
            f"the round that was kept does not tell the anomalies it was judged by from held-out inputs (AUROC "
            f"{judged:.2f}): train longer, or take another detector"
        )
    return found


def kept(history: Sequence[Round]) -> int:
    """The number of the round whose players playing gave: the best judged of the second half, the later of equals."""
    judged = [-1.0 if r.judged is None else r.judged for r in history]
    return max(range(len(judged) // 2, len(judged)), key=lambda number: (judged[number], number))


def verdict(history: Sequence[Round]) -> str:
    """The game in a line: which round was kept and what the last ones showed."""
    if not history:
        return "no round was played"
    best = kept(history)
    judged, late = history[best].judged, history[-_LATE:]
    words = [f"round {best + 1} of {len(history)} kept"]
    if judged is not None:
        words.append(f"AUROC {judged:.3f} on the anomalies it was judged by (last round {history[-1].judged:.3f})")
    for name, what in (("told apart", "fakes told apart"), ("variety", "variety of fakes")):
        value = _mean(late, name)
        if value is not None:
            words.append(f"{what} {value:.0%}")
    modes = history[best].facts.get("modes")
    return ", ".join(words if modes is None else [*words, f"clusters filled {modes:.0%}"])


def collapsed(history: Sequence[Round]) -> bool:
    """Whether the generator ended making the same few inputs, or some kinds of them only."""
    if not history:
        return False
    variety, modes = _mean(history[-_LATE:], "variety"), history[kept(history)].facts.get("modes")
    return (variety is not None and variety < _COLLAPSED) or (modes is not None and modes < _NARROW)


def _mean(rounds: Sequence[Round], name: str) -> float | None:
    values = [r.facts[name] for r in rounds if name in r.facts]
    return sum(values) / len(values) if values else None
