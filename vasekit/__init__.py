"""Shared library of the VaseVQA-3D training kit. Entry points live in filter/, data/, model/, plugin/ and eval/."""

import sys
from importlib.util import find_spec

__version__ = "0.1.0"

# The commonest wrong start, a Python that is not the kit's own, deserves better than a traceback.
if _missing := [name for name in ("numpy", "PIL", "torch") if find_spec(name) is None]:
    print(
        f"error: {sys.executable} has no {', '.join(_missing)}; run `make setup` once, then use .venv/bin/python",
        file=sys.stderr,
    )
    raise SystemExit(2)
