import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test from 'ava';
import koffi from 'koffi';
import { functionDeclarations, structures } from '../../../src/platform/ffi/declarations.ts';
import { findLibrary, nativeLibrary } from '../../../src/platform/ffi/library.ts';

const header = readFileSync(new URL('../../../native/binding/include/bulkhead.h', import.meta.url), 'utf8').replaceAll(
  /\/\*[\s\S]*?\*\//g,
  '',
);

/** `int32_t bh_x(const char *, uint64_t *)`: a prototype without parameter names. */
function normalise(prototype: string): string {
  return prototype
    .replaceAll('_Out_ ', '')
    .replaceAll('BhReply *', 'char **')
    .replaceAll('struct ', '')
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/ ?(\w+)(?=[,)])/g, (text, name: string) => (name === 'void' ? text : ''))
    .trim();
}

const headerPrototypes = [...header.matchAll(/^\w[\w ]*?[ *](bh_\w+)\([^)]*\)(?=;)/gm)].map(
  ([prototype, name = '']) => [name, normalise(prototype)] as const,
);

// Parameters that are raw memory to koffi, whatever their type in C.
const rawMemory = new Map([
  ['bh_last_error', 'size_t bh_last_error(char *, size_t)'],
  ['bh_free', 'void bh_free(char *)'],
]);

test('koffi declares exactly the functions of the header, with the same types', (t) => {
  const declared = Object.entries(functionDeclarations).map(
    ([name, declaration]) => [name, rawMemory.get(name) ?? normalise(declaration)] as const,
  );

  t.true(headerPrototypes.length > 30);
  t.deepEqual(Object.fromEntries(declared), Object.fromEntries(headerPrototypes));
});

test('koffi declares exactly the structures of the header, with the same fields', (t) => {
  const inHeader = [...header.matchAll(/typedef struct \{([^}]*)\} (\w+);/g)].map(([, body = '', name = '']) => {
    const fields = [...body.matchAll(/(\w+) (\w+)(\[\d+\])?;/g)];
    return [name, fields.map(([, type = '', field = '', length = '']) => `${type}${length} ${field}`)] as const;
  });
  const declared = Object.entries(structures).map(
    ([name, fields]) => [name, Object.entries(fields).map(([field, type]) => `${type} ${field}`)] as const,
  );

  t.deepEqual(Object.fromEntries(declared), Object.fromEntries(inHeader));
});

test('every function of the header is in the library, and the library exports no other', (t) => {
  const table = execFileSync('nm', ['--dynamic', '--defined-only', findLibrary()], { encoding: 'utf8' });
  const exported = table
    .split('\n')
    .map((line) => line.split(' ')[2] ?? '')
    .filter((name) => name !== '');

  t.deepEqual(exported.toSorted(), headerPrototypes.map(([name]) => name).toSorted());
});

test('a stale or foreign handle is an error and never more', (t) => {
  const library = nativeLibrary();

  for (const handle of [0, 1, 3, 2 ** 32 - 1, 2n ** 64n - 1n]) {
    t.throws(() => library.call('bh_kvm_api_version', handle), {
      code: 'wrong-state',
      message: /should be an open kvm/,
    });
    t.throws(() => library.call('bh_vcpu_kick', handle), { code: 'wrong-state' });
    t.throws(() => library.call('bh_close', handle), { code: 'wrong-state' });
  }
});

test('a handle of another kind is refused by name', (t) => {
  const library = nativeLibrary();
  const slot: [number | null] = [null];
  library.call('bh_kvm_open', null, slot);
  t.teardown(() => library.call('bh_close', slot[0]));

  t.throws(() => library.call('bh_vm_create_irqchip', slot[0]), { message: /should be an open vm, but is kvm/ });
});

test('null pointers are refused', (t) => {
  const library = nativeLibrary();

  t.throws(() => library.call('bh_kvm_open', null, null), { code: 'invalid-argument', message: /handle is null/ });
});

test('requests that are no JSON, have unknown keys or are too long are refused', (t) => {
  const bind = koffi.load(findLibrary()).func('int32_t bh_link_list(const char *request, void *reply)');

  t.is(bind('{', null), -1);
  t.is(bind('{"name_prefix": "x", "other": 1}', null), -1);
  t.is(bind(null, null), -1);
  t.is(bind(`{"name_prefix": "${'x'.repeat(2 ** 20)}"}`, null), -1);
  t.is(bind('{"name_prefix": "no-such-link"}', null), 0);
});

test('a library that is not there is told with how to build it', (t) => {
  t.throws(() => findLibrary({ BULKHEAD_LIBRARY: '/nowhere/libbulkhead.so' }), {
    code: 'unavailable',
    message: /\/nowhere\/libbulkhead\.so.*cargo build --release -p bulkhead-binding/,
  });
});
