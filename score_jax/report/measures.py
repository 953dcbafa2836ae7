"""What was measured: distances to the data, the likelihood, the bound."""

import math
from typing import Any

from score_jax.report.chart import Line, chart
from score_jax.report.markup import Markup, code, figure, join, measured, paragraph, table, tag
from score_jax.report.read import Run
from score_jax.report.values import (
    count,
    mapping,
    measurement,
    number,
    numbers,
    plain,
    written,
)

LOWER, HIGHER = "↓\u00a0lower", "↑\u00a0higher"

METRICS = {
    "frechet_distance": ("Fréchet distance", LOWER),
    "kernel_distance": ("Kernel distance", LOWER),
    "classifier_score": ("Classifier score", HIGHER),
    "precision": ("Precision", HIGHER),
    "recall": ("Recall", HIGHER),
    "density": ("Density", HIGHER),
    "coverage": ("Coverage", HIGHER),
    "class_agreement": ("Of the class that was asked for", HIGHER),
    "sliced_wasserstein": ("Sliced Wasserstein distance", LOWER),
    "maximum_mean_discrepancy": ("Maximum mean discrepancy", LOWER),
}
# Names that mean one network's features, and are given to no other's.
OF_INCEPTION = {
    "fid": ("Fréchet Inception Distance (FID)", LOWER),
    "kid": ("Kernel Inception Distance (KID)", LOWER),
    "inception_score": ("Inception Score (IS)", HIGHER),
}
OF_OTHERS = {
    "fid": METRICS["frechet_distance"],
    "kid": METRICS["kernel_distance"],
    "inception_score": METRICS["classifier_score"],
}

FEATURES = {
    "inception": "These are features of the Inception network; figures are comparable with others "
    "of the same weights, the same reference and the same number of samples.",
    "classifier": "These are features of a small classifier trained on the data's own labels: the "
    "distances are not FID, and not comparable across data sets.",
    "own": "These are features of a network that the user gave: figures are comparable with others "
    "of the same network only.",
    "none": "No features: the numbers of the data themselves are compared.",
}


def glance(run: Run) -> Markup | None:
    """The metrics, each with its error and direction, beside what real data would get; None where
    there are none and cannot be."""
    found = run.json["evaluation"]
    metrics = mapping(found.get("metrics"))
    if not metrics:
        return to_fill(run, "evaluate", "The samples were not compared with the data yet")
    features, reference = mapping(found.get("features")), mapping(found.get("reference"))
    kind = features.get("kind")
    same = mapping(found.get("same_number"))
    columns = [
        (f"{what} against real", mapping(same.get(key)))
        for what, key in (
            ("Samples", "samples_against_real"),
            ("Real", "real_against_real"),
            ("Noise", "noise_against_real"),
        )
        if mapping(same.get(key))
    ]
    n = count(same.get("examples"))
    head = ["Metric", "Better", f"{count(found.get('samples'))} samples"]
    head += [f"{title}, {n} each" for title, _ in columns]
    names = list(metrics) + [k for _, column in columns for k in column if k not in metrics]
    rows = [
        [
            *metric(name, kind),
            *(_cell(column.get(name)) for column in (metrics, *(column for _, column in columns))),
        ]
        for name in dict.fromkeys(names)
    ]
    known = number(reference.get("examples")) is not None
    against = f"{count(reference['examples'])} examples of " if known else ""
    against += str(reference.get("data", "the data"))
    return join(
        paragraph(
            f"Against {against}, compared by {features_name(features)}. ", FEATURES.get(str(kind))
        ),
        table(head, rows, right=range(2, len(head))),
        paragraph(
            "± is one standard error, of the sliced distance over its directions only. ",
            "s.d. is the standard deviation between parts of the samples, not an error of the "
            "value. "
            if any("standard_deviation" in mapping(value) for value in metrics.values())
            else None,
            f"The columns of {n} each compare equal numbers, so that the samples can be read "
            "beside what real data get against other real data. "
            if columns
            else None,
            parameters(found),
        ),
        _left_out(found),
        _protocol(found),
    )


def _cell(value):
    deviation = number(mapping(value).get("standard_deviation"))
    spread = f" s.d. {written(deviation, deviation)}" if deviation is not None else None
    return join(measured(*measurement(value)), tag("small", spread) if spread else None)


def metric(name: str, kind: Any) -> tuple[str, str]:
    """(A metric's name in full, which direction is better)."""
    known = METRICS | (OF_INCEPTION if kind == "inception" else OF_OTHERS)
    return known.get(name, (name.replace("_", " "), ""))


def features_name(features: dict[str, Any]) -> str:
    """What samples were compared by, in a reader's words."""
    name = str(features.get("name", "features that are not named"))
    dimensions = number(features.get("dimensions"))
    digest = features.get("sha256")
    more = [f"{count(dimensions)} dimensions"] if dimensions else []
    more += [f"sha256 {str(digest)[:16]}"] if digest else []
    return f"{name} ({', '.join(more)})" if more else name


def parameters(found: dict[str, Any]) -> str:
    """Which parameters a result is of, in a sentence."""
    made = mapping(found.get("made"))
    if number(made.get("step")) is None:
        return ""
    average = made.get("parameters", "ema" if "ema" in made else None) == "ema"
    kind = "Averaged parameters (EMA)" if average else "Parameters"
    return f"{kind} at step {count(made['step'])}."


def to_fill(run: Run, mode: str, what: str) -> Markup | None:
    """A line for a section that has nothing to show yet: the command that would fill it, if any."""
    command = run.command(mode)
    return tag("p", f"{what}: ", code(command), class_="quiet") if command else None


def _left_out(found):
    reasons = mapping(found.get("left_out"))
    if not reasons:
        return None
    # A name here means what it says: it is not this result's.
    rows = [(metric(name, "inception")[0], plain(reason)) for name, reason in reasons.items()]
    return join(tag("h3", "Left out"), table(("Metric", "Reason"), rows))


def _protocol(found):
    protocol = mapping(found.get("protocol"))
    if not protocol:
        return None
    rows = [(str(key).replace("_", " "), plain(value)) for key, value in protocol.items()]
    return join(tag("h3", "Protocol"), table((), rows))


def likelihood(run: Run) -> Markup | None:
    """Bits per dim by the probability flow, and the variational bound with its terms; None where
    neither is there, nor can be."""
    flow, bound = run.json["likelihood"], run.json["bound"]
    value, unit = _in_units(flow)
    found = {
        "ode": _flow(flow, value, unit) if value is not None else None,
        "bound": _bound(bound) if _in_units(bound)[0] is not None else None,
    }
    wanted = run.hints.get("likelihood") or {}
    by = wanted.get("likelihood.by", mapping(run.config.get("likelihood")).get("by"))
    missing = found["bound" if by == "bound" else "ode"] is None
    hint = to_fill(run, "likelihood", "The likelihood was not measured yet") if missing else None
    return join(hint, *found.values()) if hint or any(found.values()) else None


def _in_units(found) -> tuple[float | None, str]:
    for unit in ("bits_per_dim", "nats_per_dim"):
        if number(found.get(unit)) is not None:
            return number(found[unit]), unit.replace("_", " ")
    return None, ""


def _examples(found):
    text = f"{count(found.get('examples'))} examples of {found.get('data', 'the data')}"
    dimensions = found.get("dimensions")
    return text + (f", {count(dimensions)} dimensions each" if number(dimensions) else "")


def _flow(found, value, unit):
    rows: list[tuple[str, str]] = [
        (f"Negative log-likelihood, {unit}", measured(value, number(found.get("standard_error"))))
    ]
    for name, error in mapping(found.get("standard_error_of")).items():
        if number(error) is not None:
            rows.append((f"Standard error from the {name}", written(number(error), number(error))))
    calls = number(found.get("network_evaluations_per_example"))
    if calls is not None:
        rows.append(("Network evaluations, each example", written(calls)))
    made = mapping(found.get("made"))
    how = [f"{key} = {plain(made[key])}" for key in ("trace", "probes", "rtol", "atol", "end")
           if key in made]  # fmt: skip
    return join(
        tag("h3", "By the probability-flow ODE"),
        paragraph(f"Of {_examples(found)}; lower is better."),
        table((), rows, right=(1,)),
        paragraph(parameters(found), f" {', '.join(how)}." if how else None),
    )


def _bound(found):
    total, unit = _in_units(found)
    ends = {name: number(found.get(name)) for name in ("prior", "reconstruction")}
    terms, errors = (
        numbers(found.get("transitions")),
        numbers(found.get("transitions_standard_error")),
    )
    rows: list[tuple[str, str]] = [
        (f"Bound, {unit}", measured(total, number(found.get("standard_error"))))
    ]
    rows += [
        (f"of it the {name}", written(value)) for name, value in ends.items() if value is not None
    ]
    known = [term for term in terms or () if term is not None]
    if known and len(known) == len(terms):
        rows.append((f"of it the {count(len(known))} transitions", written(math.fsum(known))))
    return join(
        tag("h3", "By the variational bound"),
        paragraph(f"Of {_examples(found)}; an upper bound of the negative log-likelihood. ",
                  parameters(found)),
        table((), rows, right=(1,)),
        _terms(numbers(found.get("logsnr")), terms, errors, ends["reconstruction"], unit),
    )  # fmt: skip


def _terms(logsnr, terms, errors, reconstruction, unit):
    """Two charts: each transition's term, and the bound as it is summed from the clean end."""
    if len(logsnr) != len(terms) + 1 or not terms or None in terms:
        return None
    places = [None if None in pair else sum(pair) / 2 for pair in zip(logsnr, logsnr[1:])]
    errors = errors if len(errors) == len(terms) and None not in errors else [0.0] * len(terms)
    sums = [math.fsum([reconstruction or 0.0, *terms[: i + 1]]) for i in range(len(terms))]
    each = [(x, y, e) for x, y, e in zip(places, terms, errors) if x is not None]
    summed = [(x, y) for x, y in zip(logsnr[1:], sums) if x is not None]
    if not each or not summed:
        return None
    x_label = "log SNR (noise left, clean right)"
    return tag(
        "div",
        figure(
            chart([Line("transition", each)], x_label, f"{unit} of a transition"),
            f"What each of the {count(len(terms))} transitions adds, at the mean log SNR of its "
            "two levels; the band is one standard error. A term is the smaller the more levels "
            "there are: what counts is their sum over a stretch, in the next chart.",
        ),
        figure(
            chart([Line("sum", summed)], x_label, f"{unit}, summed from the clean end"),
            f"The reconstruction term ({written(reconstruction)}) and all transitions from the "
            "cleanest level down to this one. With the prior term it ends at the bound.",
        ),
        class_="charts",
    )
