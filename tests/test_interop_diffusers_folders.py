"""Our UNet as a folder of diffusers, and diffusers itself, where it is installed."""

import inspect
import json

import jax
import numpy as np
import pytest

from score_jax.errors import UserError
from score_jax.interop import diffusers
from score_jax.interop.diffusers import source, write_folder
from score_jax.interop.diffusers_config import DEFAULTS, model_config, model_section
from score_jax.interop.diffusers_schedulers import DEFAULTS as SCHEDULERS
from score_jax.interop.diffusers_schedulers import scheduler_config
from score_jax.interop.mapping import convert, shapes
from score_jax.models import NCSNpp, UNet
from score_jax.models.base import init_params

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = dict(features=16, multipliers=(1, 2), blocks=1, attention=(4,), groups=4, dropout=0.0)
NETWORKS = {
    "plain": (SMALL, (8, 8, 3)),
    "classes": (SMALL | dict(classes=3, head_channels=8, endpoint=False), (8, 8, 1)),
    "learned": (SMALL | dict(outputs=2, symmetric=True, attention=(), centered=False), (8, 8, 3)),
    "levels": (SMALL | dict(multipliers=(1, 2, 1), groups=8, group_size=1, blocks=2), (16, 16, 3)),
}
SECTIONS = dict(
    process=dict(name="ddpm_quadratic", beta_min=0.001, beta_max=0.02, levels=100),
    parameterization=dict(view="v", condition="level"),
    sampler=dict(name="ancestral", variance="large", clip=True),
)


def drawn(module, shape):
    """Parameters none of which is zero or one, so that none can take another's place."""
    rng = np.random.default_rng(0)
    params = init_params(module, jax.random.key(0), shape)
    noisy = lambda leaf: (leaf + 0.1 * rng.normal(size=leaf.shape)).astype(np.float32)
    return jax.tree.map(noisy, params)


def asked(shape):
    rng = np.random.default_rng(1)
    return rng.normal(size=(2, *shape)).astype(np.float32), np.array([0.0, 777.0], np.float32)


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def read_back(folder, shape):
    found = source(folder)
    module = UNet(**{k: v for k, v in found.model.items() if k != "name"})
    parameters = shapes(module, shape)
    return module, convert(found.rules(module, shape, parameters), found.sets["model"], parameters)


@pytest.mark.parametrize("case", NETWORKS)
def test_what_is_written_is_read_back_exactly(case, tmp_path):
    options, shape = NETWORKS[case]
    module = UNet(**options)
    params = drawn(module, shape)
    write_folder(module, params, tmp_path / "there", shape)
    config = json.loads((tmp_path / "there" / "config.json").read_text())
    again = UNet(**{k: v for k, v in model_section(config).items() if k != "name"})
    assert model_config(again, shape) == config
    parameters = shapes(again, shape)
    found = diffusers.weights(tmp_path / "there")
    found = convert(diffusers.rules(again, shape, parameters, config), found, parameters)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_the_scheduler_is_written_and_read_back(tmp_path):
    options, shape = NETWORKS["plain"]
    write_folder(UNet(**options), drawn(UNet(**options), shape), tmp_path, shape, SECTIONS)
    found = source(tmp_path).sections()
    assert found["process"] == SECTIONS["process"]
    for name in ("parameterization", "sampler"):
        assert SECTIONS[name].items() <= found[name].items()


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("up_attention = 'level'", dict(up_attention="level")),
        ("resample_conv = False", dict(resample_conv=False)),
        ("conditional = False", dict(conditional=False, classes=2)),
        (r"multipliers = \(2, 2\)", dict(multipliers=(2, 2))),
        ("the norms have 4, 8, 12, 16 groups", dict(groups=32)),
    ],
)
def test_networks_that_are_none_of_theirs_are_refused(match, options, tmp_path):
    module = UNet(**SMALL | options)
    with pytest.raises(UserError, match=match):
        write_folder(module, {}, tmp_path / "there", (8, 8, 3))
    assert not list(tmp_path.iterdir())


def test_other_networks_and_oblong_images_are_refused():
    with pytest.raises(UserError, match="only a unet .* NCSNpp"):
        model_config(NCSNpp(), (32, 32, 3))
    with pytest.raises(UserError, match="square images"):
        model_config(UNet(**SMALL), (8, 16, 3))


@pytest.mark.parametrize(
    ("match", "section", "options"),
    [
        ("process.name = 'vp'", "process", dict(name="vp")),
        ("parameterization.view = 'score'", "parameterization", dict(view="score")),
        ("parameterization.condition = 'time'", "parameterization", dict(condition="time")),
    ],
)
def test_schedulers_that_are_none_of_theirs_are_refused(match, section, options):
    with pytest.raises(UserError, match=match):
        scheduler_config(SECTIONS | {section: SECTIONS[section] | options})


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    options, shape = NETWORKS["plain"]
    module = UNet(**options)
    params = drawn(module, shape)

    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(diffusers, "to_disk", full)
        with pytest.raises(OSError, match="No space"):
            write_folder(module, params, tmp_path / "there", shape)
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    write_folder(module, params, tmp_path / "there", shape)
    before = {path: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    with pytest.raises(UserError, match="there already"):
        write_folder(module, params, tmp_path / "there", shape)
    assert {path: path.read_bytes() for path in (tmp_path / "there").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


# From here on with diffusers itself.


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("diffusers")


def their_answer(network, x, c, label=None):
    import torch

    told = {} if label is None else {"class_labels": torch.from_numpy(label.astype(np.int64))}
    with torch.no_grad():
        y = network(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(c), **told).sample
    return y.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("case", NETWORKS)
def test_diffusers_loads_what_we_write(case, theirs, tmp_path):
    options, shape = NETWORKS[case]
    module = UNet(**options)
    params = drawn(module, shape)
    write_folder(module, params, tmp_path, shape, SECTIONS)
    network, told = theirs.UNet2DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    x, c = asked(shape)
    label = np.array([2, 0], np.int32) if module.classes else None
    told = {} if label is None else {"label": label}
    y = jax.jit(lambda params, x, c: module.apply({"params": params}, x, c, **told))(params, x, c)
    assert relative(np.asarray(y), their_answer(network.eval(), x, c, label)) < 1e-5
    scheduler = theirs.DDPMScheduler.from_pretrained(tmp_path).config
    assert scheduler.beta_schedule == "scaled_linear" and scheduler.variance_type == "fixed_large"


@pytest.mark.parametrize("safe", [True, False])
def test_we_load_what_diffusers_writes(safe, theirs, tmp_path):
    options = dict(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8)
    blocks = dict(
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
    )
    network = theirs.UNet2DModel(sample_size=8, **options, **blocks).eval()
    network.save_pretrained(tmp_path, safe_serialization=safe)
    theirs.DDIMScheduler().save_pretrained(tmp_path)
    module, params = read_back(tmp_path, (8, 8, 3))
    x, c = asked((8, 8, 3))
    y = jax.jit(lambda params, x, c: module.apply({"params": params}, x, c))(params, x, c)
    assert relative(np.asarray(y), their_answer(network, x, c)) < 1e-5
    assert source(tmp_path).sections()["sampler"]["name"] == "ddim"


@pytest.mark.parametrize("name", ["UNet2DModel", *SCHEDULERS])
def test_their_fields_and_defaults_are_known(name, theirs):
    ours = DEFAULTS if name == "UNet2DModel" else SCHEDULERS[name]
    signature = inspect.signature(getattr(theirs, name).__init__).parameters
    given = {field: p.default for field, p in signature.items() if field != "self"}
    assert given.items() <= ours.items()
