"""The report says what the files of a run say, holds all it shows, and survives what is odd."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import a_run
import numpy as np
import pytest
from a_run import make_run

from score_jax import plotting
from score_jax.errors import UserError
from score_jax.report import write_report
from score_jax.report.chart import Line, chart, thinned
from score_jax.report.markup import VOID
from score_jax.report.read import evenly
from score_jax.report.values import written


class Page(HTMLParser):
    """The page read: its sections' text, tags and attributes. A tag not closed in turn fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sections, self.within, self.raw = [], [], {}, "top", text
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag in ("section", "footer"):
            self.within = attributes.get("id", tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.sections[self.within] = self.sections.get(self.within, "") + f" {data}"

    def text(self, section):
        return " ".join(self.sections.get(section, "").split())

    def images(self):
        return [base64.b64decode(a["src"].split(",")[1]) for tag, a in self.tags if tag == "img"]


def report(workdir):
    return Page(write_report(workdir).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "a run")


SAID = {
    "top": ["a run", "unet", "cosine", "denoising",
            "400 steps, all that the config asks for; each example was seen 4.454 times",
            "digits, 1,437 examples of shape 8 × 8 × 1", "2 × TPU v4", "jax 0.10.2",
            "2026-03-01 10:20:30 UTC (train)", "2026-03-02 10:20:30 UTC (evaluate)"],
    "figures": ["Fréchet distance ↓ lower 12.35 ± 0.41 14.5 8.25", "Coverage ↑ higher 0.75 – –",
                "718 each", "1,437 examples of digits/train", "not FID, and not comparable across",
                "Density too few examples", "resize bilinear", "(EMA) at step 400"],
    "likelihood": ["bits per dim 3.457 ± 0.021", "from the images 0.021", "from the probes 0.0031",
                   "example 142.5", "bits per dim 4.000 ± 0.050", "the prior 0.125",
                   "the reconstruction 1.875", "the 2 transitions 2",
                   "360 examples of digits/test, 64 dimensions"],
    "training": ["training held out", "1 step had a loss or gradient that is not finite",
                 "360 examples of digits/test", "gradient norm", "learning rate",
                 "steps per second"],
    "noise-levels": ["step 100 step 400", "(2 of 2 measurements are shown)", "(logarithmic)"],
    "samples": ["Final: 5 samples, of the 5 that were drawn by ancestral with 12 network",
                "Data: 5 real images of 1,437, evenly spread over them",
                "step 100 step 200 step 1,000 3 grids, in the order", "Each shows 4 samples"],
    "trajectories": ["3 samples under way", "3 columns", "t = 1 to 0", "log SNR -9 to 9",
                     "step 400"],
    "neighbors": ["3 samples, each (left) beside its nearest training example",
                  "2 to 7, median 3", "pixels", "memorized"],
    "config": ["learning_rate 0.5 start 2: 0.25 → 0.5", "dropout 0.1"],
    "starts": ["1 2026-03-01", "python launch.py --mode=evaluate training.learning_rate"],
    "footer": ["--mode=report", "score_jax"],
}  # fmt: skip


def test_every_number_and_caption_stands_where_it_belongs(run):
    page = report(run)
    assert list(page.sections) == list(SAID)
    for section, sentences in SAID.items():
        for sentence in sentences:
            assert sentence in page.text(section), (section, sentence, page.text(section))


def test_the_page_needs_nothing_beside_it(run):
    page = report(run)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for key in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/png;base64,"))
    assert "url(" not in page.raw and "@import" not in page.raw and "http" not in page.raw


def test_ids_are_unique_and_every_link_has_its_target(run):
    page = report(run)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert len(set(ids)) == len(ids) and len(links) == 9
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {a["aria-labelledby"] for tag, a in page.tags if tag == "section"} <= set(ids)


def test_pictures_are_the_folder_s_own_bytes_in_order_each_described(run):
    names = (
        "final",
        "data",
        "step_0000100",
        "step_0000200",
        "step_0001000",
        "trajectory",
        "neighbors",
    )
    page = report(run)
    assert page.images() == [(run / "samples" / f"{name}.png").read_bytes() for name in names]
    assert all(a["alt"] for tag, a in page.tags if tag == "img")


def test_of_many_grids_twelve_are_shown_the_first_and_the_last_among_them(run):
    for step in range(1, 31):
        shutil.copy(run / "samples" / "final.png", run / "samples" / f"step_{step * 2000:07d}.png")
    text = report(run).text("samples")
    assert "12 of 33 grids are shown" in text
    assert "step 100 " in text and "step 60,000 " in text
    assert evenly(33, 12)[0] == 0 and evenly(33, 12)[-1] == 32 and len(evenly(33, 12)) == 12


def test_large_grids_are_fewer(run):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)  # 1.5 MB
    for step in range(2000, 12000, 1000):
        plotting.save(noise, run / "samples" / f"step_{step:07d}.png")
    assert "3 of 13 grids are shown" in report(run).text("samples")


@pytest.mark.parametrize("kind", ["inception", "classifier", "own", "none"])
def test_fid_is_said_of_inception_s_features_alone(run, kind):
    a_run.write(run, "evaluation.json", a_run.evaluation(kind))
    page = report(run)
    named = "Fréchet Inception Distance (FID) ↓ lower 12.35" in page.text("figures")
    assert named == (kind == "inception")
    if kind in ("own", "none"):
        words = " ".join(page.sections.values())
        assert "FID" not in words and "Inception" not in words


def test_another_network_s_distance_is_not_called_fid_even_if_its_file_says_so(run):
    metrics = {"fid": 1.0, "kid": 2.0, "inception_score": 3.0}
    a_run.write(run, "evaluation.json", a_run.evaluation("own", metrics=metrics))
    text = report(run).text("figures")
    assert "FID" not in text and "KID" not in text and "Fréchet distance ↓ lower 1" in text


def test_what_is_missing_is_left_out_or_names_the_command_that_makes_it(tmp_path):
    a_run.write(tmp_path, "config.json", a_run.CONFIG)
    page = report(tmp_path)
    assert set(page.sections) - {"top", "footer"} == {
        "figures", "likelihood", "training", "samples", "config"
    }  # fmt: skip
    for section, mode in dict(figures="evaluate", likelihood="likelihood", training="train",
                              samples="sample").items():  # fmt: skip
        assert f"--workdir={tmp_path} --mode={mode}" in page.text(section)


def test_what_a_run_cannot_do_is_not_hinted_and_what_it_can_has_its_options(tmp_path):
    a_run.write(tmp_path, "config.json", a_run.CONFIG)
    hints = {"evaluate": {"evaluation.allow_fewer": True}, "likelihood": None, "train": None}
    page = Page(write_report(tmp_path, hints).read_text(encoding="utf-8"))
    assert set(page.sections) - {"top", "footer"} == {"figures", "samples", "config"}
    assert "--mode=evaluate --config.evaluation.allow_fewer=True" in page.text("figures")


def test_the_steps_that_were_not_made_yet_and_every_stop_are_told(tmp_path):
    lines = [{"step": step, "loss": 1.0, "learning_rate": 0.5} for step in (100, 200, 300)]
    lines[1]["resumed"], lines[2]["resumed"] = 150, 200
    run = make_run(tmp_path, metrics=lines, samples={}, evaluation={})
    page = report(run)
    told = "300 steps of the 400 asked for; each example was seen 3.34 times; taken up again after"
    assert f"{told} step 150, 200 " in page.text("top")
    marks = [a["d"] for tag, a in page.tags if tag == "path" and a.get("class") == "mark"]
    assert len(marks) == 2 * 2 and "Dashed" in page.text("training")  # of loss, learning rate


@pytest.mark.parametrize("name", sorted(p for p in SAID if p != "top"))
def test_any_one_file_may_be_missing(run, name):
    files = {"figures": "evaluation.json", "likelihood": "likelihood.json",
             "training": "metrics.jsonl", "noise-levels": "held_out.jsonl",
             "samples": "samples/final.png", "trajectories": "samples/trajectory.json",
             "neighbors": "samples/neighbors.json", "config": "data.json",
             "starts": "starts.jsonl", "footer": "samples.json"}  # fmt: skip
    (run / files[name]).unlink()
    page = report(run)
    assert "top" in page.sections and "footer" in page.sections


def test_what_is_damaged_is_passed_over_and_named(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"step": 50')
    png = run / "samples" / "final.png"
    png.write_bytes(png.read_bytes()[:200])
    (run / "likelihood.json").write_text("{")
    page = report(run)
    assert "likelihood.json, samples/final.png, 2 lines of metrics.jsonl" in page.text("footer")
    assert len(page.images()) == 6 and "--mode=likelihood" in page.text("likelihood")
    assert "steps per second" in page.text("training")


ODD = [None, True, "x", -1, 10**400, float("nan"), [], [None], {}, {"value": "x"}]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:20])
def test_a_value_of_any_other_kind_makes_no_report_fail(run, odd):
    paths = [path for path in sorted(run.rglob("*.json*")) if path.name != "config.json"]
    files = {path: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}
    for i in range(max(len(lines[0]) for lines in files.values())):
        for path, lines in files.items():  # the i-th key of all of them at once
            changed = [line | dict.fromkeys(list(line)[i : i + 1], odd) for line in lines]
            path.write_text("".join(json.dumps(line) + "\n" for line in changed))
        assert report(run).text("config")


def test_a_standard_deviation_is_not_called_an_error(run):
    metrics = {"classifier_score": {"value": 8.912, "standard_deviation": 0.07}}
    a_run.write(run, "evaluation.json", a_run.evaluation(metrics=metrics))
    text = report(run).text("figures")
    assert "8.912 s.d. 0.070" in text and "8.912 ±" not in text and "not an error" in text


def test_text_of_files_is_never_markup(tmp_path):
    evil = '<script>alert("x")</script>&amp;\ud800'
    config = a_run.CONFIG | {"data": {"name": evil, evil: [evil]}}
    starts = [a_run.start(1, evil, {evil: [evil, evil]}) | {"time": evil, "devices": [evil]}]
    metrics = {evil: 1.0}
    found = a_run.evaluation(evil, metrics=metrics, left_out={evil: evil}, protocol={evil: evil})
    found["features"]["name"] = found["reference"]["data"] = evil
    run = make_run(tmp_path / "<b>&", config=config, starts=starts, evaluation=found)
    page = report(run)
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert '<script>alert("x")</script>&amp;' in page.text("config")


def test_a_folder_without_a_config_is_no_workdir(tmp_path):
    for text in (None, "{", "[1]", '{"model": 3}'):
        if text:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=re.escape(f"{tmp_path} is not a workdir")):
            write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_report_follows_from_the_files_and_replaces_the_old_one(run, tmp_path):
    path = write_report(run)
    first = path.read_bytes()
    assert path == run / "report.html" and write_report(run).read_bytes() == first
    other = make_run(tmp_path / "other", likelihood={"bits_per_dim": 1.25})
    assert "1.25" in report(other).text("likelihood")
    assert path.read_bytes() == first
    path.write_text("old" * len(first))
    assert write_report(run).read_bytes() == first
    assert not [file for file in run.iterdir() if file.name.startswith(".")]


def test_a_thinned_line_keeps_its_ends_and_its_peaks():
    points = [(i, np.sin(i / 50)) for i in range(10_000)]
    points[7_777], points[1_234] = (7_777, 50.0), (1_234, -50.0)
    kept = thinned(points)
    assert len(kept) <= 402 and kept == sorted(kept)
    assert {points[0], points[-1], points[7_777], points[1_234]} <= set(kept) <= set(points)


@pytest.mark.parametrize("log", [False, True])
def test_a_chart_puts_points_in_their_places(log):
    points = [(0.0, 1.0), (1.0, 10.0), (2.0, 100.0)]
    page = Page(str(chart([Line("a", points)], "x", "y", log=log)))
    x, y = np.array([(float(a["cx"]), float(a["cy"])) for t, a in page.tags if t == "circle"]).T
    np.testing.assert_allclose(np.diff(x), x[1] - x[0])
    middle = (y[0] - y[1]) / (y[0] - y[2])
    assert y[0] > y[1] > y[2] and middle == pytest.approx(0.5 if log else 1 / 11, abs=1e-3)
    with pytest.raises(ValueError, match="at least one point"):
        chart([Line("a", [])], "x", "y")


@pytest.mark.parametrize("n", [1, 2, 3, 5, 12, 64])
def test_the_images_in_a_grid_are_counted(n):
    images = np.random.default_rng(n).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    assert plotting.images_in(plotting.grid(images), (8, 8, 1)) == n
    assert plotting.images_in(plotting.grid(images), (64, 60, 3)) is None


@pytest.mark.parametrize(
    "value, error, text",
    [(12.3456, 0.412, "12.35"), (2.0, 35.0, "2"), (0.00213, 0.00034, "0.00213"),
     (123456.7, None, "123,457"), (2.3518e12, 3.6e12, "2.352e+12"),
     (0.75, 0.0, "0.75"), (None, None, "–")],
)  # fmt: skip
def test_a_number_is_written_to_its_error(value, error, text):
    assert written(value, error) == text
