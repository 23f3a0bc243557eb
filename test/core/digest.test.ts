import test from 'ava';
import { chainIds, digestOfBytes, isDigest, parseDigest, shortHex } from '../../src/core/digest.ts';

test('only sha256 with 64 lower-case digits is a digest', (t) => {
  t.true(isDigest(`sha256:${'0a'.repeat(32)}`));
  t.false(isDigest(`sha256:${'0A'.repeat(32)}`));
  t.false(isDigest(`sha256:${'0a'.repeat(31)}`));
  t.false(isDigest(`sha256:../${'0a'.repeat(32)}`));
  t.throws(() => parseDigest('sha512:00', 'layer'), { message: /^layer "sha512:00" is not valid/ });
});

test('the digest of known bytes is the known one', (t) => {
  t.is(String(digestOfBytes('')), 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  t.is(shortHex(digestOfBytes('')), 'e3b0c44298fc');
});

test('a chain ID names a layer together with all below it', (t) => {
  const [a, b] = [digestOfBytes('a'), digestOfBytes('b')];

  t.deepEqual(chainIds([]), []);
  t.deepEqual(chainIds([a, b]), [a, digestOfBytes(`${a} ${b}`)]);
});
