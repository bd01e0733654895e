"""`python -m sealdeal` is the command `sealdeal`."""

from sealdeal.cli import main

if __name__ == "__main__":
    main()
