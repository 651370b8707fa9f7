"""Files that appear whole or not at all."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def replace_file(target: Path, content: bytes) -> None:
    """Write a new file beside `target` and put it in its place, so that no moment shows half a file.

    Raises:
        OSError: If it cannot be written; an older file is left as it was.
    """
    if target.is_dir():
        raise IsADirectoryError(21, "Is a directory")
    part = target.with_name(f".unitygain-{secrets.token_hex(6)}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(part, target.stat().st_mode & 0o777)
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
