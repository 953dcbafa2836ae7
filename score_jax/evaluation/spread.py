"""Where the uncertainty of a mean over examples comes from."""

import numpy as np


def standard_errors(
    values: np.ndarray, of_probes: np.ndarray | None
) -> tuple[float | None, dict[str, float | None]]:
    """(standard error of the mean of values [N, R], what each source has in it).

    values: R independent measurements of each of N examples. of_probes: [N, R], the standard
    error of each measurement from its probes; None where that is not known. The examples being
    independent, the error is s/√N with s² the variance of the examples' means, and that is

        s² = images + dequantization/R + probes/R,

    the variance between examples and, of one measurement, from its noise and from its probes (a
    two-level analysis of variance). What cannot be told from so few repeats, or is estimated to be
    negative, is None, or 0.
    """
    n, repeats = values.shape
    means = values.mean(1)
    total2 = means.var(ddof=1) / n if n > 1 else None
    probes2 = None if of_probes is None else np.mean(of_probes**2) / (repeats * n)
    within2 = values.var(axis=1, ddof=1).mean() / (repeats * n) if repeats > 1 else None
    root = lambda x: None if x is None else float(np.sqrt(max(x, 0.0)))
    less = lambda x, y: None if x is None or y is None else root(x - y)
    parts = {
        "images": less(total2, within2),
        "probes": root(probes2),
        "dequantization": less(within2, probes2),
    }
    return root(total2), parts
