"""Settings of the documentation site.

The source folder is the root of the checkout, so that links between pages, README, notebooks and logs are the ones that
a code host follows: ``python -m sphinx -c docs . build/docs``.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ipython_pygments_lexers import IPython3Lexer  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.util.inspect import stringify_signature  # noqa: E402

from lightning_mem1 import __version__  # noqa: E402

project = "lightning_mem1"
author = "The lightning_mem1 authors"
copyright = author
release = __version__

extensions = [
    "myst_nb",
    "sphinx_external_toc",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "notebooks/*.md",
    "notebooks/*.ipynb",
    "experiments/claim/log.md",
    "benchmarks/log.md",
    "lightning_mem1/policy/assets/*/README.md",
]
external_toc_path = "docs/toc.yml"
external_toc_exclude_missing = False

html_theme = "furo"
html_title = f"lightning_mem1 {__version__}"
html_copy_source = False

myst_heading_anchors = 4  # the anchors of a code host
nb_execution_mode = "off"  # the outputs are committed, and a test runs the notebooks

default_role = "literal"  # a name in single backticks is code
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
suppress_warnings = ["mystnb.unknown_mime_type"]


class Short:
    """A default as it is written: ``LoraSettings()`` in place of all of its fields."""

    def __init__(self, value: Any) -> None:
        self.text = f"{type(value).__name__}()" if is_dataclass(value) else repr(value)

    def __repr__(self) -> str:
        return self.text


def signature(app: Sphinx, what: str, name: str, item: Any, options: Any, shown: str, returned: str) -> Any:
    """The arguments of a class as its `__init__` has them; Lightning hides some behind ``*args, **kwargs``."""
    if what != "class" or is_dataclass(item) or getattr(item, "_is_protocol", False):
        return None
    own = inspect.signature(item.__init__)
    arguments = [each for each in own.parameters.values() if each.name != "self"]
    arguments = [
        each if each.default is each.empty else each.replace(default=Short(each.default)) for each in arguments
    ]
    own = own.replace(parameters=arguments, return_annotation=own.empty)
    return stringify_signature(own, unqualified_typehints=True), None


def setup(app: Sphinx) -> None:
    """Join the event; cells of notebooks may begin with a magic (``%%bash``)."""
    app.add_lexer("python", IPython3Lexer)
    app.connect("autodoc-process-signature", signature)
