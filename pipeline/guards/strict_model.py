"""Text that a person or a file gave, in; checked values out: the base of all of them."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Unknown keys are refused, and "8" is not a number.

    Numbers are finite: JSON, and so a row's identity, has no others.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
