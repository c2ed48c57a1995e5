"""Settings of the documentation site.

The source folder is the root of the checkout, so that links between pages, README, notebooks and logs are the ones that
a code host follows: ``python -m sphinx -c docs . build/docs``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

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
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
suppress_warnings = ["mystnb.unknown_mime_type"]
