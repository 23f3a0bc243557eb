#!/usr/bin/env python3
"""Takes the ELF kernel out of a bzImage: extract-vmlinux.py BZIMAGE VMLINUX

The setup header says where the compressed payload lies (Linux x86 boot protocol 2.08, fields payload_offset and
payload_length: Documentation/arch/x86/boot.rst); its last four bytes are the uncompressed size.
"""
import lzma
import os
import struct
import subprocess
import sys
import zlib


def decompress(payload: bytes) -> bytes:
    if payload.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dqc"], input=payload, stdout=subprocess.PIPE, check=True).stdout
    if payload.startswith(b"\x02\x21\x4c\x18"):
        return subprocess.run(["lz4", "-dqc"], input=payload, stdout=subprocess.PIPE, check=True).stdout
    raise SystemExit(f"the kernel's payload has an unknown compression (magic {payload[:4].hex()})")


def main() -> None:
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        image = file.read()
    if image[0x202:0x206] != b"HdrS":
        raise SystemExit(f"{source} is no bzImage (no HdrS at 0x202)")
    version, = struct.unpack_from("<H", image, 0x206)
    if version < 0x208:
        raise SystemExit(f"{source}: boot protocol {version:#x} is older than 2.08")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start:start + length]
    size, = struct.unpack("<I", payload[-4:])
    # gzip ends with its own size field; the others have it appended.
    kernel = decompress(payload if payload.startswith(b"\x1f\x8b") else payload[:-4])
    # A relocatable kernel has its relocation table behind the ELF image; a PVH entry never reads it.
    if len(kernel) != size or not kernel.startswith(b"\x7fELF"):
        raise SystemExit(f"{source}: expected an ELF image of {size} bytes, got {len(kernel)}")
    temporary = target + ".tmp"
    with open(temporary, "wb") as file:
        file.write(kernel)
    os.replace(temporary, target)


main()
