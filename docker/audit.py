"""Known vulnerabilities of the packages in a lock: `python docker/audit.py PIP_AUDIT LOCK`.

Exit status 0: none found, or the database can't be asked (said so); 1: some, a line each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str]) -> int:
    program, lock = argv
    command = [program, "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run([*command, "--requirement", lock], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        why = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: {lock} was not examined, the database of vulnerabilities can't be reached ({why[:200]})")
        return 0
    lines, status = judge(packages)
    print("\n".join(f"audit: {lock}: {line}" for line in lines))
    return status


def judge(packages: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    """What to say of pip-audit's `dependencies`, and the exit status."""
    unknown = [package for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none yet'}"
        for package in packages
        for one in package.get("vulns", [])
    ]
    examined = f"{len(packages) - len(unknown)} packages examined, {len(found)} known vulnerabilities"
    missed = (
        [f"{len(unknown)} packages could not be examined, the database does not answer for them"] if unknown else []
    )
    return [*found, examined, *missed], 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
