"""How the notebooks draw: SVG without a ground, in colours that are read on white and on black alike."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib_inline.backend_inline import set_matplotlib_formats

INK = "#7a7f87"
GOOD, BAD, WARN, OTHER = "#2e9e6b", "#d9534f", "#d08a1d", "#4a7fd4"

set_matplotlib_formats(
    "svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", facecolor="none"
)
plt.rcParams.update(
    {
        "figure.figsize": (8.2, 2.8),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "seawall",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.color": INK,
        "legend.frameon": False,
        **dict.fromkeys(
            (
                "text.color",
                "axes.labelcolor",
                "axes.edgecolor",
                "xtick.color",
                "ytick.color",
                "axes.titlecolor",
            ),
            INK,
        ),
    }
)

__all__ = ["BAD", "GOOD", "INK", "OTHER", "WARN", "plt"]
