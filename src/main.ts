import type { ExternalCommand } from './cli/command.ts';
import { runCli } from './cli/main.ts';

/** The executables' composition: what the CLI room must not know is handed to it here, loaded only when called. */
const external: Record<string, ExternalCommand> = {
  daemon: {
    summary: 'Run the daemon in the foreground',
    run: async (argv) => (await import('./daemon/command.ts')).daemonCommand(argv),
  },
  doctor: {
    summary: 'Say what works on this host and what does not, with cause and remedy',
    run: async (argv) => (await import('./daemon/doctor.ts')).doctorCommand(argv),
  },
};

// The reader of our output went away (`bulkhead logs X | head`): nothing is left to be said, and nobody to say it to.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 141 : 1));
const exitCode = await runCli(process.argv.slice(2), {
  // Getters, because looking at them opens the streams.
  get stdin() {
    return process.stdin;
  },
  get stdout() {
    return process.stdout;
  },
  get stderr() {
    return process.stderr;
  },
  environment: process.env,
  external,
  disks: async (allowedDirectories) =>
    new (await import('./machine/disks/disk-images.ts')).DiskImages({ allowedDirectories }),
});
process.exit(exitCode);
