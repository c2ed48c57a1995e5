"""Names for a generated world: word lists and syllables, the same for every world, combined differently in each.

A name is one or two common pieces, so that it becomes few tokens, and there are far more names than one world uses.
"""

from __future__ import annotations

import random
from collections.abc import Callable


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words(
    """
    Ada Alma Amos Anna Arne Asta Axel Bela Berta Boris Bruno Carl Cato Clara Cora Dana Dina Dora Edda Edgar
    Edwin Elias Ella Elsa Emil Enno Erik Erna Ernst Eva Ezra Felix Fiona Flora Frida Gerda Gilda Greta Gustav
    Hanna Hans Hedda Heino Helga Henri Hugo Ida Igor Ilse Ines Ingo Iris Irma Ivan Jana Jonas Josef Judit Julia
    Juno Karin Kasper Klara Kurt Lara Lars Lena Leon Leo Levin Lilo Linus Lola Lotte Lukas Luna Magda Maja Marek
    Maria Marta Mats Max Mina Mira Moritz Nadia Nils Nina Nora Odo Olaf Olga Oskar Otto Paul Paula Pia Piet Rita
    Robin Rolf Romy Rosa Ruben Runa Rut Sara Selma Signe Silas Simon Sofia Sten Sven Tara Thea Theo Tilda Timo
    Tom Ute Vera Viktor Wanda Wilma Xaver Yara Yves
    """
)
START = _words(
    """
    Bar Bel Bram Bro Cal Cor Dal Dor Dra Fal Fen Fro Gal Gor Gru Hal Hem Hor Jar Jol Kal Kel Kor Lan Lor Lun Mal
    Mar Mol Nar Nel Nor Ol Or Pal Pel Por Ral Rin Ros Sal Sel Sor Tal Tel Tor Ul Val Vel Vor Wal Wen Wil Yar Zan
    Zel Bry Cha Dun Fis Gla Kra Ples Stra
    """
)
PERSON_END = _words(
    """
    bach beck berg blad dahl den dorf feld fen gard gren haus holt kamp kin krop land lind lund man mann mark
    mont nik nov quist rand ris roth sen ski son stad stein sund tal ter thal vik walt wold zak
    """
)
TOWN_END = _words(
    """
    ham ton ford wick mouth bury dale by thorpe stow leigh worth hurst combe minster gate port pool haven cliff
    moor bridge
    """
)
RIVER_END = _words("a ina era une is awe ora ema ith una")
REGION_END = _words("land mark onia ria via shire esse aria")
COMPANY_END = _words("co dex lux nix pex ral rix tec tron vex zon mex lex dax")
TRADE = _words("Foods Mills Press Motors Textiles Works Steel Glass Tools Rail Books Paper")
PRODUCTS = _words(
    """
    cheese glass boots bells clocks lamps paper silk salt tea soap ropes pianos knives carpets bricks candles
    toys wine bread steel maps pumps nets ships hats gloves tiles pipes beer honey flutes
    """
)
JOBS = _words(
    """
    painter poet miner pilot judge doctor baker sailor lawyer teacher farmer printer singer actor builder
    chemist surgeon tailor dancer gardener
    """
)
ADJECTIVES = _words(
    """
    Amber Ancient Black Blue Bold Brave Bright Broken Bronze Burning Calm Cold Copper Crimson Dark Distant Empty
    Fading Falling Foreign Frozen Gentle Golden Gray Green Hidden Hollow Iron Ivory Lonely Lost Narrow Noble
    Pale Proud Purple Quiet Red Restless Rising Rough Royal Rusty Sacred Secret Silent Silver Sleeping Stolen
    Strange Sunken Tender Velvet Violet Wandering White Wild Winter Wooden Yellow
    """
)
NOUNS = _words(
    """
    Anchor Arrow Autumn Balcony Basket Beacon Blossom Bottle Candle Canyon Castle Chapel Circus Comet Corner
    Cradle Crown Desert Doorway Dragon Engine Feather Ferry Fever Forest Fountain Garden Ghost Harbor Harvest
    Horizon Hunter Island Jewel Journey Kettle Lantern Letter Library Mirror Morning Mountain Orchard Painter
    Palace Parade Pilgrim Planet Prison River Saddle Shadow Signal Soldier Station Stranger Summer Temple
    Theater Thunder Tower Valley Voyage Wedding Window
    """
)
ANIMALS = _words(
    """
    Badger Bear Crane Eagle Falcon Fox Hare Hawk Heron Lion Lynx Otter Owl Raven Stag Swan Tiger Wolf
    """
)
CONTESTS = _words("Cup Derby Fair Regatta Games Rally Prize Race Contest Festival")
PREFIXES = ("New", "Old", "Upper", "Lower", "East", "West")


class Names:
    """Draws names that no other thing of the same world has."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.taken: set[str] = set()

    def person(self, surname: str | None = None) -> str:
        """First name and surname; with a given surname a namesake, as long as there are first names left."""
        namesake = self._free([f"{first} {surname}" for first in FIRST]) if surname else None
        return namesake or self._fresh(lambda: f"{self._one(FIRST)} {self._one(START)}{self._one(PERSON_END)}")

    def town(self, namesake: str | None = None) -> str:
        """One word; with a namesake ``New Torham`` and the like, as long as there are any left."""
        name = self._free([f"{prefix} {namesake}" for prefix in PREFIXES]) if namesake else None
        return name or self._fresh(lambda: self._one(START) + self._one(TOWN_END))

    def work(self) -> str:
        """``The Silent Harbor``."""
        return self._fresh(lambda: f"The {self._one(ADJECTIVES)} {self._one(NOUNS)}")

    def company(self) -> str:
        """``Velrix Foods``."""
        return self._fresh(lambda: f"{self._one(START)}{self._one(COMPANY_END)} {self._one(TRADE)}")

    def event(self, town: str) -> str:
        """``Torham Regatta``."""
        return self._fresh(lambda: f"{town} {self._one(CONTESTS)}")

    def nickname(self) -> str:
        """``the Gray Falcon``."""
        return self._fresh(lambda: f"the {self._one(ADJECTIVES)} {self._one(ANIMALS)}")

    def river(self) -> str:
        """One word."""
        return self._fresh(lambda: self._one(START) + self._one(RIVER_END))

    def region(self) -> str:
        """One word."""
        return self._fresh(lambda: self._one(START) + self._one(REGION_END))

    def _one(self, words: tuple[str, ...] | list[str]) -> str:
        return self.rng.choice(words)

    def _free(self, names: list[str]) -> str | None:
        free = [name for name in names if name not in self.taken]
        if not free:
            return None
        self.taken.add(name := self.rng.choice(free))
        return name

    def _fresh(self, draw: Callable[[], str]) -> str:
        for _ in range(1000):
            name = draw()
            if name not in self.taken:
                self.taken.add(name)
                return name
        raise ValueError("a world has run out of names: ask for fewer passages")
