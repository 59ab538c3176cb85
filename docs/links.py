"""The pages' links as they hold in the repository, turned to where the same pages are on the site."""

import re
from typing import Any

ELSEWHERE = {"cache/README.md": "cache.md", "pipeline/README.md": "stages.md"}
"""Pages that lie outside this folder, which has links to them."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page before it becomes HTML."""
    for place, page in ELSEWHERE.items():
        markdown = re.sub(rf"\]\((\.\./)*{re.escape(place)}(?=[)#])", f"]({page}", markdown)
    return re.sub(r"\]\((\.\./)*docs/pages/", "](", markdown)
