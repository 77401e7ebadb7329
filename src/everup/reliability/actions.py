"""In which order to try recovery actions."""

from collections.abc import Iterable
from typing import NamedTuple


class Trial(NamedTuple):
    """One recovery action, as known so far for one kind of failure."""

    name: str
    cost_s: float
    """What trying it costs, above 0: seconds of downtime, its verification included."""
    successes: int = 0
    tries: int = 0
    prior: tuple[float, float] = (1.0, 1.0)
    """Beta prior (successes, failures) that stand for what was believed before; (1, 1): nothing
    was known."""

    @property
    def probability(self) -> float:
        """That it helps: the mean of the posterior, ``(a + successes) / (a + b + tries)``."""
        a, b = self.prior
        return (a + self.successes) / (a + b + self.tries)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The equal-tailed credible interval of the probability."""
        from scipy.special import betaincinv

        a, b = self.prior[0] + self.successes, self.prior[1] + self.tries - self.successes
        tail = (1 - confidence) / 2
        return float(betaincinv(a, b, tail)), float(betaincinv(a, b, 1 - tail))


def order(trials: Iterable[Trial]) -> list[Trial]:
    """The order with the least expected cost: by falling ``p / c``, ties as given.

    Holds where actions succeed independently of each other, are tried one after another until one
    helps, and each costs the same wherever it comes. Then, of two neighbours, the one with the
    higher ``p / c`` comes first (exchange argument: Mitten, An Analytic Solution to the Least Cost
    Testing Sequence Problem, Journal of Industrial Engineering 11 (1960)). Where a later action
    includes an earlier one (a reboot restarts the process too) they are not independent: put such
    in the order of a ladder instead. Raises ``ValueError``.
    """
    found = list(trials)
    for trial in found:
        if not trial.cost_s > 0:
            raise ValueError(f"cost_s {trial.cost_s} of {trial.name}: above 0")
        if not 0 <= trial.successes <= trial.tries:
            raise ValueError(
                f"successes {trial.successes} of {trial.name}: between 0 and tries, {trial.tries}"
            )
        if not (trial.prior[0] > 0 and trial.prior[1] > 0):
            raise ValueError(f"prior {trial.prior} of {trial.name}: both above 0")
    return sorted(found, key=lambda trial: -trial.probability / trial.cost_s)


def expected_cost_s(trials: Iterable[Trial]) -> float:
    """Of trying them in this order until one helps: ``sum c_i prod_{j<i} (1 - p_j)``."""
    cost_s, going_on = 0.0, 1.0
    for trial in trials:
        cost_s += going_on * trial.cost_s
        going_on *= 1 - trial.probability
    return cost_s
