"""Which pages are generated, and where they lie."""

from pathlib import Path

from ops.reference import metrics, options

DOCS = Path(__file__).parents[1] / "docs"


def generated() -> dict[Path, str]:
    """Every generated page and what it should hold."""
    return {
        DOCS / "metrics.md": metrics.page(),
        DOCS / "configuration.md": options.page(),
    }
