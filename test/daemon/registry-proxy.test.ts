import test from 'ava';
import { registryProxy } from '../../src/daemon/registry-proxy.ts';

test('the proxy is the one of the environment, upper case first, with http where no scheme is given', (t) => {
  t.deepEqual(registryProxy({ HTTPS_PROXY: 'http://a:1', https_proxy: 'http://b:2', no_proxy: 'c,.d' }), {
    proxy: 'http://a:1',
    noProxy: 'c,.d',
  });
  t.is(registryProxy({ https_proxy: 'proxy.example:3128' }).proxy, 'http://proxy.example:3128');
  t.is(registryProxy({ HTTPS_PROXY: 'localhost:3128' }).proxy, 'http://localhost:3128');
  t.deepEqual(registryProxy({ HTTPS_PROXY: '', NO_PROXY: '' }), { proxy: undefined, noProxy: undefined });
});

test('a proxy that cannot be used is an error at start, without the password that may be in it', (t) => {
  for (const text of ['socks5://ann:secret@host:1', 'http://ann:secret@', 'http://ann:secret@host:port']) {
    const error = t.throws(() => registryProxy({ HTTPS_PROXY: text }));
    t.regex(error.message, /HTTPS_PROXY is not usable/);
    t.false(error.message.includes('secret'));
  }
});
