"""Exceptions, by the stage that found the problem. Their texts say what was found, what was expected and what to do."""


class Error(Exception):
    """Any error of Eddy."""


class UsageError(Error, ValueError):
    """The request is invalid: a shape, a dtype, or a value that is out of range."""


class InputError(Error, OSError):
    """A file, a camera or another source could not be read."""


class OutputError(Error, OSError):
    """A result could not be encoded or written."""


class ModelError(Error):
    """A model is missing, damaged, or not one for this task."""


class DeviceError(Error):
    """ONNX Runtime or a device could not be used."""


class EvaluationError(Error):
    """A network failed, or gave an invalid output."""


class Interrupted(Error):
    """``progress`` returned ``False``."""
