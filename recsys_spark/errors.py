"""Errors a user can do something about; the command line prints them as one line."""


class RecsysError(Exception):
    """A failure with a message for the user: exit code 1."""

    exit_code = 1
    is_unexpected = False
    """Whether to show where it came from: the cause is none of these errors."""


class SettingsError(RecsysError):
    """A wrong setting, path, column, date or argument; nothing was published: exit code 2."""

    exit_code = 2


class DeliveryError(RecsysError):
    """The run is published, but a store that it was to be delivered to serves what it served before: exit code 4."""

    exit_code = 4


class AuditError(RecsysError):
    """The audit refused to publish; the run before stays current: exit code 3."""

    exit_code = 3
