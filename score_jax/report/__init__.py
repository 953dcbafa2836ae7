"""report.html: what a run is, what it learned and what was measured, as one page that needs nothing
beside it. `read.py` reads the folder, a file each makes the sections, `page.py` joins them."""

from score_jax.report.page import write_report

__all__ = ["write_report"]
