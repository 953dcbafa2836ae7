"""--mode=likelihood from a config to likelihood.json, and the mistakes on the way."""

import json

import jax
import numpy as np
import pytest
from conftest import tiny_config, tiny_images, write_config

from score_jax.build import build
from score_jax.data.order import evenly
from score_jax.errors import UserError
from score_jax.evaluation import likelihood as command
from score_jax.evaluation.likelihood import make_likelihood
from score_jax.experiment import Experiment
from score_jax.likelihood import log_likelihood
from score_jax.main import main
from score_jax.models.base import init_params
from score_jax.predictions import from_score
from score_jax.workdir import open_workdir

# A process, a network and a tolerance that make short work of it.
QUICK = dict(
    process=dict(name="vp"),
    parameterization=dict(view="eps", condition="time"),
    loss=dict(law="uniform"),
    sampler=dict(steps=3, grid="uniform"),
)


MEASURE = ("--mode=likelihood", "--config.likelihood.batch_size=20")


def toy_config(**options):
    return tiny_config(**QUICK) | {"likelihood": options}


def digits_config(centered=True, **options):
    config = tiny_images(**QUICK) | {"likelihood": options}
    model = config["model"] | {"centered": centered}
    return config | {"data": dict(name="digits", centered=centered), "model": model}


def launch(folder, config, *options):
    if not (folder / "config.py").exists():
        write_config(folder / "config.py", config)
    words = (f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}", *options)
    return main(["launch.py", *words])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder of a config without a likelihood section and its run."""
    folder = tmp_path_factory.mktemp("toy")
    assert launch(folder, tiny_config(**QUICK)) == 0
    return folder


def result_of(folder):
    return json.loads((folder / "run" / "likelihood.json").read_text())


def test_points_get_nats(toy, capsys):
    assert launch(toy, None, *MEASURE, "--config.likelihood.examples=50") == 0
    result, out = result_of(toy), capsys.readouterr().out
    assert result["examples"] == 50 and result["dimensions"] == 2
    assert np.isfinite(result["nats_per_dim"]) and "bits_per_dim" not in result
    assert 0 < result["standard_error"] < 1 and result["network_evaluations_per_example"] >= 14
    made = result["made"]
    assert (made["step"], made["parameters"], made["probes"]) == (12, "ema", 1)
    assert made["end"] == 1e-3 and len(made["parameters_sha256"]) == 16
    assert f"{result['nats_per_dim']:.3f} ± " in out and "nats per dim" in out
    assert "rademacher trace, 1 probe" in out and "likelihood.json" in out


def test_all_the_data_are_taken_where_there_are_fewer(toy):
    assert launch(toy, None, *MEASURE, "--config.likelihood.examples=1000") == 0
    assert result_of(toy)["examples"] == 300


def test_digits_get_bits(tmp_path, capsys):
    config = digits_config(examples=5, batch_size=3, rtol=1e-2, atol=1e-2)
    config["evaluation"] = dict(samples=2, features="none")
    config["training"] |= dict(steps=2, log_every=2)
    assert launch(tmp_path, config) == 0
    assert launch(tmp_path, None, "--mode=likelihood") == 0
    result = result_of(tmp_path)
    assert result["dimensions"] == 64 and result["examples"] == 5
    assert 0 < result["bits_per_dim"] < 20 and "nats_per_dim" not in result
    assert "bits per dim, 64 dimensions" in capsys.readouterr().out


@pytest.mark.parametrize("centered", [True, False])
def test_the_number_is_that_of_the_dequantized_image(centered, tmp_path, monkeypatch):
    """For data from N(m, s²), whose flow is affine, the number is known.

    With r_t² = α² s² + σ²: x_1 = α_1 m + r_1 (x - α m)/r and
    log p(x) = log N(x_1; 0, σ_1²) + log r_1/r; u spreads x by a width's square over 12.
    """
    experiment = build(digits_config(centered, examples=7, batch_size=4, trace="exact"))
    process, m, s = experiment.process, 0.3, 0.7
    r2 = lambda t: process.alpha(t) ** 2 * s**2 + process.sigma(t) ** 2
    predict = from_score(process, lambda x, t: (process.alpha(t) * m - x) / r2(t))
    monkeypatch.setattr(Experiment, "predict", lambda self, net: predict)
    result = command.evaluate(experiment, {"none": np.zeros(())}, {}, tmp_path)

    low, width = (-1.0, 2 / 256) if centered else (0.0, 1 / 256)
    x = low + (experiment.data.examples[evenly(7, 1797)] + 0.5) * width
    growth = np.sqrt(float(r2(1.0)) / float(r2(1e-3)))
    x_1 = float(process.alpha(1.0)) * m + growth * (x - float(process.alpha(1e-3)) * m)
    square = (x_1**2).mean() + (growth * width) ** 2 / 12
    nats = 0.5 * square + 0.5 * np.log(2 * np.pi) - np.log(growth)
    assert result["bits_per_dim"] == pytest.approx((nats - np.log(width)) / np.log(2), abs=2e-3)


def test_an_example_s_number_depends_on_the_seed_and_on_it_alone():
    """Not on the others, nor on the batch it is in.

    Among other mates in the same program bit for bit; alone, in a program of another batch size
    which rounds otherwise, to the tolerances: a step may be accepted there that is refused here.
    """
    experiment = build(toy_config(batch_size=7))
    params = init_params(experiment.module, jax.random.key(1), experiment.data.shape)
    all_of_them = make_likelihood(experiment)(params, range(20))
    one = make_likelihood(experiment)(params, [11])
    np.testing.assert_allclose(one.log_prob, all_of_them.log_prob[11:12], rtol=1e-5)
    mates = make_likelihood(experiment)(params, [3, 19, 11, 0, 6, 2, 5])
    assert mates.evaluations[2] == all_of_them.evaluations[11]
    assert mates.log_prob[2] == all_of_them.log_prob[11]
    assert all_of_them.log_prob.shape == (20, 1) and all_of_them.log_prob.dtype == np.float64
    assert len(set(all_of_them.log_prob.round(5).ravel())) == 20
    other = build(toy_config(batch_size=7, seed=1))
    assert np.any(make_likelihood(other)(params, range(7)).log_prob != all_of_them.log_prob[:7])


def test_progress_runs_to_the_end():
    experiment = build(toy_config(batch_size=8))
    params = init_params(experiment.module, jax.random.key(1), experiment.data.shape)
    seen = []
    make_likelihood(experiment)(params, range(20), seen.append)
    assert seen == sorted(seen) and {0.4, 0.8, 1.0} <= set(seen) <= {0.0, 0.4, 0.8, 1.0}


def test_a_ladder_s_end_is_its_first_level(tmp_path):
    """Below it the network has seen nothing."""
    experiment = build(tiny_config() | {"likelihood": dict(examples=4)})
    params = init_params(experiment.module, jax.random.key(1), experiment.data.shape)
    assert command.evaluate(experiment, params, {}, tmp_path)["made"]["end"] == 1 / 12
    assert experiment.config["likelihood"]["end"] is None


def test_a_run_from_before_the_section_goes_on_without_a_word_about_it(toy, capsys):
    path = toy / "run" / "config.json"
    old = json.loads(path.read_text())
    del old["likelihood"]
    path.write_text(json.dumps(old))
    capsys.readouterr()
    assert launch(toy, None, "--config.training.steps=16") == 0
    out = capsys.readouterr().out
    assert "training.steps: 12 there, 16 here" in out and out.count(" there, ") == 1
    assert json.loads(path.read_text())["likelihood"]["probes"] == 1


def test_a_change_of_the_section_is_said_and_allowed(toy, capsys):
    folder = toy / "other"
    for probes in (1, 2):
        experiment = build(toy_config(probes=probes))
        with open_workdir(folder, experiment.config, "train", experiment.data):
            pass
    assert "likelihood.probes: 1 there, 2 here" in capsys.readouterr().out


# --- mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("examples=0", "config.likelihood.examples must be at least 1, got 0"),
        ("batch_size=0", "config.likelihood.batch_size must be at least 1"),
        ("probes=0", "config.likelihood.probes must be at least 1, got 0"),
        ("seed=-1", "config.likelihood.seed must be in [0, 2^32)"),
        ("trace=rademcher", "Did you mean 'rademacher'"),
        ("rtol=-1", "config.likelihood.rtol must be at least 0"),
        ("atol=0", "config.likelihood.atol must be positive"),
        ("end=1", "config.likelihood.end must be in [0, 1)"),
        ("end=0.0", "sigma(end) = 0"),
        ("exampels=3", "Did you mean 'examples'"),
    ],
)
def test_options_that_cannot_be_are_refused(toy, capsys, option, says):
    capsys.readouterr()
    (toy / "run" / "likelihood.json").unlink(missing_ok=True)
    assert launch(toy, None, "--mode=likelihood", f"--config.likelihood.{option}") == 2
    assert says in capsys.readouterr().err
    assert not (toy / "run" / "likelihood.json").exists()


def test_without_a_run_or_a_checkpoint_it_says_so(tmp_path, capsys):
    config = tiny_config(**QUICK)
    assert launch(tmp_path, config, "--mode=likelihood") == 2
    assert "train it first (--mode=train)" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "starts.jsonl").write_text("")
    assert launch(tmp_path, config, "--mode=likelihood") == 2
    assert "no checkpoint in " in capsys.readouterr().err


def test_a_network_that_knows_its_levels_only_is_refused():
    images = dict(data=dict(name="digits", centered=False))
    experiment = build(tiny_config(**images, model=dict(name="refinenet", features=4, levels=12)))
    with pytest.raises(UserError, match="config.model.name = 'refinenet' has parameters for each"):
        command.check(experiment)


def test_examples_that_the_solver_gives_up_on_are_no_result(tmp_path, monkeypatch):
    experiment = build(toy_config(examples=6))
    params = init_params(experiment.module, jax.random.key(1), experiment.data.shape)
    short = lambda *args, **options: log_likelihood(*args, **options, max_evaluations=10)
    monkeypatch.setattr(command, "log_likelihood", short)
    with pytest.raises(UserError, match="for 6 of 6 examples.*config.likelihood.rtol"):
        command.evaluate(experiment, params, {}, tmp_path)
    assert not (tmp_path / "likelihood.json").exists()
