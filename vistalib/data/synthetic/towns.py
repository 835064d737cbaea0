"""Towns: what the pictures of one place and day have in common, and what makes two places look unlike.

`WORLD` is everywhere at once, as Vistas is; the others are towns that one car drove through on one day each, as in Cityscapes.
A network that has learnt two of them from a few pictures has seen neither the third one's houses nor its weather.
"""

from dataclasses import dataclass

import numpy as np

from vistalib.data.synthetic import light as lights
from vistalib.data.synthetic.light import Light, Rgb

KINDS = ("city", "boulevard", "residential", "industrial", "village")
FRONTS = ("plaster", "brick", "panel", "glass")
SEASONS = ("summer", "spring", "autumn")
WEATHERS = (lights.clear, lights.golden, lights.overcast, lights.dusk, lights.fog, lights.rain)

PLASTER: tuple[Rgb, ...] = (
    (214, 204, 184), (226, 220, 206), (198, 176, 140), (190, 160, 132), (170, 172, 170), (208, 190, 160), (182, 130, 104),
    (202, 198, 192), (170, 180, 176), (220, 196, 150), (188, 150, 130), (150, 152, 156), (232, 228, 220), (160, 176, 190),
)  # fmt: skip
BRICK: tuple[Rgb, ...] = ((148, 84, 66), (160, 100, 76), (124, 76, 62), (170, 124, 96), (110, 66, 56), (176, 150, 120))


@dataclass(frozen=True)
class Town:
    """Shares of what occurs in a town, each in the order of the tuple above that it names, and ranges of its greys (0..255)."""

    kinds: tuple[float, ...]  # of KINDS
    fronts: tuple[float, ...]  # of FRONTS: factors on what a kind of street has
    seasons: tuple[float, ...]  # of SEASONS
    weathers: tuple[float, ...]  # of WEATHERS
    plaster: tuple[Rgb, ...] = PLASTER
    brick: tuple[Rgb, ...] = BRICK
    asphalt: tuple[float, float] = (84, 122)
    paving: tuple[float, float] = (146, 182)
    cobbles: float = 0.14  # of narrow streets

    def kind(self, rng: np.random.Generator) -> str:
        """The kind of one of its streets."""
        return str(rng.choice(KINDS, p=self.kinds))

    def season(self, rng: np.random.Generator) -> str:
        """The season of one picture."""
        return str(rng.choice(SEASONS, p=self.seasons))

    def light(self, rng: np.random.Generator) -> Light:
        """The light of one picture."""
        return WEATHERS[int(rng.choice(len(WEATHERS), p=self.weathers))](rng)


WORLD = Town(
    kinds=(0.3, 0.2, 0.26, 0.1, 0.14),
    fronts=(1, 1, 1, 1),
    seasons=(0.64, 0.2, 0.16),
    weathers=(0.38, 0.14, 0.22, 0.09, 0.06, 0.11),
)

TOWNS = {
    # Brick and dark asphalt under a grey summer sky.
    "aachen": Town(
        kinds=(0.4, 0.1, 0.42, 0.08, 0.0),
        fronts=(0.4, 3, 1, 0),
        seasons=(1, 0, 0),
        weathers=(0.1, 0, 0.9, 0, 0, 0),
        plaster=PLASTER[4:5] + PLASTER[7:9] + PLASTER[11:12],
        brick=BRICK[:3] + BRICK[4:5],
        asphalt=(84, 98),
        paving=(146, 160),
        cobbles=0.05,
    ),
    # Pale plaster on a sunny day.
    "bochum": Town(
        kinds=(0.5, 0.14, 0.3, 0.06, 0.0),
        fronts=(1, 0.1, 0.5, 0),
        seasons=(1, 0, 0),
        weathers=(1, 0, 0, 0, 0, 0),
        plaster=PLASTER[:2] + PLASTER[5:6] + PLASTER[12:13],
        asphalt=(98, 110),
        paving=(158, 172),
        cobbles=0.1,
    ),
    # Ochre fronts, panels and glass, cobbles; autumn, a low sun between showers.
    "frankfurt": Town(
        kinds=(0.46, 0.3, 0.16, 0.06, 0.02),
        fronts=(1, 0.6, 2, 3),
        seasons=(0, 0.1, 0.9),
        weathers=(0.1, 0.5, 0.1, 0, 0, 0.3),
        plaster=PLASTER[2:4] + PLASTER[6:7] + PLASTER[9:11] + PLASTER[13:],
        brick=BRICK[3:4] + BRICK[5:],
        asphalt=(106, 122),
        paving=(166, 182),
        cobbles=0.4,
    ),
}
