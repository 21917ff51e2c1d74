"""Running a program that refuses to run as root, when we are root.

Everybody else runs it as themselves: their account is `None` throughout. Root runs it as
``nobody``, in folders that ``nobody`` can get to; no existing file's permissions change.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from pathlib import Path

Account = pwd.struct_passwd | None


def account() -> Account:
    """Who shall run the program: nobody if we are root, else None for ourselves."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def run(*command: str | Path, user: Account) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with nothing of our environment; output and errors come back together.

    Raises:
        OSError: it cannot be started, for instance because `user` may not read it.
    """
    return subprocess.run(  # noqa: S603 - no shell, and every caller names its program by its full path
        [str(part) for part in command],
        check=False,
        cwd="/",  # ours may be closed to the other account
        env={"PATH": os.defpath, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        extra_groups=None if user is None else [],
    )


def can_run(program: Path, user: Account) -> bool:
    """Whether `user` can start the program."""
    try:
        return run(program, "--version", user=user).returncode == 0
    except OSError:
        return False


def is_open(folder: Path) -> bool:
    """Whether everybody can get to what lies in the folder, if they know its name."""
    whole = folder.resolve()
    return all(path.stat().st_mode & stat.S_IXOTH for path in (whole, *whole.parents))


def make_open(folder: Path) -> None:
    """Make the folder and the missing ones above it, open to everybody whatever the umask."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
