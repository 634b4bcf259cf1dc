"""Means, intervals and tests, over seeds."""
import statistics

from scipy import stats

LEVEL = 0.95


def mean_and_half(values):
    """The mean, and half the width of its 95 % t interval; None of fewer than three values, which tell no spread."""
    mean = statistics.fmean(values)
    if len(values) < 3:
        return mean, None
    return mean, stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * stats.sem(values)


class Difference:
    """A sample of differences with the same seed: their mean, its 95 % t interval, and the two-sided p for no difference."""

    def __init__(self, values):
        self.n, self.mean = len(values), statistics.fmean(values)
        spread = stats.sem(values)
        if spread > 0:
            self.low, self.high = map(float, stats.t.interval(LEVEL, self.n - 1, self.mean, spread))
            self.p = float(stats.ttest_1samp(values, 0).pvalue)
        else:  # all alike
            self.low = self.high = self.mean
            self.p = float(self.mean == 0)

    def verdict(self, side, margin=0.0):
        """`side`: the sign that is claimed. With a margin the claim is only that the difference is not that far on the
        other side."""
        low, high = sorted((side * self.low, side * self.high))
        return "holds" if low > -margin else "does not" if high < 0 else "open"


def holm(ps):
    """Which of the tests exclude no difference while the chance of any wrong exclusion is 5 % (Holm 1979)."""
    order, out = sorted(range(len(ps)), key=ps.__getitem__), [False] * len(ps)
    for k, i in enumerate(order):
        if ps[i] > (1 - LEVEL) / (len(ps) - k):
            break
        out[i] = True
    return out
