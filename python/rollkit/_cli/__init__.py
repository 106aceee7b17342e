"""The command line. Nothing of it is imported with rollkit."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status. See `rollkit._cli.commands`."""
    from rollkit._cli import commands

    return commands.main(arguments)
