"""Pictures. Matplotlib lives here only, and is imported when something is drawn.

- images: `grid`, `strip`, `animate`, `save`, `save_all`, `side`, `images_in`
- whole figures: `scatter`, `picture`, `curves`, `drawn`
- on axes of your own: `density`, `score_field`, `paths`, `points`, `ladder`
"""

from score_jax.plotting.figures import MOST_POINTS, curves, drawn, picture, scatter
from score_jax.plotting.images import MARGIN, animate, grid, images_in, save, save_all, side, strip
from score_jax.plotting.plane import density, ladder, paths, points, score_field

__all__ = [
    "MARGIN",
    "MOST_POINTS",
    "animate",
    "curves",
    "density",
    "drawn",
    "grid",
    "images_in",
    "ladder",
    "paths",
    "picture",
    "points",
    "save",
    "save_all",
    "scatter",
    "score_field",
    "side",
    "strip",
]
