"""``python -m lowlight_iqa`` is the ``lowlight-iqa`` command."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
