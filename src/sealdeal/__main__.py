"""`python -m sealdeal` is the command `sealdeal`."""

import sys

try:
    from sealdeal.cli import main
except KeyboardInterrupt:  # Ctrl-C while it loads
    sys.exit(130)

if __name__ == "__main__":
    main()
