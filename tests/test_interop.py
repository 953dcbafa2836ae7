"""python -m score_jax.interop: weights in, samples out, and nothing half-done."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import write_config
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from goldens import fill, golden, relative_error

from score_jax import config as configs
from score_jax.build import build
from score_jax.interop import score_sde
from score_jax.interop.__main__ import main
from score_jax.interop.diffusers import write_folder
from score_jax.interop.importing import SOURCES, import_weights, without_images
from score_jax.interop.mapping import shapes
from score_jax.main import main as launch
from score_jax.models import UNet
from score_jax.models.base import init_params
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create

pytestmark = pytest.mark.usefixtures("quick_compile")

NCSNPP = dict(
    name="ncsnpp", features=16, multipliers=(1, 2), blocks=1, attention=(4,), centered=False
)
UNET = dict(name="unet", features=8, multipliers=(1, 2), blocks=1, attention=(4,))
SAMPLERS = {
    "pc": ("predictor_corrector", dict(steps=3, end=1e-5, snr=0.16)),
    "ode": ("adaptive", dict(end=1e-3, rtol=0.1, atol=0.1)),
    "dpm": ("dpm_solver_pp_2m", dict(steps=4, end=1e-3)),
}


def config_of(model):
    return dict(
        data=dict(name="blank", size=8, centered=model.get("centered", True)),
        process=dict(name="ve", sigma_min=0.01, sigma_max=50.0),
        model=model,
        parameterization=dict(view="scaled_score", condition="log_sigma"),
        loss=dict(name="denoising", view="scaled_score", weight="one", reduction="half_sum"),
        sampler=dict(name="predictor_corrector", steps=3),
        training=dict(steps=2, batch_size=2),
        evaluation=dict(samples=2, batch_size=2, features="none"),
    )


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch, tmp_path_factory):
    """A folder with the config of a small NCSN++ and a file of its weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    before = jax.config.jax_compilation_cache_dir
    write_config(tmp_path / "ncsnpp.py", config_of(NCSNPP))
    np.savez("weights.npz", **golden("score_sde_ncsnpp", "fourier_residual").tensors)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def imported(*words, source="score_sde", file="weights.npz", workdir="run"):
    """The exit status of one import."""
    return main(["interop", source, file, f"--workdir={workdir}", *words])


def restored(workdir):
    """(experiment, the state of its newest checkpoint)."""
    experiment = build(configs.load(f"{workdir}/config.json"))
    with Checkpoints(Path(workdir), experiment.training, read_only=True) as checkpoints:
        return experiment, checkpoints.restore(like=create(experiment))[0]


def test_an_imported_run_answers_as_the_original_did(capsys):
    assert imported("--config=ncsnpp.py") == 0
    assert "--config=run/config.json --workdir=run --mode=sample" in capsys.readouterr().out
    experiment, state = restored("run")
    found = golden("score_sde_ncsnpp", "fourier_residual")
    net = jax.jit(jax.vmap(experiment.net(state.ema)))
    x = (found.x + 1.0) / 2.0  # the golden's images are centered, this network's are not
    assert relative_error(net(x, np.log(found.c)), found.y) < 1e-5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_imported_run_samples_from_the_command_line(sampler):
    assert imported("--config=ncsnpp.py") == 0
    name, options = SAMPLERS[sampler]
    words = [f"--config.sampler.{key}={value}" for key, value in options.items()]
    status = launch(
        ["launch.py", "--config=run/config.json", "--workdir=run", "--mode=sample",
         f"--config.sampler.name={name}", *words]
    )  # fmt: skip
    assert status == 0
    with np.load("run/samples.npz") as file:
        assert file["arr_0"].shape == (2, 8, 8, 3) and file["arr_0"].dtype == np.uint8
    assert Path("run/samples/final.png").is_file()


def test_an_imported_run_takes_data_given_then_and_trains_on_them(capsys):
    """Any data of the right shape will do, until the first training says which they are."""
    assert imported("--config=ncsnpp.py") == 0
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    np.savez("images.npz", x=images)
    np.savez("others.npz", x=images[::-1])
    given = lambda name: ["--config.data.name=array", f"--config.data.path={name}"]
    base = ["launch.py", "--config=run/config.json", "--workdir=run"]
    for name in ("images.npz", "others.npz"):
        assert launch([*base, "--mode=sample", *given(name)]) == 0
    assert json.loads(Path("run/config.json").read_text())["data"]["name"] == "blank"
    assert launch([*base, "--mode=train"]) == 2
    assert "holds no images" in capsys.readouterr().err
    assert launch([*base, *given("images.npz")]) == 0
    assert restored_step("run") == 2
    assert launch([*base, "--mode=sample", *given("others.npz")]) == 2
    assert "holds another run" in capsys.readouterr().err


def restored_step(workdir):
    return max(int(path.name) for path in Path(workdir, "checkpoints").glob("[0-9]*"))


def test_what_does_not_fit_is_listed_by_name_and_nothing_is_written(capsys):
    tensors = dict(golden("score_sde_ncsnpp", "fourier_residual").tensors)
    missing = tensors.pop("all_modules.3.weight")
    np.savez("missing.npz", **tensors)
    assert imported("--config=ncsnpp.py", file="missing.npz") == 2
    assert "1 missing in the file:\n    all_modules.3.weight\n" in capsys.readouterr().err

    wrong = tensors | {"all_modules.3.weight": missing[:, :1], "more.bias": missing[0, 0, 0]}
    np.savez("wrong.npz", **wrong)
    assert imported("--config=ncsnpp.py", file="wrong.npz") == 2
    message = capsys.readouterr().err
    assert "1 left over in the file:\n    more.bias" in message
    assert "all_modules.3.weight float32 (16, 1, 3, 3), for stem/kernel (3, 3, 3, 16)" in message
    assert not Path("run").exists()


def test_whole_numbers_are_no_weights(capsys):
    tensors = golden("score_sde_ncsnpp", "fourier_residual").tensors
    np.savez("whole.npz", **{name: w.astype(np.int64) for name, w in tensors.items()})
    assert imported("--config=ncsnpp.py", file="whole.npz") == 2
    assert "int64" in capsys.readouterr().err and not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score_sde"], "expected a source, a file and --workdir"),
        (["score_sd", "weights.npz", "--workdir=run"], "score_sde"),
        (["score_sde", "weights.npz", "--workdir=run"], "give --config"),
        (["score_sde", "no.npz", "--workdir=run", "--config=ncsnpp.py"], "no file no.npz"),
        (["edm", "no.npz", "--workdir=run", "--wrkdir=x"], "wrkdir"),
        (["score_sde", "weights.npz", "--workdir=run", "--config=ncsnpp.py", "--weights=best"],
         "ema"),
        (["diffusers", ".", "--workdir=run"], "not a UNet2DModel"),
        (["to_diffusers", "out", "--workdir=nothing"], "no run in nothing"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_message_and_leaves_nothing(words, message, capsys):
    assert main(["interop", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and "Traceback" not in error
    assert not Path("run").exists() and not Path("out").exists()


@pytest.mark.parametrize("worst", [np.nan, np.inf, 1e300])
def test_weights_that_are_no_float32_numbers_are_named(worst, capsys):
    tensors = dict(golden("score_sde_ncsnpp", "fourier_residual").tensors)
    bad = tensors["all_modules.3.bias"].astype(np.float64)
    bad[1] = worst
    np.savez("bad.npz", **tensors | {"all_modules.3.bias": bad})
    assert imported("--config=ncsnpp.py", file="bad.npz") == 2
    message = capsys.readouterr().err
    assert "1 holding NaN or infinity in float32:\n    all_modules.3.bias\n" in message
    assert not Path("run").exists()


ODD = {
    "ema": [5, {}, {"shadow_params": {}}, {"shadow_params": [1.0]}],
    "model": [None, [1, 2], {1: np.ones(2)}, {}],
    "step": ["abc", float("nan"), -5, 2**40, np.ones(2), 1.5],
}


@pytest.mark.parametrize(("part", "value"), [(p, v) for p, values in ODD.items() for v in values])
def test_an_odd_checkpoint_is_refused_with_one_message(part, value, monkeypatch, capsys):
    held = {"model": {"all_modules.1.weight": np.ones((2, 2))}, "step": 3, part: value}
    monkeypatch.setattr(score_sde, "read", lambda path: held)
    assert imported("--config=ncsnpp.py", file="checkpoint.pth") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    assert list(Path().glob("*run*")) == []


def test_where_the_disk_is_full_nothing_is_left(monkeypatch, capsys):
    def full(self, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_make_room", full)
    assert imported("--config=ncsnpp.py") != 0
    assert "No space left" in capsys.readouterr().err
    assert list(Path().glob("*run*")) == []


def test_what_no_shape_tells_is_said(capsys):
    assert imported("--config=ncsnpp.py") == 0
    said = capsys.readouterr().out
    assert "model.centered = False" in said and "parameterization.view = 'scaled_score'" in said


def test_a_folder_that_says_otherwise_than_the_config_is_heard(flax_state, capsys):
    module = UNet(features=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=8, group_size=1)
    params = init_params(module, jax.random.key(0), (8, 8, 3))
    told = config_of(dict(UNET)) | dict(
        process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1000),
        parameterization=dict(view="eps", condition="level"),
        sampler=dict(name="ancestral", steps=2, grid="ladder", variance="small"),
    )
    write_folder(
        module,
        params,
        Path("theirs"),
        (8, 8, 3),
        build(told | {"loss": dict(name="denoising", law="ladder")}).config,
    )
    assert imported("--config=unet.py", source="diffusers", file="theirs") == 0
    said = capsys.readouterr().out
    assert "config.process.name = 've', but the folder says 'ddpm'" in said
    assert "config.parameterization.view = 'scaled_score', but the folder says 'eps'" in said


def test_a_damaged_run_does_not_become_one_without_data(capsys):
    """Its own data stay its own, whatever is drawn without data meanwhile."""
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    np.savez("images.npz", x=images)
    np.savez("others.npz", x=images[::-1])
    config = config_of(UNET) | dict(data=dict(name="array", path="images.npz"))
    write_config(Path("mine.py"), config)
    run = ["launch.py", "--config=mine.py", "--workdir=mine"]
    assert launch(run) == 0
    blank = ["--mode=sample", "--config.data.name=blank", "--config.data.size=8"]
    for lost in ("config.json", "data.json"):
        Path("mine", lost).unlink()
        assert launch([*run, *blank]) == 0
        assert not Path("mine", lost).exists()
        assert launch(run) == 0, capsys.readouterr().err  # which makes it anew
    assert launch([*run, "--config.data.path=others.npz"]) == 2


def test_a_run_is_not_written_over(capsys):
    assert imported("--config=ncsnpp.py") == 0
    assert imported("--config=ncsnpp.py") == 2
    assert "holds something already" in capsys.readouterr().err


@pytest.fixture
def flax_state(tmp_path):
    """A training state as score_sde saved it: the average is twice the model."""
    module = UNet(features=8, multipliers=(1, 2), blocks=1, attention=(4,), up_attention="level")
    shape = (8, 8, 3)
    parameters = shapes(module, shape)
    rules = list(score_sde.flax_rules(module, shape, parameters))
    model = {rule.theirs: fill(rule.theirs, parameters[rule.ours]) for rule in rules}
    nested = lambda scale: unflatten_dict({n: scale * w for n, w in model.items()}, sep="/")
    state = {"optimizer": {"target": nested(1.0), "state": {"step": 7}}, "step": 7, "lr": 2e-4}
    (tmp_path / "checkpoint_7").write_bytes(msgpack_serialize(state | {"params_ema": nested(2.0)}))
    (tmp_path / "checkpoint_8").write_bytes(msgpack_serialize(state))
    write_config(tmp_path / "unet.py", config_of(UNET | {"up_attention": "level"}))
    return fill("Conv_0/kernel", (3, 3, 3, 8))


@pytest.mark.parametrize(("weights", "scale"), [("ema", 2.0), ("model", 1.0)])
def test_the_average_is_taken_unless_the_model_is_asked_for(weights, scale, flax_state):
    words = ("--config=unet.py", f"--weights={weights}")
    assert imported(*words, source="score_sde_jax", file="checkpoint_7") == 0
    _, state = restored("run")
    assert int(state.step) == 7
    np.testing.assert_array_equal(state.ema["stem"]["kernel"], scale * flax_state)
    np.testing.assert_array_equal(state.params["stem"]["kernel"], flax_state)


def test_where_there_is_no_average_it_is_said(flax_state, capsys):
    assert imported("--config=unet.py", source="score_sde_jax", file="checkpoint_8") == 0
    assert "it holds no ema weights, these are its model" in capsys.readouterr().out
    _, state = restored("run")
    np.testing.assert_array_equal(state.ema["stem"]["kernel"], flax_state)


def test_what_goes_out_to_diffusers_comes_back_the_same(flax_state, capsys):
    write_config(
        Path("ddpm.py"),
        config_of(UNET | dict(groups=8, group_size=1))
        | dict(
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1000),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(name="denoising", law="ladder"),
            sampler=dict(name="ancestral", steps=2, grid="ladder"),
            data=dict(name="digits"),
        ),
    )
    assert launch(["launch.py", "--config=ddpm.py", "--workdir=mine"]) == 0
    assert main(["interop", "to_diffusers", "theirs", "--workdir=mine"]) == 0
    assert {path.name for path in Path("theirs").iterdir()} == {
        "config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"
    }  # fmt: skip
    assert imported(source="diffusers", file="theirs") == 0
    (_, mine), (_, back) = restored("mine"), restored("run")
    jax.tree.map(np.testing.assert_array_equal, mine.ema, back.ema)


def test_every_source_of_the_command_line_has_an_importer():
    from score_jax.interop.__main__ import SOURCES as named

    assert set(named) == set(SOURCES)


def test_the_size_of_images_is_known_without_looking_at_them():
    """A folder says it, TFDS knows it; arrays are looked at."""
    folder = dict(name="folder", path="not/there", size=256, centered=False)
    assert without_images(folder) == dict(name="blank", size=256, channels=3, centered=False)
    assert without_images(dict(name="digits"))["size"] == 8
    np.save("images.npy", np.zeros((3, 12, 12, 1), np.uint8))
    found = without_images(dict(name="array", path="images.npy", flip=True))
    assert found == dict(name="blank", size=12, channels=1, flip=True)


def test_a_notebook_imports_without_the_command_line():
    experiment = import_weights("score_sde", Path("weights.npz"), config_of(NCSNPP), Path("nb"))
    assert experiment.data.shape == (8, 8, 3) and restored("nb")[1].step == 0
