"""Numbers with a range, for annotations of settings, in addition to those of pydantic."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: A share, a probability, or the rate of a dropout, of which 1 drops everything.
Share = Annotated[float, Field(ge=0, le=1)]
#: The rate of a dropout that must keep something.
Rate = Annotated[float, Field(ge=0, lt=1)]
