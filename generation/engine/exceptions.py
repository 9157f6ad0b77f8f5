"""Why bytes do not become pixels.

Without a library that decodes, so that a process may catch these errors without loading one.
"""


class DecodeError(Exception):
    """The bytes do not become pixels; the subclasses say why. `reason` is for logs and counters."""

    reason = "invalid"


class UnsupportedType(DecodeError):
    """The bytes are no picture of a type that we read."""

    reason = "type_unsupported"


class TooManyPixels(DecodeError):
    """The header promises more pixels than allowed."""

    reason = "too_many_pixels"


class InvalidDimensions(DecodeError):
    """A side is shorter or longer than allowed."""

    reason = "dimensions"


class DamagedImage(DecodeError):
    """The picture is damaged."""

    reason = "damaged"


class TooCostly(DecodeError):
    """The picture takes more memory or processor time than one picture may, or ends the process that decodes it."""

    reason = "too_costly"
