import { build } from 'esbuild';
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/*
 * Bundles the program into `build/`: `bulkhead.mjs` is the entry, what it loads lazily (the daemon, each command) lies beside it in `chunks/`, so
 * that the CLI starts without reading the daemon. One file for all would be parsed whole at every start.
 */

const root = fileURLToPath(new URL('../', import.meta.url));
const outdir = `${root}build`;

await rm(`${outdir}/chunks`, { recursive: true, force: true });
const result = await build({
  absWorkingDir: root,
  entryPoints: { bulkhead: 'src/main.ts' },
  outdir,
  outExtension: { '.js': '.mjs' },
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  splitting: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  minifySyntax: true,
  minifyWhitespace: true,
  keepNames: false,
  legalComments: 'linked',
  // koffi is a native module and finds its binary beside itself; pino starts worker threads from files of its own.
  external: ['koffi', 'pino'],
  // CommonJS dependencies call require; ES modules have none.
  banner: { js: "import{createRequire as bulkheadRequire}from'node:module';const require=bulkheadRequire(import.meta.url);" },
  metafile: true,
  logLevel: 'warning',
});
for (const [path, { bytes, entryPoint }] of Object.entries(result.metafile.outputs)) {
  if (path.endsWith('bulkhead.mjs') || entryPoint === 'src/daemon/command.ts') console.log(`${path} ${(bytes / 1024).toFixed(1)} KiB`);
}
