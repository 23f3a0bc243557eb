import { readFile } from 'node:fs/promises';
import test from 'ava';
import { statusOfError } from '../../src/api/error-status.ts';
import { exitCodeOf } from '../../src/cli/exit-code.ts';
import { ApiError } from '../../src/client/api-error.ts';
import { EngineError, type ErrorCode } from '../../src/core/errors.ts';

const read = (path: string): Promise<string> => readFile(new URL(`../../${path}`, import.meta.url), 'utf8');

interface DocumentedCode {
  readonly code: ErrorCode;
  readonly status: number;
  readonly exitCode: number;
  readonly meaning: string;
}

/** Rows of the first table of docs/errors.md. */
async function readDocumentedCodes(): Promise<DocumentedCode[]> {
  const text = await read('docs/errors.md');
  return [...text.matchAll(/^\| `([a-z-]+)` \| (\d+) \| (\d+) \| (.+) \|$/gm)].map(
    ([, code = '', status, exitCode, meaning = '']) => ({
      code: code as ErrorCode,
      status: Number(status),
      exitCode: Number(exitCode),
      meaning,
    }),
  );
}

/** The members of the union, which only its source tells. */
async function readUnion(): Promise<string[]> {
  const source = await read('src/core/errors.ts');
  const union = /export type ErrorCode =([^;]+);/.exec(source)?.[1] ?? '';
  return [...union.matchAll(/'([a-z-]+)'/g)].map(([, code = '']) => code);
}

test('docs/errors.md lists every error code once, and no other', async (t) => {
  const documented = (await readDocumentedCodes()).map(({ code }) => code);
  const union = await readUnion();

  t.true(union.length > 10, 'the union was found in its source');
  t.deepEqual([...documented].sort(), [...union].sort());
});

test('docs/errors.md gives each code the status that the API answers with', async (t) => {
  const documented = await readDocumentedCodes();

  t.deepEqual(
    documented.map(({ code, status }) => [code, status]),
    documented.map(({ code }) => [code, statusOfError(new EngineError(code, 'a message'))]),
  );
});

test('docs/errors.md gives each code the exit code that the CLI makes of that answer', async (t) => {
  const documented = await readDocumentedCodes();

  t.deepEqual(
    documented.map(({ code, exitCode }) => [code, exitCode]),
    documented.map(({ code, status }) => [code, exitCodeOf(new ApiError(status, 'a message'))]),
  );
});

test('docs/errors.md says of each code what it means', async (t) => {
  const documented = await readDocumentedCodes();

  t.deepEqual(
    documented.filter(({ meaning }) => meaning.length < 20).map(({ code }) => code),
    [],
  );
});
