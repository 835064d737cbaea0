"""`make book`: build the course as a website, with warnings as errors, and check that its pages need no other machine.

    python book/build.py

MathJax, require.js and the widget manager come through npm into `book/vendor` (ignored by git, fetched once). Without npm the
pages ask a CDN for them. The result is `_build/html`.
"""

import html.parser
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "book" / "vendor"
SITE = ROOT / "_build" / "html"
PACKAGES = {  # npm package with its version: (folder in the package, what of it, folder in book/vendor)
    "mathjax@3.2.2": [
        ("es5", ("tex-mml-chtml.js", "output/chtml/fonts/", "input/tex/", "a11y/", "sre/", "ui/"), "mathjax"),
    ],
    "@jupyter-widgets/html-manager@1.0.15": [("dist", ("embed-amd.js", ".woff2", ".woff", ".ttf"), "widgets")],
    "requirejs@2.3.8": [("", ("require.js",), "widgets")],
}
LOADING = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src"}
LINKS = ("canonical", "next", "prev", "search", "index")  # links that a browser does not load by itself


def main() -> int:
    """Build the book; the exit status is that of jupyter-book, or 1 where a page loads something from elsewhere."""
    began = time.monotonic()
    local = vendor()
    builder = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
    ]  # of this Python, wherever its scripts lie
    status = subprocess.run([*builder, "build", str(ROOT), "-W", "-n", "--keep-going"], cwd=ROOT).returncode
    if status != 0:
        print("book: not built; the warnings and errors above say why", file=sys.stderr)
        return status
    if local and (found := foreign(SITE)):
        print("book: these pages load something from another machine:", *found, sep="\n  ", file=sys.stderr)
        return 1
    print(f"book: built in {time.monotonic() - began:.0f} s; open {(SITE / 'index.html').as_uri()}")
    return 0


def vendor() -> bool:
    """Put the scripts into `book/vendor`, unless they are there; False where they cannot be had."""
    stamp = VENDOR / "vendor.json"
    wanted = list(PACKAGES)
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        return True
    shutil.rmtree(VENDOR, ignore_errors=True)
    npm = shutil.which("npm")
    if npm is None:
        print(
            "book: npm is not installed, so pages will load MathJax and widgets from a CDN; install Node.js to keep them local"
        )
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", *wanted, "--silent"], cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"book: npm could not fetch {', '.join(wanted)}, so pages will load them from a CDN:\n{done.stderr.strip()}")
            return False
        for name, archive in zip(wanted, done.stdout.split(), strict=True):
            unpack(Path(folder) / archive, PACKAGES[name])
    stamp.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    print(f"book: {', '.join(wanted)} are in {VENDOR.relative_to(ROOT)}")
    return True


def unpack(archive: Path, parts: list[tuple[str, tuple[str, ...], str]]) -> None:
    """Copy the named parts of an npm archive into `book/vendor`."""
    with tarfile.open(archive) as package:
        for member in package.getmembers():
            for folder, names, target in parts:
                inside = member.name.removeprefix("package/")
                if folder and not inside.startswith(f"{folder}/"):
                    continue
                inside = inside.removeprefix(f"{folder}/")
                if not any(inside.startswith(name) if name.endswith("/") else inside.endswith(name) for name in names):
                    continue
                file = package.extractfile(member)
                assert file is not None
                path = VENDOR / target / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())


def foreign(site: Path) -> list[str]:
    """What the pages of a site load from other machines, as "page: address"."""
    found = []
    for page in sorted(site.rglob("*.html")):
        reader = Loads()
        reader.feed(page.read_text(encoding="utf-8"))
        found += [
            f"{page.relative_to(site)}: {address}" for address in reader.addresses if "//" in address.partition(":")[2][:2]
        ]
        found += [f"{page.relative_to(site)}: {address}" for address in reader.addresses if address.startswith("//")]
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        found += [f"{sheet.relative_to(site)}: {part[:80]}" for part in text.split("url(")[1:] if "//" in part[:9]]
    return found


class Loads(html.parser.HTMLParser):
    """Collects the addresses that a browser loads by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the address of a tag that loads one; links to click are not taken."""
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and values.get("rel", "") in LINKS:
            return
        address = values.get(LOADING.get(tag, ""), "")
        if address and not address.startswith("data:"):
            self.addresses.append(address)


if __name__ == "__main__":
    sys.exit(main())
