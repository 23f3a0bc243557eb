import { text } from 'node:stream/consumers';
import test from 'ava';
import { DetachKeyFilter, parseDetachKeys } from '../../src/cli/terminal/detach-keys.ts';

async function typed(keys: string, chunks: readonly string[]): Promise<{ passed: string; detached: number }> {
  let detached = 0;
  const filter = new DetachKeyFilter(parseDetachKeys(keys), () => {
    detached += 1;
  });
  for (const chunk of chunks) filter.write(chunk);
  filter.end();
  return { passed: await text(filter), detached };
}

test('the sequence detaches wherever it is cut, and what follows is swallowed', async (t) => {
  t.deepEqual(await typed('ctrl-p,ctrl-q', ['ab\x10', '\x11cd']), { passed: 'ab', detached: 1 });
});

test('a sequence that is begun and not ended is passed on', async (t) => {
  t.deepEqual(await typed('ctrl-p,ctrl-q', ['\x10x\x10\x10', 'y']), { passed: '\x10x\x10\x10y', detached: 0 });
  t.deepEqual(await typed('a,b', ['aab']), { passed: 'a', detached: 1 });
});

test('keys that do not exist are refused', (t) => {
  t.throws(() => parseDetachKeys('ctrl-p,hyper-x'), { message: /Unknown character: 'hyper-x'/ });
});
