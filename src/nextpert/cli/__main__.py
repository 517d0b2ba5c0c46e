"""``python -m nextpert.cli``."""

import sys

from nextpert.cli import main

if __name__ == "__main__":
    sys.exit(main())
