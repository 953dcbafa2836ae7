"""What the README and the pages say by code and tables is so."""

import re
from pathlib import Path

import numpy as np
from conftest import exact_score

from score_jax.build import build
from score_jax.data import DATASETS
from score_jax.data.encoding import Encoding
from score_jax.densities import three_modes
from score_jax.given.given import GIVEN
from score_jax.given.observed import known
from score_jax.given.options import Guidance
from score_jax.losses import LOSSES
from score_jax.models import MODELS
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page.stem: page.read_text() for page in (ROOT / "docs").glob("*.md")}


def block(word, text):
    (found,) = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in code
    ]
    return found


def test_the_config_of_your_own_data_builds(tmp_path):
    space = {}
    exec(block("def get_config", PAGES["your_data"]), space)
    config = space["get_config"]().to_dict()
    np.save(tmp_path / "photos.npy", np.zeros((4, 32, 32, 3), np.uint8))
    loader = {"name": "array", "path": str(tmp_path / "photos.npy")}
    config["data"] = loader | {key: config["data"][key] for key in ("centered", "flip")}
    assert build(config).module.features == 64


def test_the_readmes_notebook_cell_draws_from_the_exact_density():
    space = {}
    exec(block("from_score", README), space)
    x, p = np.asarray(space["x"]), three_modes()
    error = np.sqrt(np.diag(p.covariance()) / len(x))
    assert x.shape == (1000, 2) and np.all(np.abs(x.mean(0) - p.mean()) < 4 * error + 0.02)
    process = PROCESSES["ddpm"](beta_min=1e-4, beta_max=0.02, levels=1000)
    point = np.array([0.3, 0.1], np.float32)
    np.testing.assert_allclose(
        space["score"](point, 0.4), exact_score(process, p)(point, 0.4), rtol=1e-6
    )


def test_the_ladder_of_your_own_data_is_computed_from_the_data():
    space = {}
    exec(block("largest_distance", PAGES["your_data"]), space)
    assert space["process"].ratios[-1] == space["sigma_max"] > 1
    assert 0 < space["step_size"] < 1e-3


def test_the_guide_to_conditions_draws_what_it_says():
    space = {}
    exec(block("mmps", PAGES["conditional"]), space)
    total = np.asarray(space["x"]).sum(1)
    assert abs(total.mean() - 0.5) < 0.05 and total.std() < 0.2


def test_the_guide_to_conditions_makes_an_image_and_a_mask_that_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block("mask.png", PAGES["conditional"]), {})
    options = Guidance(image="digit.png", mask="mask.png")
    assert known(options, (8, 8, 1), Encoding()).observation.y.shape == (32,)


def test_the_guide_to_conditions_makes_data_that_can_be_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8))
    exec(block("superresolution", PAGES["conditional"]), {})
    data = DATASETS["array"](path="superresolution.npz")
    assert data.conditions.shape == (2, 64, 64, 3)
    average = data.examples[1, 8:12, 4:8, 2].mean() / 127.5 - 1.0
    np.testing.assert_allclose(data.conditions[1, 8:12, 4:8, 2], average, atol=1e-6)


def rows(text):
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def test_every_config_and_every_name_is_in_its_table():
    for config in (ROOT / "configs").glob("*.py"):
        assert f"| `{config.stem}` |" in rows(README) + rows(PAGES["configs"])
    for family in (DATASETS, GIVEN, LOSSES, MODELS, PROCESSES, SAMPLERS):
        for name in family:
            assert re.search(rf"\b{name}\b", rows(PAGES["reference"])), name


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200
