"""What stands beside docs/ in the repository, and belongs to the site: copied when it is built.

Links of the pages are those that hold in the repository; they are turned to the copies.
"""

import shutil
from pathlib import Path

HERE = Path(__file__).parents[1]
COPIED = {  # folder of the site: what it has
    "notebooks": "notebooks/*.ipynb",
    "results": "benchmarks/results/*",
}
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
MOVED = {  # as linked in the repository: in the site
    "../notebooks/": "notebooks/",
    "../benchmarks/results/": "results/",
    "../ARCHITECTURE.md": "architecture.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
    "../README.md": "index.md",
}


def copy(app):
    for folder, pattern in COPIED.items():
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
        for file in HERE.parent.glob(pattern):
            if file.is_file():
                shutil.copy2(file, HERE / folder)
    for page in PAGES:
        text = (HERE.parent / page).read_text().replace("](docs/", "](")
        for other in PAGES:
            text = text.replace(f"]({other}", f"]({other.lower()}")
        (HERE / page.lower()).write_text(text)


def turn_links(app, name, source):
    if name.startswith("results/") and not source[0].startswith("#"):
        source[0] = f"# Measured: {name.removeprefix('results/')}\n\n{source[0]}"
    up = "../" * name.count("/")
    for there, here in MOVED.items():
        source[0] = source[0].replace(f"]({up}{there}", f"]({up}{here}")


def setup(app):
    app.connect("builder-inited", copy)
    app.connect("source-read", turn_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
