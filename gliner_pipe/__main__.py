"""``python -m gliner_pipe`` and ``gliner-pipe``: all commands."""

from gliner_pipe.cli.commands import main

if __name__ == "__main__":
    main()
