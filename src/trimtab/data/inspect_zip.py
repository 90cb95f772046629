"""One entry of a zip file to its bytes, also where it is compressed by Zstandard (method 93), as Inspect's logs are.

Python's zipfile lists such entries and cannot open them before 3.14; pyarrow can. The entry's bytes begin after its
local header, whose name and extra field have lengths of their own.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa

from trimtab.errors import InputError

ZSTD = 93
_HEADER = struct.Struct("<26xHH")


def entry(file: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of an entry. InputError when it is damaged, encrypted or compressed in a way that is not known."""
    info = archive.getinfo(name)
    try:
        if info.compress_type != ZSTD:
            return archive.read(info)
        with file.open("rb") as raw:
            raw.seek(info.header_offset)
            name_size, extra_size = _HEADER.unpack(raw.read(_HEADER.size))
            raw.seek(name_size + extra_size, io.SEEK_CUR)
            packed = raw.read(info.compress_size)
        data = pa.CompressedInputStream(io.BytesIO(packed), "zstd").read(info.file_size + 1)
    except (NotImplementedError, RuntimeError, OSError, EOFError, struct.error, zlib.error, pa.ArrowException) as e:
        raise InputError(f"{file}: {name} in it cannot be read ({e}); is the log cut off or damaged?") from e
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise InputError(f"{file}: {name} in it is damaged (its check sum differs); copy the log again")
    return data
