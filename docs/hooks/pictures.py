"""Puts the hand-written pictures into the pages themselves, where they take the colours that the reader chose."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

IMAGE = re.compile(r'<p><img alt="[^"]*" src="(\w+\.svg)" ?/?></p>')
OURS = '<svg class="picture"'


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by mkdocs: the page with each of our pictures in the place of its link. Plots stay links."""

    def inline(link: re.Match[str]) -> str:
        picture = (Path(config.docs_dir) / link[1]).read_text()
        return f"<figure>{picture}</figure>" if picture.startswith(OURS) else link[0]

    return IMAGE.sub(inline, html)
