"""The errors that a user can mend: one line that says what was found, where, and what would do."""


class UserError(Exception):
    """A mistake in what was asked for; commands print it as one line and exit with `exit_code`."""

    exit_code = 2


class CorpusError(UserError):
    """Text that cannot be read, or that cannot carry what was asked of it."""


class CheckpointError(UserError):
    """A run folder or a checkpoint that does not verify, or that belongs to another configuration."""


class TrainingError(UserError):
    """Training that stopped being finite."""

    exit_code = 3


class StorageError(UserError):
    """A disk that is full, read-only or closed to us."""

    exit_code = 4
