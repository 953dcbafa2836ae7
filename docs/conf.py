"""The site of these pages: `make docs`, then open docs/_build/html/index.html."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "score_jax"
copyright = "the authors of score_jax, Apache-2.0"
extensions = ["myst_nb", "mathml", "reference", "beside"]
exclude_patterns = ["_build"]

# Markdown as GitHub reads it, with formulas between dollars; targets for every heading.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests execute the notebooks; here their outputs are shown
nb_ipywidgets_js = {}

html_theme = "furo"
html_title = "score_jax"
html_static_path = ["_static"]
html_css_files = ["style.css"]
