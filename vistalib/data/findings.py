"""What the doctor of the datasets can find: the rules, each an error or a warning, and one `Finding` for each fault."""

from dataclasses import dataclass
from pathlib import Path

# What is wrong with the files of a kind, in the order in which one mends it. With an error, training fails or learns from wrong
# labels; a warning is what a whole dataset does not have.
ERRORS = {
    "missing-folder": "a folder of the layout is not there",
    "configuration": "the file that names the classes is not there or not right",
    "no-images": "a split without any image",
    "same-name": "two files of one name",
    "missing-label": "images without a label",
    "unreadable": "what nobody can read",
    "empty": "files with nothing in them",
    "damaged-image": "images that are cut, damaged, or none at all",
    "damaged-label": "labels that are cut or damaged",
    "label-mode": "labels that do not store class indices",
    "other-version": "labels of another version",
    "unknown-value": "labels with values that no class has",
    "wrong-size": "labels of another size than their image",
    "probability": "automatic labels that do not say how sure they are",
}
WARNINGS = {
    "count": "splits with more or fewer images than they should have",
    "missing-image": "labels without an image",
    "palette": "labels whose palette has other colours than the classes",
    "image-size": "images of another size than the dataset's",
    "duplicate": "images that are there twice",
    "name-twice": "images of one name in two splits",
    "wrong-split": "images that belong to another split",
    "naming": "names or folders that do not follow the layout",
    "unseen-class": "classes that no label shows",
    "stray": "files that nothing reads",
}
KINDS = ERRORS | WARNINGS


@dataclass(frozen=True)
class Finding:
    """One fault: its `kind` (a key of `KINDS`), the file or folder, what was found there, and how to repair it."""

    kind: str
    path: Path
    found: str
    repair: str

    @property
    def is_error(self) -> bool:
        """Whether training would fail, or learn from wrong labels."""
        return self.kind in ERRORS

    @classmethod
    def of(cls, kind: str, path: Path, error: ValueError) -> "Finding":
        """What a reader of files refused: its sentence names the file and has the repair behind the last semicolon."""
        found, _, repair = str(error).rpartition("; ")
        return cls(kind, path, found.replace(f"{path} ", ""), repair)
