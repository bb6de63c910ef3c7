"""How things end that are no fault of the program."""


class UserError(ValueError):
    """Something that a user can mend; the message says what, where, and how.

    The command line prints it as one line; any other error is a fault of the program.
    """


class Interrupted(RuntimeError):  # noqa: N818 - not an error
    """Work stopped on request, its state handed over for saving."""
