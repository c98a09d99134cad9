"""A colour for each label, the same in every run and on every page."""

from __future__ import annotations

from zlib import crc32

#: Number of different hues. Neighbouring ones can still be told apart.
HUES = 24
#: Steps from a hue that is taken to the next: a large part of the circle, without a common divisor with `HUES`.
_STEP = 7


class LabelColours:
    """The hues of labels, for black text on a light colour of the hue, or white text on a dark one.

    A label has the hue that its name gives. Only if an earlier label of the same object has it, too, another one is
    used; labels share hues when there are more than `HUES`.
    """

    def __init__(self) -> None:
        self._hues: dict[str, int] = {}

    def hue(self, label: str) -> int:
        """Return the hue of a label in degrees, from 0 to 359."""
        if label not in self._hues:
            place, taken = crc32(label.encode()) % HUES, set(self._hues.values())
            for _ in range(HUES if len(taken) < HUES else 0):
                if place not in taken:
                    break
                place = (place + _STEP) % HUES
            self._hues[label] = place
        return self._hues[label] * 360 // HUES

    def light(self, label: str) -> str:
        """Return a colour as CSS writes it, on which black text has a contrast of at least 9 to 1."""
        return f"hsl({self.hue(label)}, 75%, 80%)"
