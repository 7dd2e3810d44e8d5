"""`python -m unix` is the command `unix`."""

from unix.cli import main

if __name__ == "__main__":
    main()
