"""``python -m crossbus``: the command line, for where the script is not on the path."""

from crossbus.cli import main

if __name__ == "__main__":
    main()
