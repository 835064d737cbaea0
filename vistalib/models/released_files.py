"""The released checkpoints by name: where they lie, how large they are, and the hash they must have.

Source: for names and places, the tables and configurations of `segmentation/` in the repository OpenGVLab/InternImage (commit
31c962d); for sizes, SHA-256 and licence (MIT), the Hub's pages of OpenGVLab/InternImage, whose files are those uploaded in
March 2023. What the datasets' own terms allow is for their makers to say: all but the ImageNet backbones were trained on
Mapillary Vistas or Cityscapes.

The segmentation files hold float16 tensors under the released names; the ImageNet files hold float32 and carry a classification
head that no segmentor has. Every segmentation file has 150 logits, of which the first 19 are trained.
"""

from dataclasses import dataclass

REPOSITORY = "OpenGVLab/InternImage"
LICENCE = "MIT"
RELEASED_OUTPUTS = 150  # of every released segmentor, whatever it was trained on
TRAINED_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain"),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)


@dataclass(frozen=True)
class ReleasedFile:
    """One released checkpoint: the name of its recipe or backbone, its size in units of 10^6 bytes, and its SHA-256."""

    name: str
    megabytes: int
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the repository on the Hub."""
        return f"{self.name}.pth"

    @property
    def url(self) -> str:
        """Where it lies."""
        return f"https://huggingface.co/{REPOSITORY}/resolve/main/{self.file}"

    @property
    def licence(self) -> str:
        """What the Hub gives as the licence of the repository."""
        return LICENCE

    @property
    def model(self) -> str | None:
        """The model it is of, for `create_model`; None for a backbone, which every head can be put on."""
        return None if self.name.startswith("internimage") else self.name.partition("_512x1024")[0]

    @property
    def mean_iou(self) -> tuple[float, float] | None:
        """The published mIoU on Cityscapes val in percent, single scale and multi-scale + flip; None where there is none."""
        return MEAN_IOU.get(self.name)

    @property
    def classes(self) -> tuple[str, ...]:
        """What its first logits stand for; the others, up to the 150th, were never trained."""
        return () if self.model is None else TRAINED_CLASSES


def _table(*rows: tuple[str, int, str]) -> dict[str, ReleasedFile]:
    return {name: ReleasedFile(name, megabytes, digest) for name, megabytes, digest in rows}


MAPILLARY = "512x1024_80k_mapillary"
CITYSCAPES = "512x1024_160k_cityscapes"
BOTH = "512x1024_160k_mapillary2cityscapes"

# As the table in segmentation/configs/cityscapes prints it: the best of the checkpoints scored on these same images.
MEAN_IOU = {
    f"upernet_internimage_t_{CITYSCAPES}": (82.58, 83.40),
    f"upernet_internimage_s_{CITYSCAPES}": (82.74, 83.45),
    f"upernet_internimage_b_{CITYSCAPES}": (83.18, 83.97),
    f"upernet_internimage_l_{CITYSCAPES}": (83.68, 84.41),
    f"upernet_internimage_xl_{CITYSCAPES}": (83.62, 84.28),
    f"upernet_internimage_l_{BOTH}": (85.94, 86.22),
    f"upernet_internimage_xl_{BOTH}": (86.20, 86.42),
    f"segformer_internimage_l_{BOTH}": (85.16, 85.67),
    f"segformer_internimage_xl_{BOTH}": (85.41, 85.93),
}

RELEASED_FILES = _table(
    (f"upernet_internimage_l_{MAPILLARY}", 512, "153b1a0c36069064a783047cf1182ff079d31285e1c6039bae79f4a1892fba14"),
    (f"upernet_internimage_xl_{MAPILLARY}", 736, "4a0d4c5a51461cee0f761ca979e49611afa96d62e1085c540516ee1a0329f380"),
    (f"segformer_internimage_l_{MAPILLARY}", 440, "043b3ccd231024436a89fdad82cfe86e75da9cf2ad933270f7cc372221d6430e"),
    (f"segformer_internimage_xl_{MAPILLARY}", 660, "ecabd9830a91ad1d0db74c2e910318690d80532135c59eb70cf94780a5c33930"),
    (f"upernet_internimage_l_{BOTH}", 512, "6df1621a686521be0ab59f393968bb2c443e6a10381c06d8097411cc0400916a"),
    (f"upernet_internimage_xl_{BOTH}", 736, "9fd1e8e24d776c34a601eade5b47a6e3751ea5c9eec15bf7fcbbabdf036f7c95"),
    (f"segformer_internimage_l_{BOTH}", 440, "d00a43d30b85d320ed8e62b014ae6ce3fe084a0331f94154d5821d41cb577daf"),
    (f"segformer_internimage_xl_{BOTH}", 660, "18d1706750f065e17e915bdaffbe23cfafbfeca94db1420b555f90e17a6a6942"),
    (f"upernet_internimage_t_{CITYSCAPES}", 118, "d609235bd49cc00ebf56b3277ce69f88b1c27b8427e3317ba7ae981da052e052"),
    (f"upernet_internimage_s_{CITYSCAPES}", 160, "24155b8dabdbab1d6e7318db57ec563e0253fd1b1c7fde5ac2d2bac75517f5c7"),
    (f"upernet_internimage_b_{CITYSCAPES}", 257, "55bc153c6d677abb8241a9c7414a11ded1acca0323109976b1523afd77d2d716"),
    (f"upernet_internimage_l_{CITYSCAPES}", 512, "59808301f09cbd09796127a1d0ab7a294be4c961fd726c4716d931016e3ed7a0"),
    (f"upernet_internimage_xl_{CITYSCAPES}", 736, "ff087c60232a24b48cfb1547b00fe8756c8a93c72d779a22b8294b855302ce41"),
    ("internimage_t_1k_224", 120, "84bc50c47ebf7a56f19da5d7fddba9b862cd5abe0597e40c6fb218844c5cbbc2"),
    ("internimage_s_1k_224", 201, "e0335b0829dbe766caea8be583c3c83208d937dadff9eb1e1d5b773e04720bbd"),
    ("internimage_b_1k_224", 390, "e46fc76173b0a8463c6fc4f7260d355b5dc9cb50dfd0cb4382dcdb7935c083c4"),
    ("internimage_l_22k_192to384", 1054, "4d642f892758744c70d19990fa9439d92823d5d45fe8e1c3351480596da6e93d"),
    ("internimage_xl_22k_192to384", 1532, "a27d497c6aba1ec396e65b5fa85d91d83cc3a0bec35aa6a71e8dc143311391a1"),
)
