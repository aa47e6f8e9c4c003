"""Files that are replaced as a whole or not at all, whatever happens while they are written."""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that at every moment, also after a power cut, the old or the new one is there.

    Args:
        path: the file.
        content: all of it.

    Raises:
        OSError: it could not be written; the old file is as it was, and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process's number keeps two that write the same file apart.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    with contextlib.suppress(OSError):  # not every file system can do this to a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints by ``write_whole``; one that cannot be written is lost, and training goes on.

    Attributes:
        failed: whether the last one could not be written.
    """

    failed = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes it, or says that it could not be written.

        Args:
            checkpoint: what is saved.
            path: where to.
            storage_options: must be None.
        """
        if storage_options is not None:
            raise ValueError(f"storage_options is {storage_options!r}, but must be None for a file.")
        # In memory first: torch's own writer turns a full disk into an error that tells nothing.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            write_whole(Path(path), buffer.getvalue())
            self.failed = False
        except OSError as error:
            self.failed = True
            print(
                f"note: checkpoint {path} was not written ({error.strerror or error}); the one before it, if there "
                "is one, is whole, and training goes on",
                file=sys.stderr,
                flush=True,
            )
