"""What a user can mend. Every message is one plain sentence that says what is wrong and where."""


class InputError(ValueError):
    """Input that can't be used as it is; `str(error)` is shown to the user as it stands."""
