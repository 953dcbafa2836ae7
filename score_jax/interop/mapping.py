"""From the tensors of another code base to our parameters, name by name.

    rules = [*pieces("conv", "all_modules.3", "stem", parameters), ...]
    params = convert(rules, tensors, parameters)

A Rule says which of their tensors is which of our parameters, and how it is laid out. All rules
of a network together are its importer, and its exporter where they can be reversed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError

Shapes = dict[str, tuple[int, ...]]  # of our parameters, "down_0_block_1/conv_0/kernel": shape


class Layout(NamedTuple):
    """How their array becomes ours and, where it can, ours theirs."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray] | None = None


class Rule(NamedTuple):
    """Which of their tensors is which of ours, and how its axes go."""

    theirs: str
    ours: str
    layout: Layout


SAME = Layout(lambda w: w, lambda w: w)
CONV = Layout(lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))  # OIHW, HWIO
DENSE = Layout(lambda w: w.T, lambda w: w.T)
POINTWISE = Layout(lambda w: w[:, :, 0, 0].T, lambda w: w.T[:, :, None, None])

# kind of layer: (their leaf, our leaf, layout), as PyTorch names and lays them out
BIAS = ("bias", "bias", SAME)
LEAVES = {
    "conv": (("weight", "kernel", CONV), BIAS),
    "pointwise": (("weight", "kernel", POINTWISE), BIAS),
    "dense": (("weight", "kernel", DENSE), BIAS),
    "norm": (("weight", "scale", SAME), BIAS),
}


def shapes(module: nn.Module, shape: tuple[int, ...]) -> Shapes:
    """The parameters of a network for images of this shape; computes nothing."""
    inputs = jnp.zeros((1, *shape)), jnp.zeros((1,))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))["params"]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    name = lambda path: jax.tree_util.keystr(path[: _depth(path)], simple=True, separator="/")
    return {name(path): leaf.shape for path, leaf in leaves}


def _depth(path) -> int:
    """How much of a leaf's path is names: below lies an initializer's box."""
    return sum(isinstance(key, jax.tree_util.DictKey) for key in path)


def calls(module: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, nn.Module]]:
    """(name, submodule) of a network in the order in which they are called; computes nothing."""
    found: dict[str, nn.Module] = {}

    def note(call, args, kwargs, context):
        path = context.module.path
        if context.method_name == "__call__" and len(path) == 1:
            found.setdefault(path[0], context.module)
        return call(*args, **kwargs)

    inputs = jnp.zeros((1, *shape)), jnp.zeros((1,))
    with nn.intercept_methods(note):
        jax.eval_shape(lambda: module.clone(remat=False).init(jax.random.key(0), *inputs))
    return list(found.items())


def pieces(
    kind: str, theirs: str, ours: str, parameters: Shapes, leaves=LEAVES, between: str = "."
) -> Iterator[Rule]:
    """The rules of one layer: its kernel, scale, bias, as far as `parameters` has them.

    kind: a key of leaves. theirs, ours: the layer's names, which `between` and / join to a leaf's.
    """
    for their_leaf, our_leaf, layout in leaves[kind]:
        if f"{ours}/{our_leaf}" in parameters:
            yield Rule(f"{theirs}{between}{their_leaf}", f"{ours}/{our_leaf}", layout)


def convert(
    rules: Iterable[Rule],
    tensors: Mapping[str, np.ndarray],
    parameters: Shapes,
    ignored: Iterable[str] = (),
) -> dict[str, Any]:
    """Our parameters, nested, float32, from their tensors.

    ignored: tensors of theirs that we can do without. Raises UserError that names every tensor
    that is missing, left over, of another shape or not finite, and every parameter of ours
    without one.
    """
    rules = list(rules)
    unmade = sorted(set(parameters) - {rule.ours for rule in rules})
    missing = sorted({rule.theirs for rule in rules} - set(tensors))
    left_over = sorted(set(tensors) - {rule.theirs for rule in rules} - set(ignored))
    wrong, bad = [], []
    params: dict[str, Any] = {}
    for rule in rules if not missing else ():
        expected, array = parameters[rule.ours], _array(tensors, rule.theirs)
        try:
            ours = rule.layout.to_ours(array)
        except (ValueError, IndexError):  # not even as many axes
            ours = None
        if ours is None or ours.shape != expected or not jnp.issubdtype(ours.dtype, jnp.floating):
            wrong.append(f"{rule.theirs} {array.dtype} {array.shape}, for {rule.ours} {expected}")
            continue
        with np.errstate(over="ignore"):
            ours = np.ascontiguousarray(ours, np.float32)
        if not np.isfinite(ours).all():
            bad.append(rule.theirs)
        *folders, leaf = rule.ours.split("/")
        here = params
        for folder in folders:
            here = here.setdefault(folder, {})
        here[leaf] = ours
    problems = (
        ("missing in the file", missing),
        ("left over in the file", left_over),
        ("of another shape or type", wrong),
        ("holding NaN or infinity in float32", sorted(set(bad))),
        ("parameters that the file says nothing of", unmade if not missing else []),
    )
    if any(names for _, names in problems):
        raise UserError(
            "the weights are not those of this network; nothing was imported\n"
            + "\n".join(_listed(what, names) for what, names in problems if names)
        )
    return params


def _array(tensors, name):
    try:
        return np.asarray(tensors[name])
    except Exception as error:  # read only now, or of a type that NumPy has not
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"the tensor {name} cannot be read ({reason[:200]})") from error


SHOWN = 20  # names in a list; of hundreds the rest would say no more


def _listed(what: str, names: list[str]) -> str:
    more = [f"    ... and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return "\n".join([f"  {len(names)} {what}:", *(f"    {n}" for n in names[:SHOWN]), *more])


def export(rules: Iterable[Rule], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Their tensors from our parameters, by rules that can be reversed."""
    found = {}
    for rule in rules:
        assert rule.layout.to_theirs is not None
        value = params
        for part in rule.ours.split("/"):
            value = value[part]
        found[rule.theirs] = np.ascontiguousarray(rule.layout.to_theirs(np.asarray(value)))
    return found
