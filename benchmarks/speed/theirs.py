"""The same work in PyTorch, eager, as well as it goes. Imports torch, and no JAX.

diffusers' U-Net, an MLP, the update (loss of ε or of the velocity, clipping, Adam in one kernel,
the average), ancestral sampling and annealed Langevin dynamics as loops in Python, a DataLoader.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Net = Callable[[Any, Any], Any]  # (x [N, ...], c [N]) -> y [N, ...]
Config = Mapping[str, Mapping[str, Any]]


def ready(shape: tuple[int, ...]) -> None:
    """Imports what a network for examples of this shape takes."""
    if len(shape) == 3:
        from diffusers import UNet2DModel  # noqa: F401


def unet(config: Config, shape: tuple[int, ...]) -> torch.nn.Module:
    """UNet2DModel of a model section of ours that has `attention` at some resolutions."""
    from diffusers import UNet2DModel

    model, (size, _, channels) = config["model"], shape
    multipliers = model["multipliers"]
    attends = ["Attn" * ((size >> i) in model["attention"]) for i in range(len(multipliers))]
    made = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[m * model["features"] for m in multipliers],
        down_block_types=[f"{a}DownBlock2D" for a in attends],
        up_block_types=[f"{a}UpBlock2D" for a in attends[::-1]],
        layers_per_block=model["blocks"],
        dropout=model["dropout"],
        attention_head_dim=None,  # one head
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        norm_eps=1e-6,
    )
    return made.to(memory_format=torch.channels_last)  # faster here


def images_net(module: torch.nn.Module) -> Net:
    """The U-Net as a function; its x is [N, C, H, W]."""
    return lambda x, c: module(x, c, return_dict=False)[0]


def mlp(width: int, depth: int, dimensions: int) -> torch.nn.ModuleDict:
    """The layers of `score_jax.models.mlp.MLP`."""
    linear = torch.nn.Linear
    layers = {"x": linear(dimensions, width), "c": linear(width, width)}
    layers |= {f"h{i}": linear(width, width) for i in range(depth)}
    return torch.nn.ModuleDict(layers | {"out": linear(width, dimensions)})


def points_net(layers: torch.nn.ModuleDict) -> Net:
    """The MLP as a function."""
    half, hidden = layers["c"].in_features // 2, [layers[f"h{i}"] for i in range(len(layers) - 3)]
    frequencies = torch.exp(-np.log(1e4) * torch.arange(half) / (half - 1))
    silu = torch.nn.functional.silu

    def net(x, c):
        angles = c[:, None] * frequencies
        h = layers["x"](x) + layers["c"](torch.cat([angles.sin(), angles.cos()], -1))
        for layer in hidden:
            h = layer(silu(h))
        return layers["out"](silu(h))

    return net


def made(config: Config, shape: tuple[int, ...]) -> tuple[torch.nn.Module, Net]:
    """(the network of a config, the same as a function)."""
    if len(shape) == 3:
        module = unet(config, shape)
        return module, images_net(module)
    layers = mlp(config["model"]["width"], config["model"]["depth"], *shape)
    return layers, points_net(layers)


def channels_first(x: np.ndarray) -> Any:
    """A tensor; of images [N, H, W, C], with the channels first (in memory they stay last)."""
    tensor = torch.from_numpy(x)
    return tensor.permute(0, 3, 1, 2) if x.ndim == 4 else tensor


def alphas(config: Config) -> Any:
    """[levels] of DDPM's linear betas."""
    options = config["process"]
    betas = np.linspace(options["beta_min"], options["beta_max"], options["levels"])
    return torch.from_numpy(np.sqrt(np.cumprod(1.0 - betas))).float()


def noising(config: Config) -> Callable[[Any, Any], tuple[Any, Any, Any]]:
    """(x_0, ε) -> (x_t, c, what the network shall say), t drawn anew for each example."""
    if config["process"]["name"] == "flow":

        def straight(x0, eps):
            t = (torch.arange(len(x0)) + torch.rand(())) / len(x0)  # stratified
            return x0 + t[:, None] * (eps - x0), 999.0 * t, eps - x0

        return straight
    alpha = alphas(config)
    sigma = (1.0 - alpha**2).sqrt()

    def by_levels(x0, eps):
        level = torch.randint(len(alpha), (len(x0),))
        a, s = alpha[level].view(-1, 1, 1, 1), sigma[level].view(-1, 1, 1, 1)
        return a * x0 + s * eps, level, eps

    return by_levels


def training(module: torch.nn.Module, net: Net, config: Config, data: np.ndarray) -> Callable:
    """One update: a batch, its loss, the gradient, its norm, Adam, the average."""
    options, noised = config["training"], noising(config)
    batch, n, clip = options["batch_size"], 0, options.get("clip")
    rate, warmup = options["learning_rate"], max(options.get("warmup", 0), 1)
    decay_at_most = options.get("ema", 0.999)
    weights = list(module.parameters())
    average = [w.detach().clone() for w in weights]
    adam = torch.optim.Adam(weights, rate, fused=True)  # the default takes three times as long
    examples, flip = channels_first(data), config["data"].get("flip", False)
    module.train()

    def run():
        nonlocal n
        x0 = examples[torch.randint(len(examples), (batch,))]
        if x0.dtype == torch.uint8:
            x0 = x0.float() * (2 / 255) - 1.0
        if flip:
            x0 = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, x0.flip(3), x0)
        x, c, target = noised(x0, torch.randn_like(x0))
        loss = torch.nn.functional.mse_loss(net(x, c), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, float("inf") if clip is None else clip)
        for group in adam.param_groups:
            group["lr"] = rate * min(1.0, (n + 1) / warmup)
        adam.step()
        adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1.0 - min(decay_at_most, (1 + n) / (10 + n)))
        n += 1

    return run


def forward(module: torch.nn.Module, net: Net, x: np.ndarray, c: np.ndarray) -> Callable[[], Any]:
    """What the network says, channels last again."""
    module.eval()
    inputs = channels_first(x), torch.from_numpy(c)

    def run():
        with torch.inference_mode():
            y = net(*inputs)
        return y.permute(0, 2, 3, 1) if y.ndim == 4 else y

    return run


def ancestral(
    module: torch.nn.Module,
    net: Net,
    shape: tuple[int, ...],
    rows: np.ndarray,
    curves: np.ndarray,
) -> Callable[[], Any]:
    """The reverse chain of images [N, H, W, C], clipped and made bytes, or of points [N, D].

    rows: (a, b, c) of every step, x ← a x + b x0 + c z. curves: (level, α, σ) of every time at
    which the network is asked, one more than there are steps.
    """
    module.eval()
    steps = [tuple(map(float, row)) for row in rows]
    told = [tuple(map(float, row)) for row in curves]

    @torch.inference_mode()
    def run():
        x = torch.randn_like(channels_first(np.empty(shape, np.float32)))

        def x0_of(x, level, alpha, sigma):
            eps = net(x, torch.full((len(x),), level))
            x0 = (x - sigma * eps) / alpha
            return x0.clamp(-1.0, 1.0) if len(shape) == 4 else x0

        for (a, b, c), at in zip(steps, told):
            x = a * x + b * x0_of(x, *at) + c * torch.randn_like(x)
        x = x0_of(x, *told[-1])
        if len(shape) == 2:
            return x.numpy()
        return ((x + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    return run


def score(weights: np.ndarray, means: np.ndarray, stds: np.ndarray) -> Callable[[Any], Any]:
    """x [N, D] -> ∇ log p(x) [N, D] of a mixture of normals."""
    w, m, s = (torch.from_numpy(np.array(a, np.float32)) for a in (weights, means, stds))
    constant, precision = w.log() - s.log().sum(-1), s**-2

    def of(x):
        away = m - x[:, None]  # [N, K, D]
        pull = away * precision
        share = torch.softmax(constant - 0.5 * (away * pull).sum(-1), -1)
        return (share[..., None] * pull).sum(1)

    return of


def annealed(
    mixture: tuple[np.ndarray, np.ndarray, np.ndarray], rows: np.ndarray, n: int
) -> Callable[[], Any]:
    """n chains of annealed Langevin dynamics, then the denoising step.

    mixture: weights [K], means [K, D], stds [K, D]. rows: (σ, step size, steps) of every level.
    """
    weights, means, stds = mixture
    at = lambda sigma: score(weights, means, np.sqrt(stds**2 + sigma**2))
    levels = [(at(s), float(e), float(e) ** 0.5, int(k)) for s, e, k in rows]
    first, end = float(rows[0, 0]), float(rows[-1, 0])

    @torch.inference_mode()
    def run():
        x = first * torch.randn(n, means.shape[1])
        for score_at, step, root, steps in levels:
            for _ in range(steps):
                x = x + 0.5 * step * score_at(x) + root * torch.randn_like(x)
        return (x + end**2 * score_at(x)).numpy()

    return run


class Images:
    """Random mirror images, scaled: what a DataLoader is given."""

    def __init__(self, data: np.ndarray):
        self.data = channels_first(data)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        x = self.data[i].float() * (2 / 255) - 1.0
        return x.flip(2) if torch.rand(()) < 0.5 else x


def reading(data: np.ndarray, batch: int, batches: int, workers: int) -> Callable[[], Any]:
    """So many batches of a DataLoader, with its workers started and ended."""

    def run():
        left = batches
        while left:
            loader: Any = torch.utils.data.DataLoader(
                Images(data), batch, shuffle=True, drop_last=True, num_workers=workers
            )
            for _ in zip(range(left), loader):
                left -= 1

    return run


def product(size: int) -> Callable[[], Any]:
    """A product of two float32 matrices."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: torch.mm(a, b)
