"""Which run this is: its header, its config, its starts."""

import shlex
from collections import defaultdict

from score_jax.report.markup import Markup, code, join, paragraph, table, tag
from score_jax.report.read import Run
from score_jax.report.values import count, mapping, number, plain, written


def header(run: Run) -> Markup:
    """What the run is, in a sentence and a list."""
    names = {part: code(_name(run, part)) for part in ("model", "process", "loss", "sampler")}
    facts = [
        ("Training", _progress(run)),
        ("Samples", _samples(run)),
        ("Data", _data(run)),
        ("First start", _when(run.starts[:1])),
        ("Last start", _when(run.starts[-1:])),
        ("Devices", _devices(run)),
        ("Versions", _versions(run)),
    ]
    return join(
        tag("p", "A ", names["model"], " network learns to reverse the process ", names["process"],
            " by the loss ", names["loss"], "; samples are drawn by ", names["sampler"], ".",
            class_="lead"),
        tag("dl", [tag("div", tag("dt", name), tag("dd", fact)) for name, fact in facts if fact]),
    )  # fmt: skip


def _name(run, section):
    return str(run.config.get(section, {}).get("name", "?"))


def _progress(run):
    if not run.metrics:
        return None
    made = run.json["samples"] or mapping(run.json["evaluation"].get("made"))
    last = max(run.metrics[-1]["step"], int(number(made.get("step")) or 0))
    options, data = mapping(run.config.get("training")), mapping(run.json["data"].get("data"))
    total, batch = number(options.get("steps")), number(options.get("batch_size"))
    examples = number(data.get("examples"))
    text = f"{last:,} steps"
    if total is not None:
        all_of = last >= total
        text += ", all that the config asks for" if all_of else f" of the {count(total)} asked for"
    if batch and examples and batch > 0 and examples > 0:
        text += f"; each example was seen {written(last * batch / examples)} times"
    stops = resumed(run)
    if stops:
        text += f"; taken up again after step {', '.join(f'{step:,}' for step in stops)}"
    return text


def resumed(run: Run) -> list[int]:
    """The steps after which training was taken up again, from their checkpoints."""
    found = (number(line.get("resumed")) for line in run.metrics)
    return sorted({int(step) for step in found if step is not None})


def _samples(run):
    made = run.json["samples"] or mapping(run.json["evaluation"].get("made"))
    if number(made.get("step")) is None:
        return None
    average = "averaged parameters (EMA)" if made.get("parameters") == "ema" else "parameters"
    return f"{count(made.get('samples'))}, of the {average} at step {count(made['step'])}"


def _data(run):
    found = mapping(run.json["data"].get("data"))
    shape = found.get("shape")
    text = _name(run, "data")
    if number(found.get("examples")) is not None:
        text += f", {count(found['examples'])} examples"
    if isinstance(shape, list):
        text += f" of shape {' × '.join(map(str, shape))}"
    return text


def _when(starts):
    """The time of a start as it was noted, seconds and "T" made readable."""
    if not starts or not isinstance(starts[0].get("time"), str):
        return None
    time = starts[0]["time"]
    readable = time.replace("T", " ").replace("+00:00", " UTC")
    return join(tag("time", readable, datetime=time), f" ({_mode(starts[0])})")


def _mode(start):
    return start.get("mode", "?")


def _devices(run):
    if not run.starts:
        return None
    last = run.starts[-1]
    kinds = last.get("devices") if isinstance(last.get("devices"), list) else []
    names = list(dict.fromkeys(map(str, kinds)))
    text = ", ".join(f"{[str(k) for k in kinds].count(name)} × {name}" for name in names)
    hosts = number(last.get("processes")) or 1
    return text + (f", {count(hosts)} processes" if hosts > 1 else "") or None


def _versions(run):
    if not run.starts:
        return None
    last = run.starts[-1]
    named = {"Python": last.get("python")} | mapping(last.get("versions"))
    return ", ".join(f"{name} {value}" for name, value in named.items() if value) or None


def config(run: Run) -> Markup:
    """The resolved config, a table a section; an option that was changed says from what to what."""
    changed = _changes(run)
    names = {section: list(options) for section, options in run.config.items()}
    for name in changed:
        section, _, option = name.partition(".")
        if option not in names.setdefault(section, []):
            names[section].append(option)
    tables = [tag("div", tag("h3", section), _options(run, section, options, changed))
              for section, options in names.items()]  # fmt: skip
    note = "Start numbers are those of the table below." if changed else None
    return join(tag("div", tables, class_="sections"), tag("p", note, class_="caption"))


def _options(run, section, options, changed):
    given = run.config.get(section, {})
    rows = []
    for option in options:
        value = code(plain(given[option])) if option in given else "no longer there"
        notes = [
            tag("div", f"start {i}: ", code(plain(old)), " → ", code(plain(new)), class_="changed")
            for i, old, new in changed.get(f"{section}.{option}", ())
        ]
        rows.append((option, join(value, notes)))
    return table((), rows) if rows else paragraph("nothing is set")


def _changes(run):
    """{"section.option": [(start, old, new)]}, starts counted from 1."""
    found = defaultdict(list)
    for i, start in enumerate(run.starts, 1):
        for name, pair in mapping(start.get("changed")).items():
            if isinstance(pair, list) and len(pair) == 2:
                found[name].append((i, *pair))
    return found


def starts(run: Run) -> Markup | None:
    """A row for each start; None where none was noted."""
    if not run.starts:
        return None
    rows = []
    for i, start in enumerate(run.starts, 1):
        argv = start.get("argv")
        changed = ", ".join(mapping(start.get("changed"))) or "–"
        command = code(
            shlex.join(["python", "launch.py", *map(str, argv if isinstance(argv, list) else [])])
        )
        rows.append((i, _when([start]) or _mode(start), command, changed))
    return table(("Start", "Time (mode)", "Command", "Options changed"), rows)
