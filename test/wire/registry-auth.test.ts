import test from 'ava';
import { decodeRegistryAuth } from '../../src/wire/docker/registry-auth.ts';

const encode = (value: unknown, encoding: 'base64' | 'base64url' = 'base64url'): string =>
  Buffer.from(JSON.stringify(value)).toString(encoding);

test('credentials are read from both alphabets, with and without padding', (t) => {
  const credentials = { username: 'ü??>', password: '~~~p', serveraddress: 'r:5000' };
  for (const header of [encode(credentials), encode(credentials, 'base64'), `${encode(credentials)}==`]) {
    t.like(decodeRegistryAuth(header), { username: 'ü??>', password: '~~~p' });
  }
});

test('tokens and the old combined form are read', (t) => {
  t.like(decodeRegistryAuth(encode({ identitytoken: 'i' })), { identityToken: 'i' });
  t.like(decodeRegistryAuth(encode({ registrytoken: 'r' })), { registryToken: 'r' });
  const auth = Buffer.from('me:a:b').toString('base64');
  t.like(decodeRegistryAuth(encode({ auth })), { username: 'me', password: 'a:b' });
});

test('nothing, an empty object and what cannot be read mean anonymous', (t) => {
  for (const header of [undefined, '', 'e30=', encode(null), encode({ username: 5 }), '!!!', encode('x')]) {
    t.is(decodeRegistryAuth(header), undefined);
  }
});
