"""Numbers with a range, for annotations of settings: confit, ``nlp.add_pipe`` and Python refuse the same values.

None of them takes true or false for a number, nor a number that is not finite.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

#: Largest width, number of layers, heads ... of a model: a mistyped number must not fill the memory.
MOST = 1 << 16
#: Largest seed of numpy.
MOST_SEED = 2**32 - 1


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Input should be a number, not true or false")
    return value


def _all_or_some(value: int) -> int:
    if value < 1 and value != -1:
        raise PydanticCustomError("processes", "Input should be at least 1, or -1 for the number of CPUs")
    return value


_NUMBER = BeforeValidator(_not_bool)

#: Any whole number.
Integer = Annotated[int, _NUMBER]
#: Any number.
Number = Annotated[float, Field(allow_inf_nan=False), _NUMBER]
#: A number of things that may be none.
Amount = Annotated[int, Field(ge=0), _NUMBER]
#: A number of things, at least one.
Count = Annotated[int, Field(ge=1), _NUMBER]
#: A number of processes; -1 is the number of CPUs.
Processes = Annotated[int, AfterValidator(_all_or_some), _NUMBER]
#: A width, or a number of layers, heads or filters of a model.
Size = Annotated[int, Field(ge=1, le=MOST), _NUMBER]
#: A number of layers that may be none.
Layers = Annotated[int, Field(ge=0, le=MOST), _NUMBER]
#: The seed of a random number generator.
Seed = Annotated[int, Field(ge=0, le=MOST_SEED), _NUMBER]
#: A weight, a learning rate, or an exponent.
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _NUMBER]
#: A temperature, or a norm.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _NUMBER]
#: A width as a multiple of another one.
Multiple = Annotated[float, Field(gt=0, le=1 << 10, allow_inf_nan=False), _NUMBER]
#: The base of the angles of rotated vectors.
AngleBase = Annotated[float, Field(ge=1, allow_inf_nan=False), _NUMBER]
#: A share, a probability, or the rate of a dropout, of which 1 drops everything.
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), _NUMBER]
#: The rate of a dropout that must keep something, or the decay of a running mean.
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), _NUMBER]
#: A share that is neither nothing nor everything.
OpenShare = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), _NUMBER]
