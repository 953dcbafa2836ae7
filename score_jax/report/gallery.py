"""Pictures: sample grids, samples on their way, samples beside their nearest training examples."""

import statistics

from score_jax import plotting
from score_jax.pictures import GRID
from score_jax.report.markup import Markup, figure, join, tag
from score_jax.report.measures import parameters, to_fill
from score_jax.report.read import Picture, Run
from score_jax.report.values import count, mapping, number, numbers, written


def grids(run: Run) -> Markup | None:
    """The final samples beside real images, and those drawn in training in order of their steps."""
    final, real = run.pictures.get("final"), run.pictures.get("data")
    shown = [_final(run, final) if final else None, _real(run, real) if real else None]
    if final is None:
        some = "final samples" if run.grids else "samples"
        shown.insert(0, to_fill(run, "sample", f"No {some} were drawn yet"))
    found = [
        tag("div", shown, class_="beside") if final and real else join(*shown),
        _over_training(run) if run.grids else None,
    ]
    return join(*found) if any(found) else None


def _real(run, picture):
    n = plotting.images_in(picture.pixels, _shape(run)) if len(_shape(run)) == 3 else None
    what = f"{count(n)} real images" if n else "real images"
    every = number(mapping(run.json["data"].get("data")).get("examples"))
    of = f" of {count(every)}, evenly spread over them" if every and n != every else ""
    return figure(image(picture, f"Data: {what}"), f"Data: {what}{of}, that it was trained on.")


def image(picture: Picture, alt: str) -> Markup:
    """An <img> that holds the PNG's own bytes."""
    height, width = picture.pixels.shape[:2]
    return tag("img", src=picture.uri, alt=alt, width=width, height=height)


def _shape(run):
    """The data's shape, () where it is not known."""
    shape = mapping(run.json["data"].get("data")).get("shape")
    if isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape):
        return tuple(shape)
    return ()


def _content(run, picture):
    """What a picture of `plotting.picture` shows, in words."""
    shape = _shape(run)
    if len(shape) == 3:
        n = plotting.images_in(picture.pixels, shape)
        what = "images" if _beside(run) else "samples"
        return f"{n} {what}" if n else what
    if len(shape) == 1:
        return f"data (left) and samples (right), at most {plotting.MOST_POINTS:,} points of each"
    return "samples"


def _final(run, picture):
    made = run.json["samples"]
    content = _content(run, picture)
    sampler, calls = (
        mapping(made.get("sampler")),
        number(made.get("network_evaluations_per_sample")),
    )
    parts = [f"Final: {content}"]
    if number(made.get("samples")) is not None:
        parts.append(f", of the {count(made['samples'])} that were drawn")
    guidance = mapping(made.get("guidance"))
    if guidance.get("name", "none") != "none":
        parts.append(f" by {guidance['name']}")
    elif "name" in sampler:
        parts.append(f" by {sampler['name']}")
    if calls is not None:
        parts.append(f" with {written(calls)} network evaluations each")
    caption = "".join(parts) + ". " + _arrangement(run, picture) + parameters({"made": made})
    return figure(image(picture, f"Final: {content}"), caption.strip())


def _arrangement(run, picture):
    """Which image is which, where they are not just samples; with a space after it, if anything."""
    beside = _beside(run)
    if beside:
        return beside + " "
    guidance = mapping(run.json["samples"].get("guidance"))
    config = run.config
    model, label = mapping(config.get("model")), mapping(config.get("evaluation")).get("label")
    weight = number(guidance.get("weight"))
    guided = f"Guided by {guidance.get('by')}, weight {written(weight)}. " if weight else ""
    classes = number(model.get("classes"))
    columns = (picture.pixels.shape[1] - plotting.MARGIN) // (_side(run) + plotting.MARGIN)
    if label is None and classes and classes == columns:
        return f"Each column is a class, 0 to {count(classes - 1)}. " + guided
    return guided


def _beside(run):
    """What the images in a grid are that are no samples; None where all are."""
    guidance = mapping(run.json["samples"].get("guidance"))
    if guidance.get("name") in OF_ONE_IMAGE:
        return OF_ONE_IMAGE[guidance["name"]]
    if guidance.get("name", "none") != "none" and guidance.get("image"):
        return "First the image and what is known of it, then the samples."
    if mapping(run.config.get("model")).get("concat_condition") and _are_pairs(run):
        return "Images that samples were told stand left of them."
    return None


def _are_pairs(run):
    """Whether the final picture holds twice as many images as samples."""
    made, shape = number(run.json["samples"].get("samples")), _shape(run)
    if "final" not in run.pictures or made is None or len(shape) != 3:
        return False
    return plotting.images_in(run.pictures["final"].pixels, shape) == 2 * min(made, GRID)


OF_ONE_IMAGE = {
    "sdedit": "First the image that the samples start from.",
    "interpolation": "First the two images, then the way from one to the other.",
}


def _side(run):
    """The width of one image in a grid."""
    return plotting.side(_shape(run)) if len(_shape(run)) == 3 else 1


def _over_training(run):
    thumbnails = [
        figure(image(picture, f"Step {step:,}: {_content(run, picture)}"), f"step {step:,}")
        for step, picture in run.grids
    ]
    shown = f"{len(run.grids)} of {run.grids_made} grids are shown"
    if len(run.grids) == run.grids_made:
        shown = f"{run.grids_made} grid{'s' * (run.grids_made > 1)}"
    same = {_content(run, picture) for _, picture in run.grids}
    content = f"Each shows {same.pop()}. " if len(same) == 1 else ""
    return join(
        tag("h3", "Over training"),
        tag("div", thumbnails, class_="thumbnails"),
        tag("p", f"{shown}, in the order of their steps. {content}", class_="caption"),
    )


def trajectories(run: Run) -> Markup | None:
    """Samples under way; None where they were not drawn."""
    picture = run.pictures.get("trajectory")
    if picture is None:
        return None
    found = run.json["samples/trajectory"]
    times, levels = (
        [value for value in numbers(found.get(key)) if value is not None]
        for key in ("times", "logsnr")
    )
    content = f"{count(found['samples'])} samples" if "samples" in found else "Samples"
    parts = [
        f"{content} under way, two lines each: above x_t, scaled to be seen, below E[x_0 | x_t], "
        "what the network takes the clean data to be."
    ]
    if times:
        span = f"t = {written(times[0])} to {written(times[-1])}"
        span += f", log SNR {written(levels[0])} to {written(levels[-1])}" if levels else ""
        parts.append(f"{len(times)} columns of falling noise, left to right: {span}.")
    parts.append(parameters(found))
    return figure(image(picture, f"{content} on their way from noise to data"), " ".join(parts))


def neighbors(run: Run) -> Markup | None:
    """Samples beside their nearest training examples; None where they were not looked for."""
    picture = run.pictures.get("neighbors")
    if picture is None:
        return None
    found = run.json["samples/neighbors"]
    k = number(found.get("neighbors"))
    content = f"{count(found['samples'])} samples" if "samples" in found else "samples"
    nearest = "its nearest training example"
    if k and k > 1:
        nearest = f"its {count(k)} nearest training examples"
    chosen = f", of {count(found['of'])} those that are nearest to any," if "of" in found else ","
    parts = [f"{content}{chosen} each (left) beside {nearest}."]
    if "features" in found:
        parts.append(f"Compared by: {found['features']}.")
    distances = found.get("distances")
    rows = map(numbers, distances if isinstance(distances, list) else ())
    first = sorted(row[0] for row in rows if row and row[0] is not None)
    if first:
        parts.append(
            f"Distances to the nearest: {written(first[0])} to {written(first[-1])}, median "
            f"{written(statistics.median(first))}."
        )
    parts.append(_beside_test(mapping(run.json["evaluation"].get("memorization"))))
    parts.append(
        "How to read it: a sample that is the same picture as its neighbor, in every detail, was "
        "probably memorized; one that is only of the same kind was not copied from it. It looks "
        "at these samples and this distance alone: that nothing stands out here is no proof."
    )
    return figure(image(picture, f"{content} beside {nearest}"), " ".join(filter(None, parts)))


def _beside_test(found):
    """The samples' distances beside those of test examples, where evaluation measured both."""
    ours, theirs = (
        number(found.get(key)) for key in ("median_distance", "median_distance_of_test")
    )
    if ours is None or theirs is None:
        return None
    return (
        f"The median over {count(found.get('samples'))} samples is {written(ours)}; of test "
        f"examples, which cannot have been memorized, it is {written(theirs)}: much smaller "
        "distances than theirs speak of copies."
    )
