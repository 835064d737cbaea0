"""What every page of the book stands in: local scripts, the footer, the notebooks' cache, the repository.

Each is a fact of the machine that builds, so it is found when the build begins and not written into `_config.yml`.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

import vistalib
from vistalib.provenance import commit

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "book" / "vendor"
OUTPUTS_DEPEND_ON = ("vistalib/**/*.py", "kernels/vistalib_kernels/**/*.py", "book/results/**/*.*", "book/_ext/pictures.py")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", _prepare, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _prepare(app: Sphinx, config: Config) -> None:
    cache = Path(app.outdir).parent / f".jupyter_cache-{source_key()}"
    for old in set(cache.parent.glob(".jupyter_cache-*")) - {cache}:
        shutil.rmtree(old)
    config["nb_execution_cache_path"] = str(cache)
    if (VENDOR / "vendor.json").exists():
        _use_local_scripts(config)
    options = config["html_theme_options"]
    options["extra_footer"] = f"Built from {_built_from()}."
    repository = github_repository()
    options["repository_url"] = repository or ""  # the builder's default is its own
    if repository:
        options["repository_branch"] = (commit() or "main").removesuffix("+changes")
        options["launch_buttons"] = {"notebook_interface": "classic", "colab_url": "https://colab.research.google.com"}


def source_key() -> str:
    """A hash of all that a notebook's outputs depend on beside the notebook itself, which jupyter-cache hashes."""
    digest = hashlib.sha256()
    for pattern in OUTPUTS_DEPEND_ON:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def github_repository() -> str | None:
    """The GitHub address that this checkout was cloned from; None where it came from elsewhere."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    address = found.replace("git@github.com:", "https://github.com/").removesuffix(".git")
    return address if address.startswith("https://github.com/") else None


def _use_local_scripts(config: Config) -> None:
    """Point MathJax, require.js and the widget manager at what `book/build.py` put into `book/vendor`."""
    config["html_static_path"] = [*config["html_static_path"], "book/vendor"]
    config["mathjax_path"] = "mathjax/tex-mml-chtml.js"
    config["nb_ipywidgets_js"] = {
        "widgets_local.js": {},
        "widgets/require.js": {},
        "widgets/embed-amd.js": {"data-jupyter-widgets-cdn-only": ""},
    }


def _built_from() -> str:
    version = f"vistalib {vistalib.__version__}"
    revision = commit()
    if revision is None:
        return version
    changed = " with changes not committed" if revision.endswith("+changes") else ""
    return f"{version}, commit <code>{revision.removesuffix('+changes')}</code>{changed}"
