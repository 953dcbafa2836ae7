"""Configs: files with a get_config(), and options given on the command line.

    config = load("configs/ncsn_digits.py")
    override(config, "training.steps", "200", known)

Names and types are checked by `build`, which knows them; here only the file and the form.
"""

import ast
import difflib
import importlib.util
import json
import os
import types
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from score_jax.errors import UserError, shortened, shown, unknown

CONFIGS = Path("configs")  # where ours lie, in a clone


def load(path: str) -> ConfigDict:
    """The config that the Python file's get_config() returns, or that a workdir's config.json is.

    Runs a Python file. Raises UserError if it is missing, fails, or returns no ConfigDict of
    sections, and for a JSON file that is damaged or none of ours.
    """
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise _no_file(path, file)
    if file.suffix == ".json":
        return _load_json(file)
    spec = _spec_of(file)
    if spec is None:
        raise UserError(
            f"--config={path}: a config is a Python file, <name>.py, or a workdir's config.json"
        )
    try:
        config = _run(spec).get_config()
    except Exception as error:
        where = _line_of(error, str(spec.origin))
        raise UserError(
            f"--config={path}{where}: {type(error).__name__}: {shortened(str(error), 600)}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config={path}: get_config() must return an ml_collections.ConfigDict, "
            f"got {type(config).__name__}"
        )
    for name, section in config.items():
        if not isinstance(section, ConfigDict):
            raise UserError(
                f"--config={path}: config.{shortened(name)} must be a section (a ConfigDict), "
                f"got {shown(section)}"
            )
    return config


def _no_file(path: str, file: Path) -> UserError:
    """The error for a config that is not there, with the nearest of those that are."""
    folders = [file.parent] if file.parent == CONFIGS else [file.parent, CONFIGS]
    there = {near.stem: str(near) for folder in folders[::-1] for near in folder.glob("*.py")}
    near = [there[stem] for stem in difflib.get_close_matches(file.stem, there, n=3)]
    at = [str(folder / "*.py") for folder in folders if any(folder.glob("*.py"))]
    listed = ", listed in docs/configs.md" if str(CONFIGS / "*.py") in at else ""
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return UserError(
        f"unknown config file {shown(path)}; known: {', '.join(at) or 'none'}{listed}.{hint}"
    )


def module_of(option: str, file: Path, name: str) -> types.ModuleType:
    """A Python file that an option names, with a function of this name; the file is run.

    Raises UserError, naming the option, where the file is missing, fails, or has no such function.
    """
    if not file.is_file():
        raise UserError(
            f"{option} = {shown(str(file))}: no such file (looked in {Path.cwd()}); expected a "
            f"Python file with {name}(...)"
        )
    spec = _spec_of(file)
    if spec is None:
        raise UserError(f"{option} = {file}: expected a Python file, <name>.py, with {name}(...)")
    try:
        module = _run(spec)
    except Exception as error:
        raise UserError(
            f"{option} = {file}: {type(error).__name__}: {shortened(str(error), 600)}"
        ) from error
    if not callable(getattr(module, name, None)):
        raise UserError(f"{option} = {file}: expected a function {name} in it")
    return module


def _load_json(file: Path) -> ConfigDict:
    try:
        sections = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"--config={file}: not a whole JSON file ({error})") from error
    if not isinstance(sections, dict) or not all(isinstance(s, dict) for s in sections.values()):
        raise UserError(f"--config={file}: expected the config.json of a workdir, of sections")
    return ConfigDict({name: _with_tuples(section) for name, section in sections.items()})


def _with_tuples(section):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}


def override(
    config: ConfigDict,
    name: str,
    text: str,
    known: Callable[[str, object], Mapping[str, Any] | None],
) -> None:
    """Sets config.<section>.<option> to the Python literal `text`, or to it as a string.

    It is a string also where a string is wanted: known(section, name) are the options that the
    section has under this name, each with its type, or None where there is no such name.
    Choosing another `name` starts the section afresh: the options that the file gave to the
    old choice and the new one does not have are left out, and said, but for those of data, which
    tell where the old ones lie. With them goes config.test, which is said.
    Raises UserError for a name of another form or an unknown section.
    """
    section, dot, option = name.partition(".")
    if not dot or not option.isidentifier():
        raise UserError(
            f"--config.{name}={text}: expected --config.<section>.<option>=<value>, "
            "for example --config.training.steps=200"
        )
    if section not in config:
        raise unknown("config section", section, config.keys())
    value, options = _literal(text), config[section]
    if not isinstance(value, str) and option != "name":
        chosen = options.get("name")
        if section == "test" and chosen is None:  # of the kind of the data
            chosen = config.get("data", {}).get("name")
        wanted = (known(section, chosen) or {}).get(option)
        if wanted is str or (wanted == str | None and value is not None):
            value = text
    with options.ignore_type(), options.unlocked():
        kept = known(section, value) if option == "name" else None
        if kept is not None and value != options.get("name"):
            for old in sorted(set(options) - {"name", *kept}):
                if section != "data":
                    print(f"config.{section}.{old} = {options[old]!r} is not for {value}: left out")
                del options[old]
            if section == "data" and config.get("test"):
                print(
                    f"config.test = {dict(config.test)} is for {options.get('name')}, not for "
                    f"{value}: no held-out loss unless config.test says which are its test data"
                )
                config.test = {}
        options[option] = value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):  # TypeError: {[1]: 2}
        return text


def _spec_of(file: Path) -> ModuleSpec | None:
    """How Python would load the file; None for a file whose name is no Python file's."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    return spec if spec is not None and spec.loader is not None else None


def _run(spec: ModuleSpec) -> types.ModuleType:
    assert spec.loader is not None  # see `_spec_of`
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _line_of(error: Exception, file: str) -> str:
    """Where in the config the error came from, as ':<line>'."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f":{error.lineno}"
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f":{line}" if line else ""
