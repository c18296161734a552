"""How did the game go? What its rounds show, in words: collapse, a player that has won, no good round."""

from __future__ import annotations

from collections.abc import Sequence

from robustgen.training.two_players import Round

_LATE = 3  # rounds that a verdict rests on
_COLLAPSED = 0.2  # of the data's spread
_WON, _LOST = 0.995, 0.4  # share of (real, fake) pairs that the critic puts in order; near a half is a draw
_BLIND = 0.6


def warnings(history: Sequence[Round]) -> list[str]:
    """What is wrong with a game whose rounds tell `told apart` (the share of pairs of a real and a made input in which
    the critic rates the real one higher), `variety` (the spread of made inputs over that of real ones) and how held-out
    anomalies were detected (`judged`); the last rounds count. Each warning says what it means and what to try.
    """
    if not history:
        return []
    found, late = list[str](), history[-_LATE:]
    variety, apart = _mean(late, "variety"), _mean(late, "told apart")
    if variety is not None and variety < _COLLAPSED:
        found.append(
            f"the generator has collapsed: its inputs spread {variety:.0%} as far as real ones, so it makes a few only "
            "and teaches the discriminator little: try another seed, negatives, or augment"
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
    judged = [r.judged for r in history if r.judged is not None]
    if judged and max(judged) < _BLIND:
        found.append(
            f"no round told the anomalies it was judged by from held-out inputs (AUROC {max(judged):.2f} at best): "
            "train longer, or take another detector"
        )
    return found


def verdict(history: Sequence[Round]) -> str:
    """The game in a line: which round was kept and what the last ones showed."""
    if not history:
        return "no round was played"
    judged = [-1.0 if r.judged is None else r.judged for r in history]
    best = max(range(len(judged) // 2, len(judged)), key=lambda number: (judged[number], number))
    late = history[-_LATE:]
    words = [f"round {best + 1} of {len(history)} kept"]
    if judged[best] >= 0:
        words.append(f"AUROC {judged[best]:.3f} on the anomalies it was judged by (last round {judged[-1]:.3f})")
    for name, what in (("told apart", "fakes told apart"), ("variety", "variety of fakes")):
        value = _mean(late, name)
        if value is not None:
            words.append(f"{what} {value:.0%}")
    return ", ".join(words)


def collapsed(history: Sequence[Round]) -> bool:
    """Whether the generator ended making the same few inputs."""
    variety = _mean(history[-_LATE:], "variety")
    return variety is not None and variety < _COLLAPSED


def _mean(rounds: Sequence[Round], name: str) -> float | None:
    values = [r.facts[name] for r in rounds if name in r.facts]
    return sum(values) / len(values) if values else None
