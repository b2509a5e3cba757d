"""Whether an error says that nothing more can be written, whoever said it: this process, a library, or a process's last line."""

from __future__ import annotations

import errno
import os

REMEDY = "the disk is full: make room and start the run again, what is trained is kept"
#: No space, no quota, and a process that may write no larger file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WORDS = tuple(os.strerror(one) for one in FULL)


def is_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in FULL) or any(words in str(error) for words in WORDS)
