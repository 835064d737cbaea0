"""From what a user calls a model's weights to where they lie on this machine: `locate`.

Files of the Hub go through huggingface_hub and into its cache; files of other addresses go into ours, in one folder an
address. What is fetched is checked against a hash before it is used: the one given, else the published one of a released file,
else the one recorded when it was first fetched here, so that a file cannot change unseen.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from hashlib import sha256 as digest_of
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vistalib.extras import missing
from vistalib.files import NotWritten, cache_folder, read_json, sha256, write_json
from vistalib.models.released_files import RELEASED_FILES, REPOSITORY

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # what a saved model's folder or repository holds
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
HUB_ID = re.compile(r"(hf://)?(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/:@]+))?(?P<file>(?(1)[:/]|:).+)?")


def locate(source: str | Path, *, sha256: str | None = None) -> Path:
    """The file or folder on this machine that `source` names, fetched if need be.

    `source` is an address (`https://...`), a path that exists (a weight file, a run's folder, a folder of `save_pretrained`), a
    released name (see `RELEASED_FILES`), or a place on the Hub: `owner/name` for a saved model, `owner/name:file` for one file
    of a repository, either with `@revision` after the name and `hf://` before it. Downloads are resumed, kept, and checked
    every time. `sha256`, 64 hexadecimal digits, is the hash that the file must have.

    Raises `ValueError` when there is no such thing, when it cannot be fetched, and for a file with another hash; `NotWritten`
    when the cache cannot be written.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}; `sha256sum FILE` prints them")
    expected = sha256.lower() if sha256 is not None else None
    name = str(source)
    if name.startswith(("https://", "http://")):  # before it is taken for a path, since it may be too long for one
        return _from_address(name, expected)
    if Path(source).exists():
        return _local(Path(source), expected)
    if isinstance(source, Path):
        raise ValueError(f"pretrained must be a file or a folder that exists, got {source}; check the path")
    if released := RELEASED_FILES.get(name.removesuffix(".pth")):
        return _from_hub(REPOSITORY, released.file, None, expected or released.sha256)
    place = HUB_ID.fullmatch(name)
    if place and (place[1] or place["file"] or not name.endswith(SUFFIXES)):
        file = place["file"]
        return _from_hub(place["repo"], file[1:] if file else None, place["revision"], expected)
    close = get_close_matches(name, RELEASED_FILES)
    raise ValueError(
        "pretrained must be a file, a run's folder, a released name, an address or a place on the Hub (owner/name or "
        f"owner/name:file), got {name!r}, which is none; "
        + (f"did you mean {' or '.join(close)}?" if close else "check the path, or list the names with RELEASED_FILES")
    )


def _local(path: Path, expected: str | None) -> Path:
    if expected is not None:
        file = path / WEIGHTS if path.is_dir() else path
        if not file.is_file():
            raise ValueError(f"sha256 is of one file, got the folder {path} without {WEIGHTS}; give the file itself")
        _check(file, expected, "as sha256 says", f"give the hash of this file, or get the file that has {expected}")
    return path


def _from_hub(repo: str, file: str | None, revision: str | None, expected: str | None) -> Path:
    """A file of a repository, or the folder of a saved model, in the cache of huggingface_hub."""
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise missing("huggingface-hub", "fetch weights from the Hub") from error
    source = f"hf://{repo}@{revision or 'main'}/{file or WEIGHTS}"
    with _told(source if file else f"{source} ({repo} is no path on this machine)", _hub_cache(), "HF_HOME"):
        if file is not None:
            path = Path(hf_hub_download(repo, file, revision=revision))
        else:
            commit = Path(hf_hub_download(repo, CONFIG, revision=revision)).parent.name  # both files of one moment
            path = Path(hf_hub_download(repo, WEIGHTS, revision=commit))
    _check_fetched(path, source, expected)
    return path if file is not None else path.parent


def _from_address(url: str, expected: str | None) -> Path:
    """A file from anywhere, in our own cache."""
    slot = _slot(url)
    name = re.sub(r"[^\w.-]+", "_", unquote(urlsplit(url).path).rpartition("/")[2])
    path = slot / (name[-100:].strip(".") or "weights")
    if not path.is_file():
        try:
            import huggingface_hub  # noqa: F401  # for the two functions below
            from filelock import FileLock
        except ModuleNotFoundError as error:
            raise missing("huggingface-hub", "fetch weights") from error
        with _told(url, slot, "VISTALIB_CACHE"):
            slot.mkdir(parents=True, exist_ok=True)
            with FileLock(slot / "lock"):
                if not path.is_file():  # nobody else has fetched it meanwhile
                    _download(url, path, expected)
    _check_fetched(path, url, expected)
    return path


def _download(url: str, path: Path, expected: str | None) -> None:
    """Fetch `url` to `path`, going on where an earlier attempt at the same version of the file ended."""
    from huggingface_hub import get_session
    from huggingface_hub.file_download import http_get

    headers = {"Accept-Encoding": "identity"}  # a compressed stream has no byte to go on from
    about = get_session().head(url, headers=headers, follow_redirects=True).headers
    version, size = about.get("ETag", ""), about.get("Content-Length")
    resumable = version != "" and not version.startswith("W/")  # a weak tag does not promise the same bytes
    key = digest_of(version.encode()).hexdigest()[:8]
    part = path.with_name(f".{path.name}.{key}.part")
    with part.open("ab" if resumable else "wb") as file:
        total = int(size) if size and resumable else None
        http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=total, displayed_filename=path.name)
    if expected is not None and (found := sha256(part)) != expected:
        part.unlink()
        raise ValueError(
            f"{url} must have the sha256 {expected}, got {found}; nothing was kept: check the address and the hash"
        )
    part.replace(path)


@contextmanager
def _told(source: str, cache: Path, variable: str) -> Iterator[None]:
    """Whatever goes wrong while fetching becomes one sentence with the repair."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except ValueError:
        raise
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ValueError(
            f"{source} is not in the cache and cannot be fetched ({_first_line(error)}); connect once, without HF_HUB_OFFLINE, "
            "or give a file that lies on this machine"
        ) from error
    except EntryNotFoundError as error:
        raise ValueError(
            f"{source} does not exist; to take one file of a repository, give owner/name:file as its page lists it"
        ) from error
    except HfHubHTTPError as error:
        raise ValueError(
            f"{source} could not be fetched ({_first_line(error)}); check the name, and `hf auth login` if it is private"
        ) from error
    except OSError as error:
        if error.errno is None:  # a download that ended early, which is kept
            raise ValueError(
                f"{source} could not be fetched ({_first_line(error)}); try again: it goes on from there"
            ) from error
        why = f"{error.strerror} (while fetching {source}; {variable} moves the cache)"
        raise NotWritten(error.errno, why, str(cache)) from error
    except Exception as error:  # the HTTP client beneath huggingface_hub has a tree of errors of its own
        raise ValueError(f"{source} could not be fetched ({_first_line(error)}); check the address and the network") from error


def _check_fetched(path: Path, source: str, expected: str | None) -> None:
    """Check a fetched file against the hash that is known for it, or record the one it has."""
    record = _slot(source) / "record.json"
    if expected is not None:
        _check(path, expected, "as published or given", f"delete {path.resolve()} and fetch it again")
    elif record.is_file():
        first = read_json(record)["sha256"]
        repair = f"delete {path.resolve()} and fetch it again, or, if its publisher has changed it, {record}"
        _check(path, first, "as when it was first fetched", repair)
    else:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with _told(source, record, "VISTALIB_CACHE"):
            write_json(record, {"source": source, "sha256": sha256(path), "bytes": path.stat().st_size, "fetched": now})


def _check(path: Path, expected: str, why: str, repair: str) -> None:
    if (found := sha256(path)) != expected:
        raise ValueError(f"{path} must have the sha256 {expected}, {why}, got {found}; {repair}")


def _slot(source: str) -> Path:
    """The folder in our cache of what was fetched from `source`."""
    return cache_folder() / "weights" / digest_of(source.encode()).hexdigest()[:16]


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
