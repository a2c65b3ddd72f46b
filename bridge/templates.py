"""The words of mails: the folders of `mails/`, with `subject.txt`, `body.txt` and `body.html` for each kind."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import css_inline
import jinja2

MAILS = Path(__file__).with_name("mails")


def render(name: str, content: dict[str, Any]) -> str:
    """A file of `mails/` with this content. Raises jinja2.UndefinedError for what the content lacks."""
    return _templates().get_template(name).render(content)


class InlinedLoader(jinja2.FileSystemLoader):
    """Puts the rules of `style.css` into the `style` attributes of HTML templates as they are read.

    Many mail programs drop style sheets. What depends on the screen stays in the layout's own `<style>`.
    """

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, path, is_current = super().get_source(environment, template)
        if template == "layout.html":
            source = _inliner().inline(source)
        elif template.endswith(".html"):
            source = _inliner().inline_fragment(source, (MAILS / "style.css").read_text(encoding="utf-8"))
        return source, path, is_current


def _inliner() -> css_inline.CSSInliner:
    rules = (MAILS / "style.css").read_text(encoding="utf-8")
    return css_inline.CSSInliner(extra_css=rules, keep_style_tags=True, load_remote_stylesheets=False)


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=InlinedLoader(MAILS),
        autoescape=jinja2.select_autoescape(["html"], default=False, default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
