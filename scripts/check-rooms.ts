/**
 * Checks that imports between the rooms of src/ go down only, and that koffi and execa are imported where they may be.
 * The order is the one of ARCHITECTURE.md. Prints every violation; exit 1 if there is one.
 */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

/** Highest first. Rooms in one line are neighbours and do not import each other. */
const ORDER: readonly (readonly string[])[] = [
  ['main'],
  ['daemon'],
  ['cli'],
  ['client'],
  ['api'],
  ['engine'],
  ['sandbox'],
  ['machine'],
  ['oci'],
  ['network', 'volume'],
  ['platform'],
  ['wire'],
  ['core'],
];

/** Rooms that may import less than everything below them. */
const ONLY: Readonly<Record<string, readonly string[]>> = {
  cli: ['client', 'platform', 'wire', 'core'],
  client: ['platform', 'wire', 'core'],
};

/** Package → the folders of src/ that may import it. */
const PACKAGES: Readonly<Record<string, string>> = { koffi: 'platform/ffi', execa: 'platform' };

const root = resolve(import.meta.dirname, '..', 'src');
const level = (room: string): number => ORDER.findIndex((rooms) => rooms.includes(room));
const roomOf = (path: string): string =>
  relative(root, path).split('/').length === 1 ? 'main' : (relative(root, path).split('/')[0] ?? '');

const violations: string[] = [];
for (const file of globSync('**/*.ts', { cwd: root }).map((name) => join(root, name))) {
  const room = roomOf(file);
  const name = relative(root, file);
  if (level(room) < 0) violations.push(`${name}: '${room}' is not a room of ARCHITECTURE.md`);
  const text = readFileSync(file, 'utf8');
  for (const [, specifier = ''] of text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)) {
    const folder = PACKAGES[specifier];
    if (folder !== undefined && !name.startsWith(`${folder}/`))
      violations.push(`${name}: ${specifier} is for src/${folder} only`);
    if (!specifier.startsWith('.')) continue;
    const target = roomOf(resolve(dirname(file), specifier));
    if (target === room || target === 'main') continue;
    const allowed = ONLY[room]?.includes(target) ?? level(target) > level(room);
    if (!allowed) violations.push(`${name}: ${room} may not import ${target} (${specifier})`);
  }
}

for (const violation of violations) process.stderr.write(`${violation}\n`);
process.stdout.write(
  violations.length === 0 ? 'rooms: imports go down only\n' : `rooms: ${violations.length} violations\n`,
);
process.exitCode = violations.length === 0 ? 0 : 1;
