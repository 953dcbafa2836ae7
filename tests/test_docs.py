"""README and docs are true: their code runs, their commands and links name what there is."""

import ast
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax.build import build, known_options
from score_jax.data import DATASETS
from score_jax.densities import three_modes
from score_jax.losses import LOSSES
from score_jax.main import configured, parse, split_overrides
from score_jax.models import MODELS
from score_jax.parameterization import Parameterization
from score_jax.predictions import exact
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS
from score_jax.samplers.base import sample
from score_jax.sections import Evaluation, Likelihood, Training

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/zh/*.md")])
WITH_CODE = [page for page in PAGES if "```python\n" in page.read_text()]
SOURCES = sorted((ROOT / "score_jax").rglob("*.py"))


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    np.save(tmp_path / "images.npy", np.zeros((2, 64, 64, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    families = (DATASETS, LOSSES, MODELS, PROCESSES, SAMPLERS)
    before = [dict(family) for family in families]
    yield tmp_path
    for family, entries in zip(families, before):  # a page's own entries are the page's alone
        family.clear()
        family.update(entries)


def code_of(page):
    """The names that a page's code defines, run from its top to its end."""
    space = {"__name__": "page"}
    for code in blocks(page):
        exec(compile(code, name_of(page), "exec"), space)
    return space


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(page, elsewhere):
    try:
        code_of(page)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "diffusers"):  # which are not required
            raise
        pytest.skip(f"{error.name} is not installed")


def test_the_recipes_for_extension_are_right(elsewhere):
    """The board is dark where it says; the loss has the exact network as its minimiser, the
    sampler the density's moments, the guided prediction the exact product's; all of them train."""
    page = code_of(ROOT / "docs" / "extending.md")
    board = page["checkers"]()
    cells = np.floor((board.examples + 2.0) * 1.0).astype(int)
    assert np.all(cells.sum(1) % 2 == 0) and np.array_equal(cells[:, 1], board.labels)

    process, p = page["Power"](sigma_max=20.0), three_modes()
    for t in (0.1, 0.7):
        np.testing.assert_allclose(process.time_of_logsnr(process.logsnr(t)), t, rtol=1e-4)
    draw = lambda key: sample(key, process, sampler, exact(process, p), (2,))
    sampler = page["overshooting"](process, steps=100)
    x = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000)))
    cov = np.asarray(p.covariance())
    assert np.all(np.abs(x.mean(0) - p.mean()) < 4 * np.sqrt(np.diag(cov) / len(x)) + 0.01)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.06)

    loss, perfect = page["sigmoid"](process), exact(process, p)

    def moved(delta, key):
        def predict(x, t):
            prediction = perfect(x, t)
            return prediction._replace(eps=prediction.eps + delta * (jax.numpy.tanh(x) + 1.0))

        x_key, loss_key = jax.random.split(key)
        return loss(loss_key, predict, p.sample(x_key))

    keys = jax.random.split(jax.random.key(1), 20_000)
    slopes = np.asarray(jax.jit(jax.vmap(jax.grad(moved), (None, 0)))(0.0, keys))
    assert abs(slopes.mean()) < 4 * slopes.std() / len(slopes) ** 0.5 < 0.02

    towards = page["towards"](perfect, process, np.array([1.0, 0.0]), 0.5)
    x, t = np.array([0.3, -0.2], np.float32), 0.4
    expected = perfect(x, t).score + 0.5 * (np.array([1.0, 0.0]) - perfect(x, t).x0)
    np.testing.assert_allclose(towards(x, t).score, expected, rtol=1e-5)

    assert page["operator"](np.ones((4, 5, 1))).shape == (4, 4, 1)
    assert page["features"](np.ones((3, 4, 5, 2), np.uint8)).shape == (3, 2)
    experiment = build(page["get_config"]().to_dict())
    assert isinstance(experiment.process, page["Power"]) and experiment.module.features == 16


# --- commands ----------------------------------------------------------------------------


def commands(page):
    """The commands of a page's indented lines, a line that ends in a backslash with the next."""
    text = re.sub(r" \\\n +", " ", page.read_text())
    return re.findall(r"^    (python .*?)(?: +#.*)?$", text, re.MULTILINE)


COMMANDS = sorted({command for page in PAGES for command in commands(page)})
PLAIN = {
    "parameterization": Parameterization,
    "training": Training,
    "evaluation": Evaluation,
    "likelihood": Likelihood,
}


def check_options(config, overrides):
    for word in overrides:
        section, option = word.split("=")[0].split(".")
        if section in PLAIN:
            known = {field.name for field in fields(PLAIN[section])}
        elif section == "classifier":
            continue
        else:
            name = config[section].get("name", "none" if section == "guidance" else None)
            known = {*known_options(section, name), "name"}
        assert option in known, f"config.{section} has no option {option}"


@pytest.mark.parametrize("command", [c for c in COMMANDS if "launch.py" in c])
def test_a_command_of_the_pages_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[1:]
    words = [
        re.sub(r"^--config=runs/\w+/config.json", "--config=configs/ddpm_mnist.py", word)
        for word in words
    ]
    if any(placeholder in command for placeholder in ("mine.py", "my_", "...")):
        words = [re.sub(r"^--config=.*", "--config=configs/ddpm_mnist.py", word) for word in words]
    check_options(parse(words).config, split_overrides(words)[0])


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.match("python -m", c)])
def test_a_module_of_the_pages_can_be_run(command):
    module = shlex.split(command)[2]
    if not module.startswith(("score_jax", "benchmarks")):
        return
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_options_that_stand_alone_on_a_page_are_known():
    """Lines of options without their command, as in docs/conditional.md."""
    names = re.compile(r"--config\.(\w+)\.(\w+)=")
    config = configured(parse(["launch.py", "--config=configs/ddpm_digits.py"]).config, [])
    for page in PAGES:
        for section, _ in names.findall(page.read_text()):
            assert section in config, f"{name_of(page)}: config.{section}"


# --- links -------------------------------------------------------------------------------


def anchors(page):
    """What GitHub and the site make of a page's headings."""
    for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_is_dead(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose)
    for link in links:
        if re.match("https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link}"


# --- the site ----------------------------------------------------------------------------


def public(body, outer=""):
    """(name, node, what it inherits from) of all that a module or class lets be seen."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield outer + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{outer}{node.name}.")


def documented_elsewhere():
    """Methods that a class of ours documents for its subclasses."""
    return {
        name.split(".")[-1]
        for file in SOURCES
        for name, node in public(ast.parse(file.read_text()).body)
        if "." in name and ast.get_docstring(node)
    }


def test_whatever_is_public_says_what_it_is():
    inherited, silent = documented_elsewhere(), []
    for file in SOURCES:
        tree = ast.parse(file.read_text())
        if not ast.get_docstring(tree):
            silent.append(name_of(file))
        for name, node in public(tree.body):
            of_a_class = "." in name and name.split(".")[-1] in inherited
            if not ast.get_docstring(node) and not of_a_class:
                silent.append(f"{name_of(file)}: {name}")
    assert not silent, silent


def test_the_site_builds_without_a_warning_and_asks_no_one_for_anything(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    site = tmp_path / "html"
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(site)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loads = r'(?:<(?:script|img|link|iframe)[^>]+(?:src|href)|@import|url)\s*[=(]\s*["\']?https?://[^"\')\s>]+'
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not re.findall(loads, file.read_text()), file
    assert len(list(site.rglob("api/*.html"))) > 40
