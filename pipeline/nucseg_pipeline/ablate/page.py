"""A table as one HTML file that needs no network."""

from __future__ import annotations

from nucseg_pipeline.ablate import markdown
from nucseg_pipeline.ablate.table import DIFFERENCES, DONE, NOT_RUN, PUBLISHED_BESIDE, SHOWN, Tables
from nucseg_pipeline.templating import environment


def ablation_page(tables: Tables) -> str:
    """Write the page: for each data set the scores, the differences, what was published, what it cost."""
    return (
        environment()
        .get_template("ablation.html.j2")
        .render(
            tables=tables,
            text=markdown,
            shown=SHOWN,
            compared=DIFFERENCES,
            beside=tuple(PUBLISHED_BESIDE.values()),
            done=DONE,
            not_run=NOT_RUN,
        )
    )
