"""Fonts for drawing digits: some for training, others only for the held-out test."""

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

ROOT = Path("/usr/share/fonts")
PACKAGES = (
    "fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-urw-base35 fonts-noto-core fonts-lato "
    "fonts-open-sans fonts-roboto-unhinted fonts-comic-neue fonts-cantarell fonts-breip "
    "fonts-humor-sans fonts-dkg-handwriting fonts-kristi fonts-femkeklaver fonts-rufscript "
    "fonts-crosextra-carlito fonts-crosextra-caladea fonts-quicksand fonts-jura fonts-cabin "
    "fonts-comfortaa fonts-firacode fonts-hack fonts-inconsolata fonts-jetbrains-mono "
    "fonts-mononoki fonts-play"
)

TRAIN = [
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansCondensed",
    "DejaVuSansCondensed-Bold",
    "LiberationSans-Regular",
    "LiberationSans-Bold",
    "LiberationSans-Italic",
    "LiberationMono-Regular",
    "LiberationMono-Bold",
    "LiberationSerif-Regular",
    "LiberationSerif-Bold",
    "LiberationSerif-Italic",
    "LiberationSansNarrow-Regular",
    "LiberationSansNarrow-Bold",
    "FreeSans",
    "FreeSansBold",
    "FreeMono",
    "FreeMonoBold",
    "FreeSerif",
    "FreeSerifBold",
    "FreeSerifItalic",
    "C059-Roman",
    "C059-Bold",
    "NimbusMonoPS-Bold",
    "NimbusRoman-Regular",
    "NimbusSans-Regular",
    "NimbusSans-Bold",
    "NimbusSansNarrow-Bold",
    "P052-Roman",
    "P052-Bold",
    "URWGothic-Book",
    "URWGothic-Demi",
    "NotoSans-Regular",
    "NotoSans-Bold",
    "NotoSerif-Regular",
    "NotoSerif-Bold",
    "Lato-Regular",
    "Lato-Bold",
    "Lato-Black",
    "Lato-Light",
    "OpenSans-Regular",
    "OpenSans-Bold",
    "Roboto-Regular",
    "Roboto-Bold",
    "Roboto-Light",
    "RobotoCondensed-Regular",
    "ComicNeue-Regular",
    "ComicNeue-Bold",
    "Cantarell-Regular",
    "Cantarell-Bold",
    "Humor-Sans",
    "dkg",
    "dkgBd",
    "Kristi",
    "Rufscript010",
    "Carlito-Regular",
    "Carlito-Bold",
    "Caladea-Regular",
    "Quicksand-Regular",
    "Quicksand-Bold",
    "Jura-Regular",
    "FiraCode-Regular",
    "FiraCode-Bold",
    "Hack-Regular",
    "JetBrainsMono-Regular",
    "JetBrainsMono-Bold",
    "Comfortaa-Bold",
]

HELD_OUT = [
    "URWBookman-Light",
    "URWBookman-Demi",
    "Cabin-Regular",
    "Cabin-Bold",
    "Inconsolata",
    "mononoki-Regular",
    "mononoki-Bold",
    "Play-Regular",
    "Play-Bold",
    "Breip",
    "femkeklaver",
    "Lato-Italic",
    "OpenSans-Semibold",
    "LiberationMono-Italic",
    "DejaVuSerifCondensed-Bold",
    "FreeSansOblique",
    "Roboto-Medium",
    "Hack-Bold",
    "Carlito-Italic",
    "Comfortaa-Regular",
    "NimbusSans-Italic",
]

HANDWRITING = ["Breip", "femkeklaver"]  # of those held out
PEOPLE = "people"  # no font: handwriting.py
BUILTIN = "PIL"  # Pillow's own default font, always at hand


@lru_cache
def _paths() -> dict[str, Path]:
    files = [p for p in sorted(ROOT.rglob("*")) if p.suffix in (".ttf", ".otf")]
    return {p.stem: p for p in files}


def require() -> None:
    missing = [name for name in TRAIN + HELD_OUT if name not in _paths()]
    if missing:
        raise SystemExit("Fonts missing: " + ", ".join(missing) + "\nInstall them: apt-get install " + PACKAGES)


@lru_cache(maxsize=4000)
def load(name: str, size: int):
    if name == BUILTIN:
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(_paths()[name]), size)
