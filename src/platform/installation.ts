import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Where the parts of this program are that are not TypeScript. */
export interface Installation {
  /** Native programs and libbulkhead.so. */
  readonly programs: string;
  /** Guest kernel, initramfs, scratch disk template. */
  readonly images: string;
  /** The guest agent's static binary: it is also the init of containers. */
  readonly initPath: string;
}

const AGENT_IN_CHECKOUT = 'native/target/x86_64-unknown-linux-gnu/release-small/bulkhead-agent';

/**
 * An installed package has all parts in a `libexec` beside its bundle; in a checkout they are where their builds put them. Looked for
 * upwards from this file, which may be a source, a bundle or a chunk of one.
 */
export function findInstallation(): Installation {
  const start = dirname(fileURLToPath(import.meta.url));
  for (let directory = start; ; directory = dirname(directory)) {
    const libexec = join(directory, 'libexec');
    if (existsSync(join(libexec, 'bulkhead-shim')))
      return { programs: libexec, images: libexec, initPath: join(libexec, 'bulkhead-agent') };
    if (existsSync(join(directory, 'native', 'Cargo.toml'))) {
      return {
        programs: join(directory, 'native', 'target', 'release'),
        images: join(directory, 'build', 'vm'),
        initPath: join(directory, AGENT_IN_CHECKOUT),
      };
    }
    if (directory === dirname(directory)) {
      return { programs: start, images: start, initPath: join(start, 'bulkhead-agent') };
    }
  }
}
