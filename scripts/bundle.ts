import { build, type BuildOptions, type Plugin } from 'esbuild';
import { readdir, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/*
 * Bundles the program into `build/`:
 * - `bulkhead.mjs`, the CLI in one file: its commands are evaluated when they are called, but no further file is opened on the way to them;
 * - `help.mjs`, the help pages with yargs, which are rarely wanted and slow to load;
 * - `disks.mjs`, what `bulkhead disk` does on files of this host, without a daemon;
 * - `daemon.mjs` and `doctor.mjs` with what they share in `chunks/`.
 * Separate runs of esbuild, because one run with splitting puts what two entries have in common (all of zod) into a file that both must load.
 */

const root = fileURLToPath(new URL('../', import.meta.url));

/** Modules that are bundles of their own, by the end of their path. */
const SEPARATE: Readonly<Record<string, string>> = {
  './help.ts': './help.mjs',
  './daemon/command.ts': './daemon.mjs',
  './daemon/doctor.ts': './doctor.mjs',
  './machine/disks/disk-images.ts': './disks.mjs',
};

const separateBundles: Plugin = {
  name: 'separate-bundles',
  setup: (context) => {
    context.onResolve(
      { filter: /^\.\/(help|daemon\/command|daemon\/doctor|machine\/disks\/disk-images)\.ts$/ },
      ({ path, kind }) => {
        const target = SEPARATE[path];
        return kind === 'dynamic-import' && target !== undefined ? { path: target, external: true } : undefined;
      },
    );
  },
};

const shared: BuildOptions = {
  absWorkingDir: root,
  outdir: 'build',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'linked',
  metafile: true,
  logLevel: 'warning',
};

/** CommonJS dependencies call require; ES modules have none. */
const requireBanner = {
  js: "import{createRequire as bulkheadRequire}from'node:module';const require=bulkheadRequire(import.meta.url);",
};

const results = await Promise.all([
  build({ ...shared, metafile: true, entryPoints: { bulkhead: 'src/main.ts' }, plugins: [separateBundles] }),
  build({
    ...shared,
    metafile: true,
    entryPoints: { disks: 'src/machine/disks/disk-images.ts' },
    banner: requireBanner,
  }),
  build({
    ...shared,
    metafile: true,
    entryPoints: { help: 'src/cli/help.ts' },
    plugins: [separateBundles],
    banner: requireBanner,
  }),
  build({
    ...shared,
    metafile: true,
    entryPoints: { daemon: 'src/daemon/command.ts', doctor: 'src/daemon/doctor.ts' },
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    banner: requireBanner,
    // koffi is a native module and finds its binary beside itself; pino starts worker threads from files of its own.
    external: ['koffi', 'pino'],
  }),
]);
for (const { metafile } of results) {
  for (const [path, { bytes, entryPoint }] of Object.entries(metafile.outputs)) {
    if (entryPoint?.startsWith('src/') === true) console.log(`${path} ${(bytes / 1024).toFixed(1)} KiB`);
  }
}

// Chunks of an earlier bundle go last: a daemon that is starting from them meanwhile finds the old set or the new one, never none.
const written = new Set(results.flatMap(({ metafile }) => Object.keys(metafile.outputs)));
for (const name of await readdir(`${root}build/chunks`).catch(() => [])) {
  if (!written.has(`build/chunks/${name}`)) await rm(`${root}build/chunks/${name}`);
}
