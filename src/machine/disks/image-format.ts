import type { DiskFormat } from '../../wire/guest-disk.ts';

/** How many bytes from an image's start tell its format and, but for names further in, what it refers to. */
export const HEADER_BYTES = 64 * 1024;

/**
 * What an image is, by the same marks that QEMU looks for; a name that we do not take comes back in `unsupported`. What has no mark is raw:
 * also a raw disk whose guest has written a mark to its first sector is then taken for that format, with all refusals, never opened as raw.
 * Sources: QEMU block/*.c, the `bdrv_probe` functions.
 */
export type DetectedFormat = { readonly format: DiskFormat } | { readonly unsupported: string };

const ascii = (header: Buffer, offset: number, length: number): string =>
  header.toString('latin1', offset, offset + length);

export function detectFormat(header: Buffer): DetectedFormat {
  const magic = ascii(header, 0, 4);
  if (magic === 'QFI\xfb') {
    const version = header.length >= 8 ? header.readUInt32BE(4) : 0;
    return version === 2 || version === 3 ? { format: 'qcow2' } : { unsupported: `qcow version ${version}` };
  }
  if (magic === 'KDMV') return { format: 'vmdk' };
  if (magic === 'COWD') return { unsupported: 'vmdk of version COWD' };
  if (isVmdkDescriptor(header)) return { format: 'vmdk' };
  if (ascii(header, 0, 8) === 'vhdxfile') return { format: 'vhdx' };
  if (ascii(header, 0, 8) === 'conectix') return { format: 'vpc' };
  if (header.length >= 68 && header.readUInt32LE(64) === 0xbeda107f) return { format: 'vdi' };
  for (const [name, mark] of OTHERS) if (ascii(header, 0, mark.length) === mark) return { unsupported: name };
  return { format: 'raw' };
}

/** Formats that QEMU would recognise and that we do not open: some of them refer to other files. */
const OTHERS: readonly (readonly [string, string])[] = [
  ['qed', 'QED\0'],
  ['luks', 'LUKS\xba\xbe'],
  ['bochs', 'Bochs Virtual HD Image'],
  ['parallels', 'WithoutFreeSpace'],
  ['parallels', 'WithouFreSpacExt'],
  ['cloop', '#!/bin/sh\n#V2.0 Format'],
];

/** A VMDK may be text: comments and blank lines, then its version. Source: QEMU block/vmdk.c, vmdk_probe. */
export function isVmdkDescriptor(header: Buffer): boolean {
  return /^(?:#[^\n]*\n| *\r?\n)*version=\d/.test(header.toString('latin1', 0, 4096));
}
