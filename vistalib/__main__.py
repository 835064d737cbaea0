"""`python -m vistalib`: the same command as `vistalib`, for where scripts are not on the path."""

import sys

from vistalib.cli import main

sys.exit(main())
