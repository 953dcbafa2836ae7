"""A browser without a network shows the report: all of it, and nothing beyond its width."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from a_run import make_run
from PIL import Image

from score_jax.report import write_report
from score_jax.report.page import SECTIONS

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} on PATH")

# Put at the end of a copy of the page: what the browser made of it, as an attribute.
PROBE = """<script>
const seen = {errors: []};
addEventListener("error", event => seen.errors.push(String(event.message || event.target)), true);
addEventListener("load", () => {
  seen.widths = [...document.images].map(image => image.naturalWidth);
  seen.page = document.documentElement.scrollWidth;
  seen.window = innerWidth;
  document.documentElement.setAttribute("data-seen", Object.entries(seen).join(";"));
});
</script>"""


def browse(folder, page, *arguments):
    """Runs the browser on a file, every host unknown and the proxy closed; its output."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={folder / 'profile'}", "--proxy-server=127.0.0.1:9",
               "--host-resolver-rules=MAP * ~NOTFOUND", *arguments, page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def seen(dom):
    found = dict(
        pair.split(",", 1) for pair in re.search(r'data-seen="([^"]*)"', dom)[1].split(";")
    )
    return {key: [int(n) for n in value.split(",")] if key != "errors" else value
            for key, value in found.items()}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("run")))


def test_all_sections_and_all_pictures_are_shown(page, tmp_path):
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text().replace("<head>", f"<head>{PROBE}"))
    dom = browse(tmp_path, copy, "--dump-dom")
    for name in SECTIONS:
        assert f'<section id="{name}"' in dom
    found = seen(dom)
    assert found["errors"] == "" and len(found["widths"]) == 7 and min(found["widths"]) > 0


@pytest.mark.parametrize("width", [400, 800, 1200])
def test_the_page_is_not_wider_than_its_window(page, tmp_path, width):
    """In a frame: a window of the browser's own is not narrower than 500 pixels."""
    copy, frame = tmp_path / "copy.html", tmp_path / "frame.html"
    copy.write_text(page.read_text().replace("<head>", f"<head>{PROBE}"))
    frame.write_text(f"""<!DOCTYPE html><iframe src="copy.html" width="{width}" height="900"
        style="border: 0"></iframe><script>onload = () => document.documentElement.setAttribute(
        "data-seen", document.querySelector("iframe").contentDocument.documentElement.dataset.seen)
        </script>""")
    found = seen(browse(tmp_path, frame, "--allow-file-access-from-files", "--dump-dom"))
    assert found["window"] == [width] and found["page"][0] <= width


@pytest.mark.parametrize("scheme, dark", [("1", False), ("0", True)])
def test_the_picture_of_the_page_is_not_blank(page, tmp_path, scheme, dark):
    """Its background is light or dark as the system asks, and its ink the opposite."""
    shot = tmp_path / "page.png"
    browse(tmp_path, page, f"--screenshot={shot}", "--window-size=1000,1500",
           f"--blink-settings=preferredColorScheme={scheme}")  # fmt: skip
    gray = np.asarray(Image.open(shot).convert("L")).astype(int)
    background = np.bincount(gray.ravel()).argmax()
    assert (background < 60) == dark
    assert (np.abs(gray - background) > 100).mean() > 0.01
