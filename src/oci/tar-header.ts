import { EngineError } from '../core/errors.ts';

export const TAR_BLOCK_BYTES = 512;
const MAX_NAME_BYTES = 100;
const MAX_OCTAL_SIZE = 8 ** 11;

/**
 * A ustar header for one file, owner root, epoch time: equal content gives equal archives.
 * Source: POSIX.1-2017, pax, "ustar Interchange Format"; sizes from 8 GiB on in base 256, as GNU tar and Go write them.
 */
export function encodeTarHeader(name: string, sizeBytes: number): Buffer {
  const header = Buffer.alloc(TAR_BLOCK_BYTES);
  if (header.write(name, 0, 'utf8') > MAX_NAME_BYTES)
    throw new EngineError('internal', `tar member name "${name}" is too long`);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  if (sizeBytes < MAX_OCTAL_SIZE) {
    header.write(`${sizeBytes.toString(8).padStart(11, '0')}\0`, 124);
  } else {
    header.writeUInt8(0x80, 124);
    header.writeBigUInt64BE(BigInt(sizeBytes), 128);
  }
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

export function tarPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((TAR_BLOCK_BYTES - (sizeBytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES);
}
